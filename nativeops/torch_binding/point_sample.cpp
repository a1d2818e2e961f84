#include "../kernels/point_sample.h"

#include "wide.h"

namespace detc::binding {
namespace {

PointSample sample_of(const Tensor& x, const Tensor& points, bool align_corners) {
  STD_TORCH_CHECK(x.dim() == 4 && points.dim() == 3 && points.size(2) == 2, "point_sample: x must be [B, C, H, W], points [B, P, 2]");
  STD_TORCH_CHECK(points.size(0) == x.size(0), "point_sample: points of as many images as x");
  STD_TORCH_CHECK(points.scalar_type() == x.scalar_type(), "point_sample: x and points must have one dtype");
  return {x.size(0), x.size(1), x.size(2), x.size(3), points.size(1), align_corners};
}

Tensor point_sample_on_cpu(Tensor x, Tensor points, bool align_corners) {
  const auto s = sample_of(x, points, align_corners);
  const auto type = x.scalar_type();
  x = widened(x), points = widened(points);
  Tensor out = empty(x, {s.images, s.channels, s.points});
  point_sample_cpu(dtype_of(x, "x"), s, data(x), data(points), mutable_data(out));
  return narrowed(out, type);
}

std::tuple<Tensor, Tensor> point_sample_backward_on_cpu(Tensor grad, Tensor x, Tensor points, bool align_corners) {
  const auto s = sample_of(x, points, align_corners);
  check_gradient(grad, {s.images, s.channels, s.points}, x, "point_sample");
  const auto type = x.scalar_type();
  grad = widened(grad), x = widened(x), points = widened(points);
  Tensor grad_x = empty(x, sizes_of(x)), grad_points = empty(x, sizes_of(points));
  point_sample_backward_cpu(dtype_of(x, "x"), s, data(grad), data(x), data(points), mutable_data(grad_x), mutable_data(grad_points));
  return {narrowed(grad_x, type), narrowed(grad_points, type)};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CPU, m) {
  m.impl("point_sample", TORCH_BOX(&point_sample_on_cpu));
  m.impl("point_sample_backward", TORCH_BOX(&point_sample_backward_on_cpu));
}

#ifdef DETC_WITH_CUDA
namespace {

Tensor point_sample_on_cuda(Tensor x, Tensor points, bool align_corners) {
  const auto s = sample_of(x, points, align_corners);
  const CudaScope scope(x);
  x = dense(x), points = dense(points);
  Tensor out = empty(x, {s.images, s.channels, s.points});
  point_sample_cuda(dtype_of(x, "x"), s, data(x), data(points), mutable_data(out), scope.stream());
  return out;
}

std::tuple<Tensor, Tensor> point_sample_backward_on_cuda(Tensor grad, Tensor x, Tensor points, bool align_corners) {
  const auto s = sample_of(x, points, align_corners);
  check_gradient(grad, {s.images, s.channels, s.points}, x, "point_sample");
  const CudaScope scope(x);
  grad = dense(grad), x = dense(x), points = dense(points);
  Tensor grad_x = empty(x, sizes_of(x)), grad_points = empty(x, sizes_of(points));
  Tensor workspace = empty_bytes(x, point_sample_backward_workspace(s));
  point_sample_backward_cuda(
      dtype_of(x, "x"), s, data(grad), data(x), data(points), mutable_data(grad_x), mutable_data(grad_points), mutable_data(workspace),
      scope.stream());
  return {grad_x, grad_points};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CUDA, m) {
  m.impl("point_sample", TORCH_BOX(&point_sample_on_cuda));
  m.impl("point_sample_backward", TORCH_BOX(&point_sample_backward_on_cuda));
}
#endif

}  // namespace detc::binding
