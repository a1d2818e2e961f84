#include "../kernels/mask_paste.h"

#include "wide.h"

namespace detc::binding {
namespace {

MaskPaste paste_of(const Tensor& masks, const Tensor& boxes, int64_t height, int64_t width, double threshold) {
  STD_TORCH_CHECK(masks.dim() == 3 && boxes.dim() == 2 && boxes.size(1) == 4, "mask_paste: masks must be [N, m, k], boxes [N, 4]");
  STD_TORCH_CHECK(masks.size(0) == boxes.size(0), "mask_paste: one box a mask");
  STD_TORCH_CHECK(masks.scalar_type() == boxes.scalar_type(), "mask_paste: masks and boxes must have one dtype");
  STD_TORCH_CHECK(height >= 0 && width >= 0, "mask_paste: negative image size");
  return {masks.size(0), masks.size(1), masks.size(2), height, width, threshold};
}

Tensor paste_on_cpu(Tensor masks, Tensor boxes, int64_t height, int64_t width, double threshold) {
  const auto s = paste_of(masks, boxes, height, width, threshold);
  masks = widened(masks), boxes = widened(boxes);
  Tensor out = empty(masks, {s.masks, height, width}, ScalarType::Bool);
  mask_paste_cpu(dtype_of(masks, "masks"), s, data(masks), data(boxes), static_cast<uint8_t*>(mutable_data(out)));
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CPU, m) { m.impl("mask_paste", TORCH_BOX(&paste_on_cpu)); }

#ifdef DETC_WITH_CUDA
namespace {
Tensor paste_on_cuda(Tensor masks, Tensor boxes, int64_t height, int64_t width, double threshold) {
  const auto s = paste_of(masks, boxes, height, width, threshold);
  const CudaScope scope(masks);
  masks = dense(masks), boxes = dense(boxes);
  Tensor out = empty(masks, {s.masks, height, width}, ScalarType::Bool);
  mask_paste_cuda(dtype_of(masks, "masks"), s, data(masks), data(boxes), static_cast<uint8_t*>(mutable_data(out)), scope.stream());
  return out;
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CUDA, m) { m.impl("mask_paste", TORCH_BOX(&paste_on_cuda)); }
#endif

}  // namespace detc::binding
