#include "../kernels/corner_pool.h"

#include "wide.h"

namespace detc::binding {
namespace {

CornerPool pool_of(const Tensor& x, const std::string& direction) {
  STD_TORCH_CHECK(x.dim() == 4, "corner_pool: x must be [B, C, H, W]");
  const bool vertical = direction == "top" || direction == "bottom", reversed = direction == "top" || direction == "left";
  STD_TORCH_CHECK(vertical || reversed || direction == "right", "corner_pool: unknown direction ", direction);
  return {x.size(0) * x.size(1), x.size(2), x.size(3), vertical, reversed};
}

Tensor corner_pool_on_cpu(Tensor x, std::string direction) {
  const auto s = pool_of(x, direction);
  const auto type = x.scalar_type();
  x = widened(x);
  Tensor out = empty(x, sizes_of(x));
  corner_pool_cpu(dtype_of(x, "x"), s, data(x), mutable_data(out));
  return narrowed(out, type);
}

Tensor corner_pool_backward_on_cpu(Tensor grad, Tensor x, std::string direction) {
  const auto s = pool_of(x, direction);
  check_gradient(grad, sizes_of(x), x, "corner_pool");
  const auto type = x.scalar_type();
  grad = widened(grad), x = widened(x);
  Tensor grad_x = empty(x, sizes_of(x));
  corner_pool_backward_cpu(dtype_of(x, "x"), s, data(grad), data(x), mutable_data(grad_x));
  return narrowed(grad_x, type);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CPU, m) {
  m.impl("corner_pool", TORCH_BOX(&corner_pool_on_cpu));
  m.impl("corner_pool_backward", TORCH_BOX(&corner_pool_backward_on_cpu));
}

#ifdef DETC_WITH_CUDA
namespace {

Tensor corner_pool_on_cuda(Tensor x, std::string direction) {
  const auto s = pool_of(x, direction);
  const CudaScope scope(x);
  x = dense(x);
  Tensor out = empty(x, sizes_of(x));
  corner_pool_cuda(dtype_of(x, "x"), s, data(x), mutable_data(out), scope.stream());
  return out;
}

Tensor corner_pool_backward_on_cuda(Tensor grad, Tensor x, std::string direction) {
  const auto s = pool_of(x, direction);
  check_gradient(grad, sizes_of(x), x, "corner_pool");
  const CudaScope scope(x);
  grad = dense(grad), x = dense(x);
  Tensor grad_x = empty(x, sizes_of(x));
  Tensor sums = empty_bytes(x, x.numel() * (x.scalar_type() == ScalarType::Double ? 8 : 4));
  corner_pool_backward_cuda(dtype_of(x, "x"), s, data(grad), data(x), mutable_data(grad_x), mutable_data(sums), scope.stream());
  return grad_x;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CUDA, m) {
  m.impl("corner_pool", TORCH_BOX(&corner_pool_on_cuda));
  m.impl("corner_pool_backward", TORCH_BOX(&corner_pool_backward_on_cuda));
}
#endif

}  // namespace detc::binding
