#include "../kernels/masked_conv2d.h"

#include <algorithm>

#include "wide.h"

namespace detc::binding {
namespace {

using Ints = std::vector<int64_t>;

MaskedConv conv_of(
    const Tensor& x, const Tensor& mask, const Tensor& weight, const std::optional<Tensor>& bias, const Ints& stride, const Ints& padding) {
  STD_TORCH_CHECK(x.dim() == 4 && mask.dim() == 3 && weight.dim() == 4, "masked_conv2d: wrong number of dimensions");
  STD_TORCH_CHECK(
      stride.size() == 2 && padding.size() == 2 && std::min(stride[0], stride[1]) > 0 && std::min(padding[0], padding[1]) >= 0,
      "masked_conv2d: stride must be a positive pair, padding a pair that is not negative");
  STD_TORCH_CHECK(
      weight.size(1) == x.size(1) && weight.size(2) > 0 && weight.size(3) > 0 && weight.scalar_type() == x.scalar_type(),
      "masked_conv2d: weight must be [O, C, kH, kW] of x's dtype");
  STD_TORCH_CHECK(
      mask.scalar_type() == ScalarType::Bool && mask.size(0) == x.size(0) &&
          mask.size(1) == (x.size(2) + 2 * padding[0] - weight.size(2)) / stride[0] + 1 &&
          mask.size(2) == (x.size(3) + 2 * padding[1] - weight.size(3)) / stride[1] + 1,
      "masked_conv2d: mask must be bool, one value an output position");
  if (bias.has_value())
    STD_TORCH_CHECK(
        bias->dim() == 1 && bias->size(0) == weight.size(0) && bias->scalar_type() == x.scalar_type(),
        "masked_conv2d: bias must be [O] of x's dtype");
  return {x.size(0),      x.size(1),      x.size(2), x.size(3), weight.size(0), mask.size(1), mask.size(2),
          weight.size(2), weight.size(3), stride[0], stride[1], padding[0],     padding[1]};
}

Tensor masked_conv2d_on_cpu(Tensor x, Tensor mask, Tensor weight, std::optional<Tensor> bias, Ints stride, Ints padding) {
  const auto s = conv_of(x, mask, weight, bias, stride, padding);
  const auto type = x.scalar_type();
  x = widened(x), mask = dense(mask), weight = widened(weight), bias = widened(bias);
  Tensor out = empty(x, {s.images, s.out_channels, s.out_height, s.out_width});
  masked_conv2d_cpu(
      dtype_of(x, "x"), s, data(x), static_cast<const bool*>(data(mask)), data(weight), data(bias), mutable_data(out));
  return narrowed(out, type);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CPU, m) { m.impl("masked_conv2d", TORCH_BOX(&masked_conv2d_on_cpu)); }

#ifdef DETC_WITH_CUDA
namespace {
Tensor masked_conv2d_on_cuda(Tensor x, Tensor mask, Tensor weight, std::optional<Tensor> bias, Ints stride, Ints padding) {
  const auto s = conv_of(x, mask, weight, bias, stride, padding);
  const CudaScope scope(x);
  x = dense(x), mask = dense(mask), weight = dense(weight), bias = dense(bias);
  Tensor out = empty(x, {s.images, s.out_channels, s.out_height, s.out_width});
  masked_conv2d_cuda(
      dtype_of(x, "x"), s, data(x), static_cast<const bool*>(data(mask)), data(weight), data(bias), mutable_data(out), scope.stream());
  return out;
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CUDA, m) { m.impl("masked_conv2d", TORCH_BOX(&masked_conv2d_on_cuda)); }
#endif

}  // namespace detc::binding
