#include "../kernels/deform_conv2d.h"

#include <algorithm>

#include "wide.h"

namespace detc::binding {
namespace {

using Ints = std::vector<int64_t>;

DeformConv conv_of(
    const Tensor& x, const Tensor& offset, const Tensor& weight, const std::optional<Tensor>& mask, const Ints& stride, const Ints& padding,
    const Ints& dilation) {
  STD_TORCH_CHECK(x.dim() == 4 && offset.dim() == 4 && weight.dim() == 4, "deform_conv2d: x, offset and weight must have 4 dimensions");
  STD_TORCH_CHECK(stride.size() == 2 && padding.size() == 2 && dilation.size() == 2, "deform_conv2d: stride, padding, dilation are pairs");
  STD_TORCH_CHECK(
      std::min({stride[0], stride[1], dilation[0], dilation[1]}) > 0 && padding[0] >= 0 && padding[1] >= 0,
      "deform_conv2d: stride and dilation must be positive, padding not negative");
  DeformConv s{};
  s.images = x.size(0), s.channels = x.size(1), s.height = x.size(2), s.width = x.size(3);
  s.out_channels = weight.size(0), s.kernel_h = weight.size(2), s.kernel_w = weight.size(3);
  s.out_height = offset.size(2), s.out_width = offset.size(3);
  s.stride_h = stride[0], s.stride_w = stride[1], s.pad_h = padding[0], s.pad_w = padding[1];
  s.dilation_h = dilation[0], s.dilation_w = dilation[1];
  STD_TORCH_CHECK(s.taps() > 0 && weight.size(1) > 0 && s.channels > 0, "deform_conv2d: empty kernel or no channels");
  s.groups = s.channels / weight.size(1);
  s.offset_groups = offset.size(1) / (2 * s.taps());
  STD_TORCH_CHECK(
      s.groups > 0 && s.groups * weight.size(1) == s.channels && s.out_channels % s.groups == 0,
      "deform_conv2d: weight does not fit the channels of x");
  STD_TORCH_CHECK(
      s.offset_groups > 0 && s.offset_groups * 2 * s.taps() == offset.size(1) && s.channels % s.offset_groups == 0,
      "deform_conv2d: offset must have 2 * offset_groups * kernel_h * kernel_w channels");
  const auto reach = [](int64_t size, int64_t kernel, int64_t step, int64_t pad, int64_t dilation_) {
    return (size + 2 * pad - dilation_ * (kernel - 1) - 1) / step + 1;
  };
  STD_TORCH_CHECK(
      offset.size(0) == s.images && s.out_height == reach(s.height, s.kernel_h, s.stride_h, s.pad_h, s.dilation_h) &&
          s.out_width == reach(s.width, s.kernel_w, s.stride_w, s.pad_w, s.dilation_w),
      "deform_conv2d: offset does not have the size of the output");
  if (mask.has_value())
    STD_TORCH_CHECK(
        mask->dim() == 4 && mask->size(0) == s.images && mask->size(1) == s.offset_groups * s.taps() && mask->size(2) == s.out_height &&
            mask->size(3) == s.out_width && mask->scalar_type() == x.scalar_type(),
        "deform_conv2d: mask must be [B, offset_groups * kernel_h * kernel_w, oH, oW] of x's dtype");
  STD_TORCH_CHECK(
      x.scalar_type() == offset.scalar_type() && x.scalar_type() == weight.scalar_type(), "deform_conv2d: inputs must have one dtype");
  return s;
}

void check_bias(const std::optional<Tensor>& bias, const Tensor& weight) {
  if (bias.has_value())
    STD_TORCH_CHECK(
        bias->dim() == 1 && bias->size(0) == weight.size(0) && bias->scalar_type() == weight.scalar_type(),
        "deform_conv2d: bias must be [O] of x's dtype");
}

Tensor forward_on_cpu(
    Tensor x, Tensor offset, Tensor weight, std::optional<Tensor> bias, std::optional<Tensor> mask, Ints stride, Ints padding,
    Ints dilation) {
  const auto s = conv_of(x, offset, weight, mask, stride, padding, dilation);
  check_bias(bias, weight);
  const auto type = x.scalar_type();
  x = widened(x), offset = widened(offset), weight = widened(weight), bias = widened(bias), mask = widened(mask);
  Tensor out = empty(x, {s.images, s.out_channels, s.out_height, s.out_width});
  deform_conv2d_cpu(dtype_of(x, "x"), s, data(x), data(offset), data(mask), data(weight), data(bias), mutable_data(out));
  return narrowed(out, type);
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

Gradients backward_on_cpu(
    Tensor grad, Tensor x, Tensor offset, Tensor weight, std::optional<Tensor> mask, Ints stride, Ints padding, Ints dilation) {
  const auto s = conv_of(x, offset, weight, mask, stride, padding, dilation);
  check_gradient(grad, {s.images, s.out_channels, s.out_height, s.out_width}, x, "deform_conv2d");
  const auto type = x.scalar_type();
  grad = widened(grad), x = widened(x), offset = widened(offset), weight = widened(weight), mask = widened(mask);
  Tensor grad_x = empty(x, sizes_of(x)), grad_offset = empty(x, sizes_of(offset)), grad_weight = empty(x, sizes_of(weight));
  Tensor grad_mask = empty(x, mask.has_value() ? sizes_of(*mask) : Ints{0});
  deform_conv2d_backward_cpu(
      dtype_of(x, "x"), s, data(grad), data(x), data(offset), data(mask), data(weight), mutable_data(grad_x), mutable_data(grad_offset),
      mask.has_value() ? mutable_data(grad_mask) : nullptr, mutable_data(grad_weight));
  return {narrowed(grad_x, type), narrowed(grad_offset, type), narrowed(grad_weight, type), narrowed(grad_mask, type)};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CPU, m) {
  m.impl("deform_conv2d", TORCH_BOX(&forward_on_cpu));
  m.impl("deform_conv2d_backward", TORCH_BOX(&backward_on_cpu));
}

#ifdef DETC_WITH_CUDA
namespace {

// Columns of as many images at a time as fit this many elements; at least one image.
constexpr int64_t kColumnBudget = int64_t{1} << 27;

int64_t images_at_once(const DeformConv& s) {
  const int64_t each = s.channels * s.taps() * s.outputs();
  return std::clamp<int64_t>(kColumnBudget / (each > 0 ? each : 1), 1, s.images > 0 ? s.images : 1);
}

Tensor part(const Tensor& tensor, int64_t first, int64_t count) {
  Tensor held = tensor;
  return torch::stable::narrow(held, 0, first, count);
}

Tensor forward_on_cuda(
    Tensor x, Tensor offset, Tensor weight, std::optional<Tensor> bias, std::optional<Tensor> mask, Ints stride, Ints padding,
    Ints dilation) {
  DeformConv s = conv_of(x, offset, weight, mask, stride, padding, dilation);
  check_bias(bias, weight);
  const CudaScope scope(x);
  x = dense(x), offset = dense(offset), weight = dense(weight), bias = dense(bias), mask = dense(mask);
  const auto type = dtype_of(x, "x");
  Tensor out = empty(x, {s.images, s.out_channels, s.out_height, s.out_width});
  if (s.images * s.out_channels * s.outputs() == 0) return out;
  const int64_t all = s.images, step = images_at_once(s), depth = s.channels / s.groups * s.taps(), Og = s.out_channels / s.groups;
  const Tensor matrix = torch::stable::view(weight, {1, s.groups, Og, depth});
  for (int64_t first = 0; first < all; first += step) {
    s.images = std::min(step, all - first);
    Tensor columns = empty(x, {s.images, s.groups, depth, s.outputs()});
    deform_columns_cuda(
        type, s, data(part(x, first, s.images)), data(part(offset, first, s.images)),
        mask.has_value() ? data(part(*mask, first, s.images)) : nullptr, mutable_data(columns), scope.stream());
    Tensor target = torch::stable::view(part(out, first, s.images), {s.images, s.groups, Og, s.outputs()});
    torch::stable::copy_(target, torch::stable::matmul(matrix, columns));
  }
  s.images = all;
  if (bias.has_value()) deform_bias_cuda(type, s, data(bias), mutable_data(out), scope.stream());
  return out;
}

Gradients backward_on_cuda(
    Tensor grad, Tensor x, Tensor offset, Tensor weight, std::optional<Tensor> mask, Ints stride, Ints padding, Ints dilation) {
  DeformConv s = conv_of(x, offset, weight, mask, stride, padding, dilation);
  check_gradient(grad, {s.images, s.out_channels, s.out_height, s.out_width}, x, "deform_conv2d");
  const CudaScope scope(x);
  grad = dense(grad), x = dense(x), offset = dense(offset), weight = dense(weight), mask = dense(mask);
  const auto type = dtype_of(x, "x");
  Tensor grad_x = empty(x, sizes_of(x)), grad_offset = empty(x, sizes_of(offset));
  Tensor grad_mask = empty(x, mask.has_value() ? sizes_of(*mask) : Ints{0});
  if (s.images * s.out_channels * s.outputs() == 0)
    return {zeros(x, sizes_of(x)), grad_offset, zeros(x, sizes_of(weight)), grad_mask};
  const int64_t all = s.images, step = images_at_once(s), depth = s.channels / s.groups * s.taps(), Og = s.out_channels / s.groups;
  const Tensor transposed = torch::stable::transpose(torch::stable::view(weight, {1, s.groups, Og, depth}), 2, 3);
  Tensor shares = empty(x, {(all + step - 1) / step, s.groups, Og, depth});
  for (int64_t first = 0; first < all; first += step) {
    s.images = std::min(step, all - first);
    const Tensor x_part = part(x, first, s.images), offset_part = part(offset, first, s.images);
    const std::optional<Tensor> mask_part = mask.has_value() ? std::optional<Tensor>(part(*mask, first, s.images)) : std::nullopt;
    const Tensor grad_part = torch::stable::view(part(grad, first, s.images), {s.images, s.groups, Og, s.outputs()});
    Tensor columns = empty(x, {s.images, s.groups, depth, s.outputs()});
    deform_columns_cuda(type, s, data(x_part), data(offset_part), data(mask_part), mutable_data(columns), scope.stream());
    Tensor share = part(shares, first / step, 1);
    const Tensor products = torch::stable::matmul(grad_part, torch::stable::transpose(columns, 2, 3));
    torch::stable::copy_(share, torch::stable::sum(products, std::vector<int64_t>{0}, true));
    const Tensor grad_columns = dense(narrowed(torch::stable::matmul(transposed, grad_part), x.scalar_type()));
    const Tensor workspace = empty_bytes(x, deform_columns_backward_workspace(s));
    deform_columns_backward_cuda(
        type, s, data(grad_columns), data(x_part), data(offset_part), data(mask_part), mutable_data(part(grad_x, first, s.images)),
        mutable_data(part(grad_offset, first, s.images)),
        mask.has_value() ? mutable_data(part(grad_mask, first, s.images)) : nullptr, mutable_data(workspace), scope.stream());
  }
  const Tensor grad_weight = torch::stable::sum(shares, std::vector<int64_t>{0});
  return {grad_x, grad_offset, torch::stable::view(dense(grad_weight), sizes_of(weight)), grad_mask};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CUDA, m) {
  m.impl("deform_conv2d", TORCH_BOX(&forward_on_cuda));
  m.impl("deform_conv2d_backward", TORCH_BOX(&backward_on_cuda));
}
#endif

}  // namespace detc::binding
