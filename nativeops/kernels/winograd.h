// Dense 3x3 convolution of stride 1 by Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, arXiv:1509.09308): a quarter of the
// multiplications. CPU only: on CUDA cuDNN chooses among such algorithms itself.
#pragma once

#include <cstdint>

#include "scalar.h"

namespace detc {

// The packed layout, the same on every machine: filters [panels, 36, channels, kWinogradFilters], both counts rounded up with zeros.
inline constexpr int64_t kWinogradPoints = 36, kWinogradChannels = 16, kWinogradFilters = 32;

enum class WinogradActivation : int64_t { none = 0, relu = 1, silu = 2 };

struct WinogradConv {
  int64_t images, height, width, channels, out_channels, pad_h, pad_w;
  WinogradActivation activation;
  int64_t out_height() const { return height + 2 * pad_h - 2; }
  int64_t out_width() const { return width + 2 * pad_w - 2; }
};

// weight [O,C,3,3] to packed; transformed in double.
void winograd_pack_cpu(DType dtype, int64_t channels, int64_t out_channels, const void* weight, void* packed);
// x [B,H,W,C], bias [O] or null, other [B,oH,oW,O] or null: activation(conv(x) + bias + other) to out [B,oH,oW,O]. float32 and float64.
void winograd_conv2d_cpu(
    DType dtype, const WinogradConv& conv, const void* x, const void* packed, const void* bias, const void* other, void* out);

}  // namespace detc
