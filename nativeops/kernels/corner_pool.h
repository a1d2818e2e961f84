// Corner pooling (Law and Deng, "CornerNet", 2018): running maxima along a row or a column.
#pragma once

#include <cstdint>

#include "scalar.h"

namespace detc {

struct CornerPool {
  int64_t planes, height, width;
  bool vertical, reversed;  // reversed: from the last row or column to the first
};

// NaN propagates. The gradient goes to the maximum, on ties to the one nearest to the output. CPU: float32, float64; CUDA: all four.
void corner_pool_cpu(DType dtype, const CornerPool& pool, const void* x, void* out);
void corner_pool_backward_cpu(DType dtype, const CornerPool& pool, const void* grad_out, const void* x, void* grad_x);
void corner_pool_cuda(DType dtype, const CornerPool& pool, const void* x, void* out, void* stream);
// sums: as many acc_t<T> as x has elements.
void corner_pool_backward_cuda(
    DType dtype, const CornerPool& pool, const void* grad_out, const void* x, void* grad_x, void* sums, void* stream);

}  // namespace detc
