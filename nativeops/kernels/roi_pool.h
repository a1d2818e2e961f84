// RoIPool (Girshick 2015, arXiv 1504.08083): the maximum of each bin, over whole pixels; rounding as in torchvision.
#pragma once

#include <math.h>

#include <cstdint>

#include "scalar.h"

namespace detc {

struct RoiPoolArgs {
  DType dtype;          // of feature, output and gradients; rois are float64 for f64 and float32 for all others
  const void* feature;  // [B, C, H, W]
  const void* rois;     // [R, 5]: image, x1 y1 x2 y2
  int64_t batch, channels, height, width, num_rois, pooled_height, pooled_width;
  double scale;
  void* output;        // [R, C, P, Q]
  int64_t* argmax;     // [R, C, P, Q]: offset in the plane, -1 for an empty bin
  const void* grad;    // backward: [R, C, P, Q]
  void* grad_feature;  // backward: [B, C, H, W]
};

void roi_pool_cpu(const RoiPoolArgs& args);
void roi_pool_backward_cpu(const RoiPoolArgs& args);

#ifdef DETC_WITH_CUDA
void roi_pool_cuda(const RoiPoolArgs& args, void* stream);
int64_t roi_pool_backward_cuda_workspace(const RoiPoolArgs& args);
void roi_pool_backward_cuda(const RoiPoolArgs& args, void* workspace, void* stream);
#endif

// A roi's image (-1: none, the output is 0) and its pixels, ends included.
struct RoiPixels {
  int64_t image, x1, y1, x2, y2;
};

template <class A>
DETC_HD int64_t roi_pixel(A x) {
  // Far outside of any map one place is as good as another; this keeps the conversion defined.
  x = round(x);
  return static_cast<int64_t>(x < A(-1e9) ? A(-1e9) : (x > A(1e9) ? A(1e9) : x));
}

template <class A>
DETC_HD RoiPixels roi_pixels(const RoiPoolArgs& args, int64_t roi) {
  const A* box = static_cast<const A*>(args.rois) + roi * 5;
  RoiPixels r{-1, 0, 0, 0, 0};
  const bool finite = isfinite(box[1]) && isfinite(box[2]) && isfinite(box[3]) && isfinite(box[4]);
  if (!finite || !(box[0] >= A(0) && box[0] < static_cast<A>(args.batch))) return r;
  const A scale = static_cast<A>(args.scale);
  r = {static_cast<int64_t>(box[0]), roi_pixel(box[1] * scale), roi_pixel(box[2] * scale), roi_pixel(box[3] * scale),
       roi_pixel(box[4] * scale)};
  return r;
}

// The pixels [begin, end) of a bin along one axis.
template <class A>
DETC_HD void roi_bin(int64_t first, int64_t last, int64_t bin, int64_t bins, int64_t size, int64_t* begin,
                     int64_t* end) {
  const int64_t length = last - first + 1 > 1 ? last - first + 1 : 1;
  const A step = static_cast<A>(length) / static_cast<A>(bins);
  const int64_t from = static_cast<int64_t>(floor(static_cast<A>(bin) * step)) + first,
                to = static_cast<int64_t>(ceil(static_cast<A>(bin + 1) * step)) + first;
  *begin = from < 0 ? 0 : (from > size ? size : from);
  *end = to < 0 ? 0 : (to > size ? size : to);
}

// The maximum of one bin; the first of equal ones. NaN pixels are passed over.
template <class T>
DETC_HD void roi_pool_bin(const RoiPoolArgs& args, const RoiPixels& r, const T* plane, int64_t p, int64_t q,
                          acc_t<T>* value, int64_t* where) {
  using A = acc_t<T>;
  int64_t y_begin, y_end, x_begin, x_end;
  roi_bin<A>(r.y1, r.y2, p, args.pooled_height, args.height, &y_begin, &y_end);
  roi_bin<A>(r.x1, r.x2, q, args.pooled_width, args.width, &x_begin, &x_end);
  *value = A(0);
  *where = -1;
  for (int64_t y = y_begin; y < y_end; ++y)
    for (int64_t x = x_begin; x < x_end; ++x) {
      const A v = load(plane + y * args.width + x);
      if (v == v && (*where < 0 || v > *value)) {
        *value = v;
        *where = y * args.width + x;
      }
    }
}

}  // namespace detc
