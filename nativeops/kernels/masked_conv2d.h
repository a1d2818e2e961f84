// Convolution evaluated only at the output positions where a mask is set; zero elsewhere.
#pragma once

#include <cstdint>

#include "scalar.h"

namespace detc {

struct MaskedConv {
  int64_t images, channels, height, width, out_channels, out_height, out_width;
  int64_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;
};

// x [B,C,H,W], mask [B,oH,oW], weight [O,C,kH,kW], bias [O] or null, out [B,O,oH,oW]. CPU: float32 and float64; CUDA: all four.
void masked_conv2d_cpu(
    DType dtype, const MaskedConv& conv, const void* x, const bool* mask, const void* weight, const void* bias, void* out);
void masked_conv2d_cuda(
    DType dtype, const MaskedConv& conv, const void* x, const bool* mask, const void* weight, const void* bias, void* out, void* stream);

}  // namespace detc
