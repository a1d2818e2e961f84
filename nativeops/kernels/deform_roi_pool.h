// Deformable RoI pooling (Dai et al. 2017): half-pixel aligned RoIAlign whose bins are moved by learned offsets.
#pragma once

#include <cmath>
#include <cstdint>

#include "bilinear.h"
#include "scalar.h"

namespace detc {

struct DeformRoiPool {
  int64_t images, channels, height, width, rois, bins_h, bins_w;
  int64_t sampling;  // samples a bin and axis; 0: as many as the roi's size asks for
  double spatial_scale, gamma;
  DETC_HD int64_t bins() const { return bins_h * bins_w; }
};

// A roi in pixels of the feature map.
template <class A>
struct RoiBins {
  bool valid;
  int64_t image, count_h, count_w;
  A top, left, height, width, bin_h, bin_w;

  // Reads `roi`: image index, x1, y1, x2, y2.
  DETC_HD RoiBins(const DeformRoiPool& s, const A (&roi)[5]) {
    valid = roi[0] >= A(0) && roi[0] < A(s.images);
    for (int i = 0; i < 5; ++i) valid = valid && roi[i] - roi[i] == A(0);  // finite
    if (!valid) return;
    image = static_cast<int64_t>(roi[0]);
    left = roi[1] * A(s.spatial_scale) - A(0.5);
    top = roi[2] * A(s.spatial_scale) - A(0.5);
    width = roi[3] * A(s.spatial_scale) - A(0.5) - left;
    height = roi[4] * A(s.spatial_scale) - A(0.5) - top;
    bin_h = height / A(s.bins_h);
    bin_w = width / A(s.bins_w);
    count_h = s.sampling > 0 ? s.sampling : bounded(bin_h, (s.height + s.bins_h - 1) / s.bins_h);
    count_w = s.sampling > 0 ? s.sampling : bounded(bin_w, (s.width + s.bins_w - 1) / s.bins_w);
  }

  // Samples of a bin; a roi larger than the feature map takes no more than one of its size.
  DETC_HD static int64_t bounded(A size, int64_t most) {
    if (!(size > A(0))) return 0;
    return size < A(most) ? static_cast<int64_t>(ceil(size)) : most;
  }
  DETC_HD A samples() const {
    return static_cast<A>((count_h > 1 ? count_h : 1) * (count_w > 1 ? count_w : 1));
  }
  DETC_HD A y(int64_t p, int64_t i, A shift) const {
    return top + A(p) * bin_h + shift * height + (A(i) + A(0.5)) * bin_h / A(count_h);
  }
  DETC_HD A x(int64_t q, int64_t i, A shift) const {
    return left + A(q) * bin_w + shift * width + (A(i) + A(0.5)) * bin_w / A(count_w);
  }
};

// A sample as RoIAlign takes it: zero beyond one pixel outside, clamped to the border before that (where the slope is then zero).
template <class A>
struct RoiSample {
  Bilinear<A> tap;
  bool inside, slopes_y, slopes_x;

  DETC_HD RoiSample(A y, A x, int64_t height, int64_t width) {
    inside = y >= A(-1) && y <= A(height) && x >= A(-1) && x <= A(width) && height > 0 && width > 0;
    if (!inside) return;
    const A last_y = A(height - 1), last_x = A(width - 1);
    slopes_y = y >= A(0) && y <= last_y;
    slopes_x = x >= A(0) && x <= last_x;
    tap = bilinear_zeros<A>(y < A(0) ? A(0) : (y > last_y ? last_y : y), x < A(0) ? A(0) : (x > last_x ? last_x : x), height, width);
  }
};

// x [B,C,H,W], rois [N,5], offset [N,2,p,q] ((dx, dy)) or null, out [N,C,p,q]. CPU: float32 and float64; CUDA: all four.
void deform_roi_pool_cpu(DType dtype, const DeformRoiPool& pool, const void* x, const void* rois, const void* offset, void* out);
// grad_offset is null exactly when offset is.
void deform_roi_pool_backward_cpu(
    DType dtype, const DeformRoiPool& pool, const void* grad_out, const void* x, const void* rois, const void* offset, void* grad_x,
    void* grad_offset);
void deform_roi_pool_cuda(
    DType dtype, const DeformRoiPool& pool, const void* x, const void* rois, const void* offset, void* out, void* stream);
void deform_roi_pool_backward_cuda(
    DType dtype, const DeformRoiPool& pool, const void* grad_out, const void* x, const void* rois, const void* offset, void* grad_x,
    void* grad_offset, void* workspace, void* stream);
int64_t deform_roi_pool_backward_workspace(const DeformRoiPool& pool);

}  // namespace detc
