#include "../kernels/mask_paste.h"

#include "common.h"

namespace detc::ort {
namespace {

// Inputs: masks [N, m, k], boxes [N, 4], size [2] = (height, width) on the host. Output [N, height, width] of bool.
class MaskPasteKernel {
 public:
  explicit MaskPasteKernel(const Attributes& attributes) : threshold_(attributes.number("threshold")) {}

  void compute(Context& context) const {
    const Tensor masks = context.input(0), boxes = context.input(1), image = context.input(2);
    require(masks.shape.size() == 3 && boxes.shape == Shape({masks.size(0), 4}), "MaskPaste: masks [N, m, k], boxes [N, 4]");
    require(image.shape == Shape({2}), "MaskPaste: size [2]");
    const int64_t height = image.as<int64_t>()[0], width = image.as<int64_t>()[1];
    require(height >= 0 && width >= 0, "MaskPaste: negative image size");
    const MaskPaste s{masks.size(0), masks.size(1), masks.size(2), height, width, threshold_};
    const Shape size{s.masks, height, width};
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
  double threshold_;
};

const bool added = add<MaskPasteKernel>("MaskPaste", {kFloat, kFloat, kInt64}, {kBool}, {2});

}  // namespace
}  // namespace detc::ort
