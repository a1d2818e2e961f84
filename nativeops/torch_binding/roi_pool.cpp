#include "../kernels/roi_pool.h"

#include "common.h"

namespace detc::binding {
namespace {

RoiPoolArgs make_args(const Tensor& feature, const Tensor& rois, double scale, int64_t height, int64_t width) {
  STD_TORCH_CHECK(feature.dim() == 4 && rois.dim() == 2 && rois.size(1) == 5 && height > 0 && width > 0,
                  "roi_pool: feature must be [B, C, H, W] and rois [R, 5]");
  RoiPoolArgs args{};
  args.dtype = dtype_of(feature, "roi_pool: feature");
  STD_TORCH_CHECK(rois.scalar_type() == (args.dtype == DType::f64 ? ScalarType::Double : ScalarType::Float),
                  "roi_pool: rois must be float64 for float64 features and float32 for all others");
  args.rois = data(rois);
  args.batch = feature.size(0);
  args.channels = feature.size(1);
  args.height = feature.size(2);
  args.width = feature.size(3);
  args.num_rois = rois.size(0);
  args.pooled_height = height;
  args.pooled_width = width;
  args.scale = scale;
  return args;
}

template <class Run>
std::tuple<Tensor, Tensor> forward(const Tensor& feature_in, const Tensor& rois_in, double scale, int64_t height,
                                   int64_t width, const Run& run) {
  const Tensor feature = dense(feature_in), rois = dense(rois_in);
  RoiPoolArgs args = make_args(feature, rois, scale, height, width);
  args.feature = data(feature);
  Tensor out = empty(feature, {args.num_rois, args.channels, height, width}),
         argmax = empty(feature, {args.num_rois, args.channels, height, width}, ScalarType::Long);
  args.output = out.mutable_data_ptr();
  args.argmax = mutable_as<int64_t>(argmax);
  if (out.numel() > 0) run(args, feature);
  return {out, argmax};
}

template <class Run>
Tensor backward(const Tensor& grad_in, const Tensor& feature, const Tensor& rois_in, const Tensor& argmax_in,
                double scale, const Run& run) {
  const Tensor grad = dense(grad_in), rois = dense(rois_in), argmax = dense(argmax_in);
  STD_TORCH_CHECK(grad.dim() == 4, "roi_pool_backward: the gradient must be [R, C, P, Q]");
  RoiPoolArgs args = make_args(feature, rois, scale, grad.size(2), grad.size(3));
  check_gradient(grad, {args.num_rois, args.channels, args.pooled_height, args.pooled_width}, feature, "roi_pool");
  STD_TORCH_CHECK(grad.numel() == argmax.numel() && argmax.scalar_type() == ScalarType::Long,
                  "roi_pool_backward: argmax must be int64, of the gradient's shape");
  args.grad = data(grad);
  args.argmax = const_cast<int64_t*>(data_as<int64_t>(argmax));
  Tensor out = empty(grad, {args.batch, args.channels, args.height, args.width});
  args.grad_feature = out.mutable_data_ptr();
  if (out.numel() > 0) run(args, grad);
  return out;
}

std::tuple<Tensor, Tensor> forward_cpu(Tensor feature, Tensor rois, double scale, int64_t height, int64_t width) {
  return forward(feature, rois, scale, height, width,
                 [](const RoiPoolArgs& args, const Tensor&) { roi_pool_cpu(args); });
}
Tensor backward_cpu(Tensor grad, Tensor feature, Tensor rois, Tensor argmax, double scale) {
  return backward(grad, feature, rois, argmax, scale,
                  [](const RoiPoolArgs& args, const Tensor&) { roi_pool_backward_cpu(args); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CPU, m) {
  m.impl("roi_pool", TORCH_BOX(&forward_cpu));
  m.impl("roi_pool_backward", TORCH_BOX(&backward_cpu));
}

#ifdef DETC_WITH_CUDA
namespace {
std::tuple<Tensor, Tensor> forward_cuda(Tensor feature, Tensor rois, double scale, int64_t height, int64_t width) {
  return forward(feature, rois, scale, height, width, [](const RoiPoolArgs& args, const Tensor& like) {
    const CudaScope scope(like);
    roi_pool_cuda(args, scope.stream());
  });
}
Tensor backward_cuda(Tensor grad, Tensor feature, Tensor rois, Tensor argmax, double scale) {
  return backward(grad, feature, rois, argmax, scale, [](const RoiPoolArgs& args, const Tensor& like) {
    const CudaScope scope(like);
    Tensor workspace = empty_bytes(like, roi_pool_backward_cuda_workspace(args));
    roi_pool_backward_cuda(args, workspace.mutable_data_ptr(), scope.stream());
  });
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CUDA, m) {
  m.impl("roi_pool", TORCH_BOX(&forward_cuda));
  m.impl("roi_pool_backward", TORCH_BOX(&backward_cuda));
}
#endif

}  // namespace detc::binding
