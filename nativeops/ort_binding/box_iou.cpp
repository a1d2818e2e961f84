#include "../kernels/box_iou.h"

#include "common.h"

namespace detc::ort {
namespace {

// Inputs: a [B, N, 4], b [B, M, 4]. Output [B, N, M], aligned (N = M) [B, N].
template <IouKind kind, bool aligned>
class BoxIou {
 public:
  explicit BoxIou(const Attributes&) {}

  void compute(Context& context) const {
    const Tensor a = context.input(0), b = context.input(1);
    require(a.shape.size() == 3 && b.shape.size() == 3 && a.size(2) == 4 && b.size(2) == 4 && a.size(0) == b.size(0),
            "BoxIou: boxes must be [B, N, 4] and [B, M, 4]");
    require(!aligned || a.size(1) == b.size(1), "BoxIou: aligned boxes must be as many on both sides");
    BoxIouArgs args{};
    args.dtype = DType::f32;
    args.kind = kind;
    args.aligned = aligned;
    args.a = a.data;
    args.b = b.data;
    args.batch = a.size(0);
    args.n = a.size(1);
    args.m = b.size(1);
    Shape size{args.batch, args.n};
    if (!aligned) size.push_back(args.m);
    args.out = context.output<float>(0, size);
    if (size_of(size) == 0) return;
#ifdef DETC_WITH_CUDA
    if (context.on_cuda()) {
      box_iou_cuda(args, context.stream());
      return;
    }
#endif
    box_iou_cpu(args);
  }
};

template <IouKind kind>
bool add_kind(const char* name) {
  const std::string aligned = std::string(name) + "Aligned";
  return add<BoxIou<kind, false>>(name, {kFloat, kFloat}, {kFloat}) &&
         add<BoxIou<kind, true>>(aligned.c_str(), {kFloat, kFloat}, {kFloat});
}

const bool added = add_kind<IouKind::iou>("BoxIou") && add_kind<IouKind::giou>("BoxGiou") &&
                   add_kind<IouKind::diou>("BoxDiou") && add_kind<IouKind::ciou>("BoxCiou");

}  // namespace
}  // namespace detc::ort
