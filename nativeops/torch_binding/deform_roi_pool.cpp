#include "../kernels/deform_roi_pool.h"

#include "wide.h"

namespace detc::binding {
namespace {

DeformRoiPool pool_of(
    const Tensor& x, const Tensor& rois, const std::optional<Tensor>& offset, const std::vector<int64_t>& bins, double spatial_scale,
    int64_t sampling, double gamma) {
  STD_TORCH_CHECK(x.dim() == 4 && rois.dim() == 2 && rois.size(1) == 5, "deform_roi_pool: x must be [B, C, H, W], rois [N, 5]");
  STD_TORCH_CHECK(bins.size() == 2 && bins[0] > 0 && bins[1] > 0 && sampling >= 0, "deform_roi_pool: bins must be a positive pair");
  STD_TORCH_CHECK(rois.scalar_type() == x.scalar_type(), "deform_roi_pool: inputs must have one dtype");
  if (offset.has_value())
    STD_TORCH_CHECK(
        offset->dim() == 4 && offset->size(0) == rois.size(0) && offset->size(1) == 2 && offset->size(2) == bins[0] &&
            offset->size(3) == bins[1] && offset->scalar_type() == x.scalar_type(),
        "deform_roi_pool: offset must be [N, 2, p, q] of x's dtype");
  return {x.size(0), x.size(1), x.size(2), x.size(3), rois.size(0), bins[0], bins[1], sampling, spatial_scale, gamma};
}

Tensor pool_on_cpu(
    Tensor x, Tensor rois, std::optional<Tensor> offset, std::vector<int64_t> bins, double spatial_scale, int64_t sampling, double gamma) {
  const auto s = pool_of(x, rois, offset, bins, spatial_scale, sampling, gamma);
  const auto type = x.scalar_type();
  x = widened(x), rois = widened(rois), offset = widened(offset);
  Tensor out = empty(x, {s.rois, s.channels, s.bins_h, s.bins_w});
  deform_roi_pool_cpu(dtype_of(x, "x"), s, data(x), data(rois), data(offset), mutable_data(out));
  return narrowed(out, type);
}

std::tuple<Tensor, Tensor> pool_backward_on_cpu(
    Tensor grad, Tensor x, Tensor rois, std::optional<Tensor> offset, std::vector<int64_t> bins, double spatial_scale, int64_t sampling,
    double gamma) {
  const auto s = pool_of(x, rois, offset, bins, spatial_scale, sampling, gamma);
  check_gradient(grad, {s.rois, s.channels, s.bins_h, s.bins_w}, x, "deform_roi_pool");
  const auto type = x.scalar_type();
  grad = widened(grad), x = widened(x), rois = widened(rois), offset = widened(offset);
  Tensor grad_x = empty(x, sizes_of(x));
  Tensor grad_offset = empty(x, offset.has_value() ? sizes_of(*offset) : std::vector<int64_t>{0});
  deform_roi_pool_backward_cpu(
      dtype_of(x, "x"), s, data(grad), data(x), data(rois), data(offset), mutable_data(grad_x),
      offset.has_value() ? mutable_data(grad_offset) : nullptr);
  return {narrowed(grad_x, type), narrowed(grad_offset, type)};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CPU, m) {
  m.impl("deform_roi_pool", TORCH_BOX(&pool_on_cpu));
  m.impl("deform_roi_pool_backward", TORCH_BOX(&pool_backward_on_cpu));
}

#ifdef DETC_WITH_CUDA
namespace {

Tensor pool_on_cuda(
    Tensor x, Tensor rois, std::optional<Tensor> offset, std::vector<int64_t> bins, double spatial_scale, int64_t sampling, double gamma) {
  const auto s = pool_of(x, rois, offset, bins, spatial_scale, sampling, gamma);
  const CudaScope scope(x);
  x = dense(x), rois = dense(rois), offset = dense(offset);
  Tensor out = empty(x, {s.rois, s.channels, s.bins_h, s.bins_w});
  deform_roi_pool_cuda(dtype_of(x, "x"), s, data(x), data(rois), data(offset), mutable_data(out), scope.stream());
  return out;
}

std::tuple<Tensor, Tensor> pool_backward_on_cuda(
    Tensor grad, Tensor x, Tensor rois, std::optional<Tensor> offset, std::vector<int64_t> bins, double spatial_scale, int64_t sampling,
    double gamma) {
  const auto s = pool_of(x, rois, offset, bins, spatial_scale, sampling, gamma);
  check_gradient(grad, {s.rois, s.channels, s.bins_h, s.bins_w}, x, "deform_roi_pool");
  const CudaScope scope(x);
  grad = dense(grad), x = dense(x), rois = dense(rois), offset = dense(offset);
  Tensor grad_x = empty(x, sizes_of(x));
  Tensor grad_offset = empty(x, offset.has_value() ? sizes_of(*offset) : std::vector<int64_t>{0});
  Tensor workspace = empty_bytes(x, deform_roi_pool_backward_workspace(s));
  deform_roi_pool_backward_cuda(
      dtype_of(x, "x"), s, data(grad), data(x), data(rois), data(offset), mutable_data(grad_x),
      offset.has_value() ? mutable_data(grad_offset) : nullptr, mutable_data(workspace), scope.stream());
  return {grad_x, grad_offset};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CUDA, m) {
  m.impl("deform_roi_pool", TORCH_BOX(&pool_on_cuda));
  m.impl("deform_roi_pool_backward", TORCH_BOX(&pool_backward_on_cuda));
}
#endif

}  // namespace detc::binding
