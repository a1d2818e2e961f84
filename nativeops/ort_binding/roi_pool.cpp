#include "../kernels/roi_pool.h"

#include "common.h"

namespace detc::ort {
namespace {

// Inputs: feature [B, C, H, W], rois [R, 5]. Output [R, C, P, Q].
class RoiPool {
 public:
  explicit RoiPool(const Attributes& attributes) {
    const auto size = attributes.integers("pooled_shape");
    require(size.size() == 2 && size[0] > 0 && size[1] > 0, "RoiPool: pooled_shape must be a positive pair");
    args_.dtype = DType::f32;
    args_.pooled_height = size[0];
    args_.pooled_width = size[1];
    args_.scale = attributes.number("spatial_scale");
  }

  void compute(Context& context) const {
    const Tensor feature = context.input(0), rois = context.input(1);
    require(feature.shape.size() == 4 && rois.shape.size() == 2 && rois.size(1) == 5,
            "RoiPool: feature must be [B, C, H, W] and rois [R, 5]");
    RoiPoolArgs args = args_;
    args.feature = feature.data;
    args.rois = rois.data;
    args.batch = feature.size(0);
    args.channels = feature.size(1);
    args.height = feature.size(2);
    args.width = feature.size(3);
    args.num_rois = rois.size(0);
    const Shape size{args.num_rois, args.channels, args.pooled_height, args.pooled_width};
    args.output = context.output<float>(0, size);
    if (size_of(size) == 0) return;
    const size_t count = static_cast<size_t>(size_of(size));
#ifdef DETC_WITH_CUDA
    if (context.on_cuda()) {
      args.argmax = static_cast<int64_t*>(context.workspace(static_cast<int64_t>(count * sizeof(int64_t))));
      roi_pool_cuda(args, context.stream());
      return;
    }
#endif
    std::vector<int64_t> argmax(count);
    args.argmax = argmax.data();
    roi_pool_cpu(args);
  }

 private:
  RoiPoolArgs args_{};
};

const bool added = add<RoiPool>("RoiPool", {kFloat, kFloat}, {kFloat});

}  // namespace
}  // namespace detc::ort
