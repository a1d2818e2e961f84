#include "../kernels/rotated_box.h"

#include "common.h"

namespace detc::binding {
namespace {

template <class Run>
Tensor rotated_iou(const Tensor& a_in, const Tensor& b_in, bool aligned, const Run& run) {
  const Tensor a = dense(a_in), b = dense(b_in);
  STD_TORCH_CHECK(
      a.dim() == 2 && b.dim() == 2 && a.size(1) == 5 && b.size(1) == 5 && a.scalar_type() == b.scalar_type(),
      "rotated_iou: boxes must be [N, 5] and [M, 5] of one dtype");
  STD_TORCH_CHECK(!aligned || a.size(0) == b.size(0), "rotated_iou: aligned boxes must be as many on both sides");
  RotatedIouArgs args{};
  args.dtype = dtype_of(a, "rotated_iou: boxes");
  args.a = data(a);
  args.b = data(b);
  args.n = a.size(0);
  args.m = b.size(0);
  args.aligned = aligned;
  Tensor out = aligned ? empty(a, {args.n}) : empty(a, {args.n, args.m});
  args.out = out.mutable_data_ptr();
  if (out.numel() > 0) run(args, a);
  return out;
}

Tensor rotated_iou_on_cpu(Tensor a, Tensor b, bool aligned) {
  return rotated_iou(a, b, aligned, [](const RotatedIouArgs& args, const Tensor&) { rotated_iou_cpu(args); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CPU, m) { m.impl("rotated_iou", TORCH_BOX(&rotated_iou_on_cpu)); }

#ifdef DETC_WITH_CUDA
namespace {
Tensor rotated_iou_on_cuda(Tensor a, Tensor b, bool aligned) {
  return rotated_iou(a, b, aligned, [](const RotatedIouArgs& args, const Tensor& like) {
    const CudaScope scope(like);
    rotated_iou_cuda(args, scope.stream());
  });
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CUDA, m) { m.impl("rotated_iou", TORCH_BOX(&rotated_iou_on_cuda)); }
#endif

}  // namespace detc::binding
