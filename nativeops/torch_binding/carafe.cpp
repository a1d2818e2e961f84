#include "../kernels/carafe.h"

#include "wide.h"

namespace detc::binding {
namespace {

Carafe carafe_of(const Tensor& x, const Tensor& kernels, int64_t kernel, int64_t groups, int64_t scale) {
  STD_TORCH_CHECK(x.dim() == 4 && kernels.dim() == 4, "carafe: x and kernels must have 4 dimensions");
  STD_TORCH_CHECK(kernel > 0 && kernel % 2 == 1 && scale > 0, "carafe: kernel_size must be odd, scale positive");
  STD_TORCH_CHECK(groups > 0 && x.size(1) % groups == 0, "carafe: channels must divide into the groups");
  STD_TORCH_CHECK(
      kernels.size(0) == x.size(0) && kernels.size(1) == groups * kernel * kernel && kernels.size(2) == x.size(2) * scale &&
          kernels.size(3) == x.size(3) * scale,
      "carafe: kernels must be [B, groups * k * k, scale * H, scale * W]");
  STD_TORCH_CHECK(kernels.scalar_type() == x.scalar_type(), "carafe: x and kernels must have one dtype");
  return {x.size(0), x.size(1), x.size(2), x.size(3), kernel, groups, scale};
}

Tensor carafe_on_cpu(Tensor x, Tensor kernels, int64_t kernel, int64_t groups, int64_t scale) {
  const auto s = carafe_of(x, kernels, kernel, groups, scale);
  const auto type = x.scalar_type();
  x = widened(x), kernels = widened(kernels);
  Tensor out = empty(x, {s.images, s.channels, s.height * scale, s.width * scale});
  carafe_cpu(dtype_of(x, "x"), s, data(x), data(kernels), mutable_data(out));
  return narrowed(out, type);
}

std::tuple<Tensor, Tensor> carafe_backward_on_cpu(Tensor grad, Tensor x, Tensor kernels, int64_t kernel, int64_t groups, int64_t scale) {
  const auto s = carafe_of(x, kernels, kernel, groups, scale);
  check_gradient(grad, {s.images, s.channels, s.height * scale, s.width * scale}, x, "carafe");
  const auto type = x.scalar_type();
  grad = widened(grad), x = widened(x), kernels = widened(kernels);
  Tensor grad_x = empty(x, sizes_of(x)), grad_kernels = empty(x, sizes_of(kernels));
  carafe_backward_cpu(dtype_of(x, "x"), s, data(grad), data(x), data(kernels), mutable_data(grad_x), mutable_data(grad_kernels));
  return {narrowed(grad_x, type), narrowed(grad_kernels, type)};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CPU, m) {
  m.impl("carafe", TORCH_BOX(&carafe_on_cpu));
  m.impl("carafe_backward", TORCH_BOX(&carafe_backward_on_cpu));
}

#ifdef DETC_WITH_CUDA
namespace {

Tensor carafe_on_cuda(Tensor x, Tensor kernels, int64_t kernel, int64_t groups, int64_t scale) {
  const auto s = carafe_of(x, kernels, kernel, groups, scale);
  const CudaScope scope(x);
  x = dense(x), kernels = dense(kernels);
  Tensor out = empty(x, {s.images, s.channels, s.height * scale, s.width * scale});
  carafe_cuda(dtype_of(x, "x"), s, data(x), data(kernels), mutable_data(out), scope.stream());
  return out;
}

std::tuple<Tensor, Tensor> carafe_backward_on_cuda(Tensor grad, Tensor x, Tensor kernels, int64_t kernel, int64_t groups, int64_t scale) {
  const auto s = carafe_of(x, kernels, kernel, groups, scale);
  check_gradient(grad, {s.images, s.channels, s.height * scale, s.width * scale}, x, "carafe");
  const CudaScope scope(x);
  grad = dense(grad), x = dense(x), kernels = dense(kernels);
  Tensor grad_x = empty(x, sizes_of(x)), grad_kernels = empty(x, sizes_of(kernels));
  carafe_backward_cuda(
      dtype_of(x, "x"), s, data(grad), data(x), data(kernels), mutable_data(grad_x), mutable_data(grad_kernels), scope.stream());
  return {grad_x, grad_kernels};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CUDA, m) {
  m.impl("carafe", TORCH_BOX(&carafe_on_cuda));
  m.impl("carafe_backward", TORCH_BOX(&carafe_backward_on_cuda));
}
#endif

}  // namespace detc::binding
