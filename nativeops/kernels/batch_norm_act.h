// Batch norm by the batch's own statistics and the activation behind it (Ioffe & Szegedy, 2015): a pass over the map for the statistics and one for the
// result. The gradient takes two as well and computes the activation's input again from x, so that nothing but x is kept. On CUDA torch's own do it.
#pragma once

#include <cstdint>

#include "scalar.h"

namespace detc {

enum class Activation : int64_t { identity = 0, relu = 1, silu = 2, leaky_relu = 3, hardswish = 4 };

struct BatchNormAct {
  int64_t images, channels, pixels;  // x is [images, channels, pixels], or [images, pixels, channels] if channels_last
  bool channels_last;
  double eps;
  Activation activation;
  double slope;  // of leaky_relu
};

// x, out, grad and grad_x of the dtype; the vectors [channels] of acc_t<dtype>. `var` is the unbiased variance, which running statistics
// take in; the norm divides by the biased one.
void batch_norm_act_cpu(DType dtype, const BatchNormAct& norm, const void* x, const void* weight, const void* bias, void* out, void* mean, void* var);
void batch_norm_act_backward_cpu(
    DType dtype, const BatchNormAct& norm, const void* grad, const void* x, const void* weight, const void* bias, const void* mean,
    const void* var, void* grad_x, void* grad_weight, void* grad_bias);

}  // namespace detc
