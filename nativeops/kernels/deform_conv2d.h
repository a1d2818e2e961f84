// Deformable convolution v1 and v2 (Dai et al. 2017, Zhu et al. 2019), NCHW.
#pragma once

#include <cstdint>

#include "scalar.h"

namespace detc {

struct DeformConv {
  int64_t images, channels, height, width;  // of the input
  int64_t out_channels, out_height, out_width;
  int64_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
  int64_t groups, offset_groups;

  DETC_HD int64_t taps() const { return kernel_h * kernel_w; }
  DETC_HD int64_t outputs() const { return out_height * out_width; }
};

// x [B,C,H,W], offset [B,2*G*K,oH,oW] ((dy, dx) of each tap), mask [B,G*K,oH,oW] or null, weight [O,C/groups,kH,kW], bias [O] or null,
// out [B,O,oH,oW]. float32 and float64.
void deform_conv2d_cpu(
    DType dtype, const DeformConv& conv, const void* x, const void* offset, const void* mask, const void* weight, const void* bias,
    void* out);
// Every gradient is overwritten; grad_mask is null exactly when mask is.
void deform_conv2d_backward_cpu(
    DType dtype, const DeformConv& conv, const void* grad_out, const void* x, const void* offset, const void* mask, const void* weight,
    void* grad_x, void* grad_offset, void* grad_mask, void* grad_weight);

// CUDA, all four dtypes. The torch binding leaves the matrix products to torch: these make and take the columns [B, C*K, oH*oW].
void deform_columns_cuda(
    DType dtype, const DeformConv& conv, const void* x, const void* offset, const void* mask, void* columns, void* stream);
// The whole forward for hosts without a matrix product of their own; `bias` may be null. `workspace`: the columns of one image.
void deform_conv2d_cuda(
    DType dtype, const DeformConv& conv, const void* x, const void* offset, const void* mask, const void* weight, const void* bias,
    void* out, void* workspace, void* stream);
int64_t deform_conv2d_workspace(DType dtype, const DeformConv& conv);
// out[b,o,:,:] += bias[o]
void deform_bias_cuda(DType dtype, const DeformConv& conv, const void* bias, void* out, void* stream);
// grad_columns -> grad_x, grad_offset, grad_mask.
void deform_columns_backward_cuda(
    DType dtype, const DeformConv& conv, const void* grad_columns, const void* x, const void* offset, const void* mask, void* grad_x,
    void* grad_offset, void* grad_mask, void* workspace, void* stream);
int64_t deform_columns_backward_workspace(const DeformConv& conv);

}  // namespace detc
