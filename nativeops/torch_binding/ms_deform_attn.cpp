#include "../kernels/ms_deform_attn.h"

#include <algorithm>

#include "wide.h"

namespace detc::binding {
namespace {

detc::MsDeformAttn shape_of(
    const Tensor& value, const std::vector<int64_t>& spatial_shapes, const Tensor& locations, const Tensor& weights) {
  STD_TORCH_CHECK(value.dim() == 4 && locations.dim() == 6 && weights.dim() == 5, "ms_deform_attn: wrong number of dimensions");
  const int64_t levels = static_cast<int64_t>(spatial_shapes.size()) / 2;
  STD_TORCH_CHECK(spatial_shapes.size() % 2 == 0, "ms_deform_attn: spatial_shapes must be pairs of height and width");
  STD_TORCH_CHECK(levels <= detc::kMaxAttentionLevels, "ms_deform_attn: at most 16 levels");
  detc::MsDeformAttn s{};
  s.images = value.size(0);
  s.positions = value.size(1);
  s.heads = value.size(2);
  s.channels = value.size(3);
  s.levels = levels;
  s.queries = weights.size(1);
  s.points = weights.size(4);
  int64_t start = 0;
  for (int64_t l = 0; l < levels; ++l) {
    s.height[l] = spatial_shapes[2 * l];
    s.width[l] = spatial_shapes[2 * l + 1];
    s.start[l] = start;
    STD_TORCH_CHECK(
        std::min(s.height[l], s.width[l]) >= 0 && std::max(s.height[l], s.width[l]) <= (int64_t{1} << 31) && start <= s.positions,
        "ms_deform_attn: spatial_shapes do not fit a value of ", s.positions, " positions");
    start += s.height[l] * s.width[l];
  }
  STD_TORCH_CHECK(start == s.positions, "ms_deform_attn: spatial_shapes cover ", start, " positions, value has ", s.positions);
  STD_TORCH_CHECK(
      weights.size(0) == s.images && weights.size(2) == s.heads && weights.size(3) == levels &&
          locations.size(0) == s.images && locations.size(1) == s.queries && locations.size(2) == s.heads &&
          locations.size(3) == levels && locations.size(4) == s.points && locations.size(5) == 2,
      "ms_deform_attn: locations and weights do not fit value and spatial_shapes");
  STD_TORCH_CHECK(
      value.scalar_type() == locations.scalar_type() && value.scalar_type() == weights.scalar_type(),
      "ms_deform_attn: inputs must have one dtype");
  return s;
}

Tensor forward_cpu(Tensor value, std::vector<int64_t> spatial_shapes, Tensor locations, Tensor weights) {
  const auto s = shape_of(value, spatial_shapes, locations, weights);
  const auto type = value.scalar_type();
  value = widened(value);
  locations = widened(locations);
  weights = widened(weights);
  Tensor out = empty(value, {s.images, s.queries, s.heads * s.channels});
  detc::ms_deform_attn_cpu(dtype_of(value, "value"), s, data(value), data(locations), data(weights), mutable_data(out));
  return narrowed(out, type);
}

std::tuple<Tensor, Tensor, Tensor> backward_cpu(
    Tensor grad, Tensor value, std::vector<int64_t> spatial_shapes, Tensor locations, Tensor weights) {
  const auto s = shape_of(value, spatial_shapes, locations, weights);
  check_gradient(grad, {s.images, s.queries, s.heads * s.channels}, value, "ms_deform_attn");
  const auto type = value.scalar_type();
  grad = widened(grad);
  value = widened(value);
  locations = widened(locations);
  weights = widened(weights);
  Tensor grad_value = zeros(value, sizes_of(value));
  Tensor grad_locations = empty(value, sizes_of(locations));
  Tensor grad_weights = empty(value, sizes_of(weights));
  detc::ms_deform_attn_backward_cpu(
      dtype_of(value, "value"), s, data(grad), data(value), data(locations), data(weights), mutable_data(grad_value),
      mutable_data(grad_locations), mutable_data(grad_weights));
  return {narrowed(grad_value, type), narrowed(grad_locations, type), narrowed(grad_weights, type)};
}

#ifdef DETC_WITH_CUDA
Tensor forward_cuda(Tensor value, std::vector<int64_t> spatial_shapes, Tensor locations, Tensor weights) {
  const auto s = shape_of(value, spatial_shapes, locations, weights);
  const CudaScope scope(value);
  value = dense(value);
  locations = dense(locations);
  weights = dense(weights);
  Tensor out = empty(value, {s.images, s.queries, s.heads * s.channels});
  detc::ms_deform_attn_cuda(
      dtype_of(value, "value"), s, data(value), data(locations), data(weights), mutable_data(out), scope.stream());
  return out;
}

std::tuple<Tensor, Tensor, Tensor> backward_cuda(
    Tensor grad, Tensor value, std::vector<int64_t> spatial_shapes, Tensor locations, Tensor weights) {
  const auto s = shape_of(value, spatial_shapes, locations, weights);
  check_gradient(grad, {s.images, s.queries, s.heads * s.channels}, value, "ms_deform_attn");
  const CudaScope scope(value);
  grad = dense(grad);
  value = dense(value);
  locations = dense(locations);
  weights = dense(weights);
  Tensor grad_value = empty(value, sizes_of(value));
  Tensor grad_locations = empty(value, sizes_of(locations));
  Tensor grad_weights = empty(value, sizes_of(weights));
  Tensor workspace = empty_bytes(value, detc::ms_deform_attn_backward_workspace(s));
  detc::ms_deform_attn_backward_cuda(
      dtype_of(value, "value"), s, data(grad), data(value), data(locations), data(weights), mutable_data(grad_value),
      mutable_data(grad_locations), mutable_data(grad_weights), mutable_data(workspace), scope.stream());
  return {grad_value, grad_locations, grad_weights};
}
#endif

}  // namespace
}  // namespace detc::binding

STABLE_TORCH_LIBRARY_IMPL(detc, CPU, m) {
  m.impl("ms_deform_attn", TORCH_BOX(&detc::binding::forward_cpu));
  m.impl("ms_deform_attn_backward", TORCH_BOX(&detc::binding::backward_cpu));
}

#ifdef DETC_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(detc, CUDA, m) {
  m.impl("ms_deform_attn", TORCH_BOX(&detc::binding::forward_cuda));
  m.impl("ms_deform_attn_backward", TORCH_BOX(&detc::binding::backward_cuda));
}
#endif
