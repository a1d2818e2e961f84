#include "../kernels/ms_deform_attn.h"

#include "common.h"

namespace detc::ort {
namespace {

// Inputs: value [B, S, M, D], locations [B, Q, M, L, P, 2], weights [B, Q, M, L, P]. Output [B, Q, M * D].
class MsDeformAttnKernel {
 public:
  explicit MsDeformAttnKernel(const Attributes& attributes) {
    const auto sizes = attributes.integers("spatial_shapes");
    levels_.levels = static_cast<int64_t>(sizes.size()) / 2;
    require(levels_.levels <= kMaxLevels, "MsDeformAttn: too many levels");
    for (int64_t l = 0; l < levels_.levels; ++l) {
      levels_.height[l] = sizes[2 * l];
      levels_.width[l] = sizes[2 * l + 1];
      levels_.start[l] = levels_.positions;
      levels_.positions += sizes[2 * l] * sizes[2 * l + 1];
    }
  }

  void compute(Context& context) const {
    const Tensor value = context.input(0), locations = context.input(1), weights = context.input(2);
    require(value.shape.size() == 4 && weights.shape.size() == 5, "MsDeformAttn: wrong number of dimensions");
    MsDeformAttn s = levels_;
    s.images = value.size(0);
    s.heads = value.size(2);
    s.channels = value.size(3);
    s.queries = weights.size(1);
    s.points = weights.size(4);
    require(value.size(1) == s.positions, "MsDeformAttn: spatial_shapes do not cover the value");
    require(weights.shape == Shape({s.images, s.queries, s.heads, s.levels, s.points}), "MsDeformAttn: weights do not fit");
    require(locations.shape == Shape({s.images, s.queries, s.heads, s.levels, s.points, 2}), "MsDeformAttn: locations do not fit");
    const Shape size{s.images, s.queries, s.heads * s.channels};
    float* out = context.output<float>(0, size);
    if (size_of(size) == 0) return;
#ifdef DETC_WITH_CUDA
    if (context.on_cuda()) {
      ms_deform_attn_cuda(DType::f32, s, value.data, locations.data, weights.data, out, context.stream());
      return;
    }
#endif
    ms_deform_attn_cpu(DType::f32, s, value.data, locations.data, weights.data, out);
  }

 private:
  MsDeformAttn levels_{};
};

const bool added = add<MsDeformAttnKernel>("MsDeformAttn", {kFloat, kFloat, kFloat}, {kFloat});

}  // namespace
}  // namespace detc::ort
