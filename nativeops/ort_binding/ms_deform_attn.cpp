#include "../kernels/ms_deform_attn.h"

#include "common.h"

namespace detc::ort {
namespace {

MsDeformAttn levels_of(const int64_t* sizes, size_t count) {
  MsDeformAttn s{};
  s.levels = static_cast<int64_t>(count) / 2;
  require(count % 2 == 0 && s.levels <= kMaxAttentionLevels, "MsDeformAttn: spatial_shapes must be pairs, of at most 16 levels");
  for (int64_t l = 0; l < s.levels; ++l) {
    s.height[l] = sizes[2 * l];
    s.width[l] = sizes[2 * l + 1];
    require(std::min(s.height[l], s.width[l]) >= 0 && std::max(s.height[l], s.width[l]) <= (int64_t{1} << 28),
            "MsDeformAttn: spatial_shapes out of range");
    s.start[l] = s.positions;
    s.positions += s.height[l] * s.width[l];
  }
  return s;
}

// Inputs: value [B, S, M, D], locations [B, Q, M, L, P, 2], weights [B, Q, M, L, P]; sized: the levels' heights and
// widths [2 * L] too, which are an attribute otherwise. Output [B, Q, M * D].
template <bool sized>
class MsDeformAttnKernel {
 public:
  explicit MsDeformAttnKernel(const Attributes& attributes) {
    if (sized) return;
    const auto sizes = attributes.integers("spatial_shapes");
    levels_ = levels_of(sizes.data(), sizes.size());
  }

  void compute(Context& context) const {
    const Tensor value = context.input(0), locations = context.input(1), weights = context.input(2);
    require(value.shape.size() == 4 && weights.shape.size() == 5, "MsDeformAttn: wrong number of dimensions");
    MsDeformAttn s = levels_;
    if (sized) {
      const Tensor sizes = context.input(3);
      require(sizes.shape.size() == 1, "MsDeformAttn: spatial_shapes must be a list");
      s = levels_of(sizes.as<int64_t>(), static_cast<size_t>(sizes.size(0)));
    }
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

const bool added = add<MsDeformAttnKernel<false>>("MsDeformAttn", {kFloat, kFloat, kFloat}, {kFloat}) &&
                   add<MsDeformAttnKernel<true>>("MsDeformAttnSized", {kFloat, kFloat, kFloat, kInt64}, {kFloat}, {3});

}  // namespace
}  // namespace detc::ort
