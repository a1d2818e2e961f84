// Bilinear samples of a feature map at given points (PointRend, Kirillov et al. 2020); outside reads zero.
#pragma once

#include <cstdint>

#include "scalar.h"

namespace detc {

struct PointSample {
  int64_t images, channels, height, width, points;
  bool align_corners;

  // From (x, y) in [0, 1] to pixels.
  template <class A>
  DETC_HD A row(A y) const {
    return align_corners ? y * A(height - 1) : y * A(height) - A(0.5);
  }
  template <class A>
  DETC_HD A col(A x) const {
    return align_corners ? x * A(width - 1) : x * A(width) - A(0.5);
  }
  // Pixels a unit of the normalised coordinate.
  DETC_HD int64_t row_scale() const { return align_corners ? height - 1 : height; }
  DETC_HD int64_t col_scale() const { return align_corners ? width - 1 : width; }
};

// x [B,C,H,W], points [B,P,2], out [B,C,P]. CPU: float32 and float64; CUDA: all four.
void point_sample_cpu(DType dtype, const PointSample& sample, const void* x, const void* points, void* out);
void point_sample_backward_cpu(
    DType dtype, const PointSample& sample, const void* grad_out, const void* x, const void* points, void* grad_x, void* grad_points);
void point_sample_cuda(DType dtype, const PointSample& sample, const void* x, const void* points, void* out, void* stream);
void point_sample_backward_cuda(
    DType dtype, const PointSample& sample, const void* grad_out, const void* x, const void* points, void* grad_x, void* grad_points,
    void* workspace, void* stream);
int64_t point_sample_backward_workspace(const PointSample& sample);

}  // namespace detc
