// Content-aware upsampling (Wang et al., "CARAFE", 2019): every output pixel has its own kernel over the source neighbourhood.
#pragma once

#include <cstdint>

#include "scalar.h"

namespace detc {

struct Carafe {
  int64_t images, channels, height, width;  // of the source
  int64_t kernel, groups, scale;
  DETC_HD int64_t taps() const { return kernel * kernel; }
};

// x [B,C,H,W], kernels [B,G*k*k,s*H,s*W], out [B,C,s*H,s*W]. CPU: float32 and float64; CUDA: all four.
void carafe_cpu(DType dtype, const Carafe& carafe, const void* x, const void* kernels, void* out);
void carafe_backward_cpu(
    DType dtype, const Carafe& carafe, const void* grad_out, const void* x, const void* kernels, void* grad_x, void* grad_kernels);
void carafe_cuda(DType dtype, const Carafe& carafe, const void* x, const void* kernels, void* out, void* stream);
void carafe_backward_cuda(
    DType dtype, const Carafe& carafe, const void* grad_out, const void* x, const void* kernels, void* grad_x, void* grad_kernels,
    void* stream);

}  // namespace detc
