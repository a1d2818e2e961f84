#include "../kernels/deform_roi_pool.h"

#include "common.h"

namespace detc::ort {
namespace {

// Inputs: x [B, C, H, W], rois [N, 5], offset [N, 2, p, q]. Output [N, C, p, q].
class DeformRoiPoolKernel {
 public:
  explicit DeformRoiPoolKernel(const Attributes& attributes) {
    pool_.bins_h = attributes.integer("pooled_height");
    pool_.bins_w = attributes.integer("pooled_width");
    pool_.sampling = attributes.integer("sampling");
    pool_.spatial_scale = attributes.number("spatial_scale");
    pool_.gamma = attributes.number("gamma");
    require(pool_.bins_h > 0 && pool_.bins_w > 0 && pool_.sampling >= 0, "DeformRoiPool: bins must be positive, sampling not negative");
  }

  void compute(Context& context) const {
    const Tensor x = context.input(0), rois = context.input(1), offset = context.input(2);
    require(x.shape.size() == 4 && rois.shape.size() == 2 && rois.size(1) == 5, "DeformRoiPool: x must be [B, C, H, W], rois [N, 5]");
    DeformRoiPool s = pool_;
    s.images = x.size(0), s.channels = x.size(1), s.height = x.size(2), s.width = x.size(3), s.rois = rois.size(0);
    require(offset.shape == Shape({s.rois, 2, s.bins_h, s.bins_w}), "DeformRoiPool: offset must be [N, 2, p, q]");
    const Shape size{s.rois, s.channels, s.bins_h, s.bins_w};
    float* out = context.output<float>(0, size);
    if (size_of(size) == 0) return;
#ifdef DETC_WITH_CUDA
    if (context.on_cuda()) {
      deform_roi_pool_cuda(DType::f32, s, x.data, rois.data, offset.data, out, context.stream());
      return;
    }
#endif
    deform_roi_pool_cpu(DType::f32, s, x.data, rois.data, offset.data, out);
  }

 private:
  DeformRoiPool pool_{};
};

const bool added = add<DeformRoiPoolKernel>("DeformRoiPool", {kFloat, kFloat, kFloat}, {kFloat});

}  // namespace
}  // namespace detc::ort
