#include "../kernels/winograd.h"

#include <algorithm>

#include "wide.h"

namespace detc::binding {
namespace {

using Ints = std::vector<int64_t>;

Ints packed_sizes(const Tensor& weight) {
  const int64_t panels = (weight.size(0) + kWinogradFilters - 1) / kWinogradFilters;
  const int64_t channels = (weight.size(1) + kWinogradChannels - 1) / kWinogradChannels * kWinogradChannels;
  return {panels, kWinogradPoints, channels, kWinogradFilters};
}

void check_weight(const Tensor& weight) {
  STD_TORCH_CHECK(weight.dim() == 4 && weight.size(2) == 3 && weight.size(3) == 3, "winograd: weight must be [O, C, 3, 3]");
}

Tensor winograd_pack_on_cpu(Tensor weight) {
  check_weight(weight);
  weight = widened(weight);
  Tensor out = empty(weight, packed_sizes(weight));
  if (out.numel() > 0) winograd_pack_cpu(dtype_of(weight, "winograd: weight"), weight.size(1), weight.size(0), data(weight), mutable_data(out));
  return out;
}

WinogradConv conv_of(const Tensor& x, const Tensor& weight, const Ints& padding, int64_t activation) {
  check_weight(weight);
  STD_TORCH_CHECK(
      x.dim() == 4 && x.size(3) == weight.size(1) && x.scalar_type() == weight.scalar_type(),
      "winograd_conv2d: x must be [B, H, W, C] with the channels and the dtype of weight");
  STD_TORCH_CHECK(padding.size() == 2 && std::min(padding[0], padding[1]) >= 0, "winograd_conv2d: padding must be a pair, not negative");
  STD_TORCH_CHECK(activation >= 0 && activation <= 2, "winograd_conv2d: activation must be 0 (none), 1 (ReLU) or 2 (SiLU)");
  const WinogradConv conv{
      x.size(0), x.size(1), x.size(2), x.size(3), weight.size(0), padding[0], padding[1], static_cast<WinogradActivation>(activation)};
  STD_TORCH_CHECK(conv.channels > 0 && conv.out_channels > 0, "winograd_conv2d: weight must have filters and channels");
  STD_TORCH_CHECK(conv.out_height() > 0 && conv.out_width() > 0, "winograd_conv2d: the padded x is smaller than 3 x 3");
  return conv;
}

Tensor winograd_conv2d_on_cpu(
    Tensor x, Tensor weight, Tensor packed, std::optional<Tensor> bias, std::optional<Tensor> other, Ints padding, int64_t activation) {
  const auto conv = conv_of(x, weight, padding, activation);
  const auto type = x.scalar_type();
  x = widened(x), packed = dense(packed);
  const Ints out_sizes{conv.images, conv.out_height(), conv.out_width(), conv.out_channels};
  STD_TORCH_CHECK(
      sizes_of(packed) == packed_sizes(weight) && packed.scalar_type() == x.scalar_type(),
      "winograd_conv2d: packed is not what winograd_pack makes of such a weight");
  if (bias.has_value())
    STD_TORCH_CHECK(
        bias->dim() == 1 && bias->size(0) == conv.out_channels && bias->scalar_type() == type,
        "winograd_conv2d: bias must be [O] of x's dtype");
  if (other.has_value())
    STD_TORCH_CHECK(
        sizes_of(*other) == out_sizes && other->scalar_type() == type, "winograd_conv2d: other must have the result's shape and dtype");
  bias = widened(bias), other = widened(other);
  Tensor out = empty(x, out_sizes);
  if (out.numel() > 0) winograd_conv2d_cpu(dtype_of(x, "winograd: x"), conv, data(x), data(packed), data(bias), data(other), mutable_data(out));
  return narrowed(out, type);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CPU, m) {
  m.impl("winograd_pack", TORCH_BOX(&winograd_pack_on_cpu));
  m.impl("winograd_conv2d", TORCH_BOX(&winograd_conv2d_on_cpu));
}

}  // namespace detc::binding
