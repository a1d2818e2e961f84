#include "../kernels/mask_paste.h"

#include "common.h"

namespace detc::ort {
namespace {

// Inputs: masks [N, m, k], boxes [N, 4]. Output [N, height, width] of bool.
class MaskPasteKernel {
 public:
  explicit MaskPasteKernel(const Attributes& attributes)
      : height_(attributes.integer("height")), width_(attributes.integer("width")), threshold_(attributes.number("threshold")) {
    require(height_ >= 0 && width_ >= 0, "MaskPaste: negative image size");
  }

  void compute(Context& context) const {
    const Tensor masks = context.input(0), boxes = context.input(1);
    require(masks.shape.size() == 3 && boxes.shape == Shape({masks.size(0), 4}), "MaskPaste: masks [N, m, k], boxes [N, 4]");
    const MaskPaste s{masks.size(0), masks.size(1), masks.size(2), height_, width_, threshold_};
    const Shape size{s.masks, height_, width_};
    auto* out = reinterpret_cast<uint8_t*>(context.output<bool>(0, size));
    if (size_of(size) == 0) return;
#ifdef DETC_WITH_CUDA
    if (context.on_cuda()) {
      mask_paste_cuda(DType::f32, s, masks.data, boxes.data, out, context.stream());
      return;
    }
#endif
    mask_paste_cpu(DType::f32, s, masks.data, boxes.data, out);
  }

 private:
  int64_t height_, width_;
  double threshold_;
};

const bool added = add<MaskPasteKernel>("MaskPaste", {kFloat, kFloat}, {kBool});

}  // namespace
}  // namespace detc::ort
