#include "../kernels/depthwise_weight_grad.h"

#include <algorithm>

#include "common.h"

namespace detc::binding {
namespace {

using Ints = std::vector<int64_t>;
using torch::headeronly::MemoryFormat;

int64_t length_of(int64_t size, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation) {
  const int64_t room = size + 2 * padding - dilation * (kernel - 1) - 1;
  return room < 0 ? 0 : room / stride + 1;
}

Tensor on_cpu(Tensor grad, Tensor x, Ints kernel, Ints stride, Ints padding, Ints dilation) {
  STD_TORCH_CHECK(grad.dim() == 4 && x.dim() == 4 && grad.scalar_type() == x.scalar_type(), "depthwise_weight_grad: grad and x must be [B, C, ., .] of one dtype");
  STD_TORCH_CHECK(
      kernel.size() == 2 && stride.size() == 2 && padding.size() == 2 && dilation.size() == 2 && std::min(kernel[0], kernel[1]) > 0 &&
          std::min(stride[0], stride[1]) > 0 && std::min(padding[0], padding[1]) >= 0 && std::min(dilation[0], dilation[1]) > 0,
      "depthwise_weight_grad: kernel, stride and dilation must be positive pairs, padding a pair that is not negative");
  STD_TORCH_CHECK(
      grad.size(0) == x.size(0) && grad.size(1) == x.size(1) && grad.size(2) == length_of(x.size(2), kernel[0], stride[0], padding[0], dilation[0]) &&
          grad.size(3) == length_of(x.size(3), kernel[1], stride[1], padding[1], dilation[1]),
      "depthwise_weight_grad: grad is not of the size that the convolution of x has");
  grad = torch::stable::contiguous(grad, MemoryFormat::ChannelsLast), x = torch::stable::contiguous(x, MemoryFormat::ChannelsLast);
  const bool wide = x.scalar_type() == ScalarType::Double;
  Tensor out = zeros(x, {x.size(1), 1, kernel[0], kernel[1]}, wide ? ScalarType::Double : ScalarType::Float);
  const DepthwiseConv conv{x.size(0), x.size(1), x.size(2),   x.size(3),   grad.size(2), grad.size(3), kernel[0],
                           kernel[1], stride[0], stride[1], padding[0], padding[1],   dilation[0],  dilation[1]};
  depthwise_weight_grad_cpu(dtype_of(x, "depthwise_weight_grad: x"), conv, data(grad), data(x), out.mutable_data_ptr());
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CPU, m) { m.impl("depthwise_weight_grad", TORCH_BOX(&on_cpu)); }

}  // namespace detc::binding
