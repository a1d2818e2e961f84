// The gradient of a depthwise convolution (Howard et al., MobileNets, 2017) in its weights: for each channel and tap the sum, over images and output
// positions, of the output's gradient times the input under the tap.
#pragma once

#include <cstdint>

#include "scalar.h"

namespace detc {

struct DepthwiseConv {
  int64_t images, channels, height, width, out_height, out_width;
  int64_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
};

// grad [B, oH, oW, C] and x [B, H, W, C] of the dtype; out [C, kH, kW] of acc_t<dtype>.
void depthwise_weight_grad_cpu(DType dtype, const DepthwiseConv& conv, const void* grad, const void* x, void* out);

}  // namespace detc
