#include "../kernels/roi_align.h"

#include <cstring>

#include "common.h"

namespace detc::ort {
namespace {

// Inputs: the feature maps [B, C, H_l, W_l], rois [B, R, 4], valid [B, R].
class MultilevelRoiAlign {
 public:
  explicit MultilevelRoiAlign(const Attributes& attributes) {
    const std::vector<double> scales = attributes.numbers("scales");
    require(!scales.empty() && scales.size() <= static_cast<size_t>(kMaxLevels), "MultilevelRoiAlign: 1 to 8 levels");
    args_.dtype = DType::f32;
    args_.num_levels = static_cast<int64_t>(scales.size());
    for (size_t l = 0; l < scales.size(); ++l) args_.scale[l] = scales[l];
    args_.pooled_height = attributes.integer("pooled_height");
    args_.pooled_width = attributes.integer("pooled_width");
    args_.sampling_ratio = attributes.integer("sampling_ratio");
    args_.aligned = attributes.text("half") == "half_pixel";
    args_.canonical_scale = attributes.number("canonical_scale");
    args_.canonical_level = attributes.number("canonical_level");
  }

  void compute(Context& context) const {
    RoiAlignArgs args = args_;
    const size_t levels = static_cast<size_t>(args.num_levels);
    for (size_t l = 0; l < levels; ++l) {
      const Tensor map = context.input(l);
      require(map.shape.size() == 4, "MultilevelRoiAlign: features [B, C, H, W]");
      if (l == 0) {
        args.batch = map.size(0);
        args.channels = map.size(1);
      }
      require(map.size(0) == args.batch && map.size(1) == args.channels, "MultilevelRoiAlign: levels differ in B or C");
      args.features[l] = map.data;
      args.height[l] = map.size(2);
      args.width[l] = map.size(3);
    }
    const Tensor rois = context.input(levels), valid = context.input(levels + 1);
    require(rois.shape.size() == 3 && rois.size(0) == args.batch && rois.size(2) == 4,
            "MultilevelRoiAlign: rois [B, R, 4]");
    require(valid.shape == Shape({rois.size(0), rois.size(1)}), "MultilevelRoiAlign: valid [B, R]");
    args.rois = rois.data;
    args.valid = valid.as<bool>();
    args.rois_per_image = rois.size(1);
    args.num_rois = args.batch * args.rois_per_image;
    const Shape shape{args.batch, args.rois_per_image, args.channels, args.pooled_height, args.pooled_width};
    args.output = context.output<float>(0, shape);
    if (size_of(shape) == 0) return;
#ifdef DETC_WITH_CUDA
    if (context.on_cuda()) {
      roi_align_forward_cuda(args, context.stream());
      return;
    }
#endif
    roi_align_forward_cpu(args);
  }

 private:
  RoiAlignArgs args_{};
};

// Inputs: feature [B, C, H, W], rois [R, 5]. Output [R, C, P, Q].
class RoiAlign {
 public:
  explicit RoiAlign(const Attributes& attributes) {
    args_.dtype = DType::f32;
    args_.num_levels = 1;
    args_.scale[0] = attributes.number("spatial_scale");
    args_.pooled_height = attributes.integer("pooled_height");
    args_.pooled_width = attributes.integer("pooled_width");
    args_.sampling_ratio = attributes.integer("sampling_ratio");
    args_.aligned = attributes.text("half") == "half_pixel";
  }

  void compute(Context& context) const {
    const Tensor feature = context.input(0), rois = context.input(1);
    require(feature.shape.size() == 4 && rois.shape.size() == 2 && rois.size(1) == 5,
            "RoiAlign: feature must be [B, C, H, W] and rois [R, 5]");
    RoiAlignArgs args = args_;
    args.features[0] = feature.data;
    args.batch = feature.size(0);
    args.channels = feature.size(1);
    args.height[0] = feature.size(2);
    args.width[0] = feature.size(3);
    args.rois = rois.data;
    args.num_rois = rois.size(0);
    const Shape shape{args.num_rois, args.channels, args.pooled_height, args.pooled_width};
    args.output = context.output<float>(0, shape);
    if (size_of(shape) == 0) return;
#ifdef DETC_WITH_CUDA
    if (context.on_cuda()) {
      roi_align_forward_cuda(args, context.stream());
      return;
    }
#endif
    roi_align_forward_cpu(args);
  }

 private:
  RoiAlignArgs args_{};
};

std::vector<Type> inputs(int levels) {
  std::vector<Type> types(static_cast<size_t>(levels) + 1, kFloat);
  types.push_back(kBool);
  return types;
}

const bool added = [] {
  for (int levels = 1; levels <= 5; ++levels)
    add<MultilevelRoiAlign>(("MultilevelRoiAlign" + std::to_string(levels)).c_str(), inputs(levels), {kFloat});
  return add<RoiAlign>("RoiAlign", {kFloat, kFloat}, {kFloat});
}();

}  // namespace
}  // namespace detc::ort
