#include "point_sample.h"

#include "bilinear.h"
#include "layout.h"
#include "simd.h"

namespace detc {
namespace {

template <class T>
void forward(const PointSample& s, const T* x, const T* points, T* out) {
  constexpr int64_t kChannels = 16;  // that share one computation of the taps
  const int64_t chunks = (s.channels + kChannels - 1) / kChannels, pixels = s.height * s.width;
  parallel_for(s.images * chunks, grain_for(s.points * 4 * std::min(kChannels, s.channels)), [=, &s](int64_t begin, int64_t end) {
    for (int64_t job = begin; job < end; ++job) {
      const int64_t image = job / chunks, first = job % chunks * kChannels, last = std::min(first + kChannels, s.channels);
      for (int64_t p = 0; p < s.points; ++p) {
        const T* at = points + (image * s.points + p) * 2;
        const auto tap = bilinear_zeros<T>(s.row(at[1]), s.col(at[0]), s.height, s.width);
        const T w0 = tap.inside ? tap.weight(0) : T(0), w1 = tap.inside ? tap.weight(1) : T(0);
        const T w2 = tap.inside ? tap.weight(2) : T(0), w3 = tap.inside ? tap.weight(3) : T(0);
        for (int64_t c = first; c < last; ++c) {
          const T* plane = x + (image * s.channels + c) * pixels;
          T sum = 0;
          if (tap.inside) sum = w0 * plane[tap.index[0]] + w1 * plane[tap.index[1]] + w2 * plane[tap.index[2]] + w3 * plane[tap.index[3]];
          out[(image * s.channels + c) * s.points + p] = sum;
        }
      }
    }
  });
}

// One image a job: its planes and its points are written by nobody else.
template <class T>
void backward(const PointSample& s, const T* grad_out, const T* x, const T* points, T* grad_x, T* grad_points) {
  const int64_t pixels = s.height * s.width;
  parallel_for(s.images, grain_for(s.points * s.channels * 8), [=, &s](int64_t begin, int64_t end) {
    for (int64_t image = begin; image < end; ++image) {
      std::fill_n(grad_x + image * s.channels * pixels, s.channels * pixels, T(0));
      for (int64_t p = 0; p < s.points; ++p) {
        const int64_t at = (image * s.points + p) * 2;
        const auto tap = bilinear_zeros<T>(s.row(points[at + 1]), s.col(points[at]), s.height, s.width);
        T slope_x = 0, slope_y = 0;
        if (tap.inside) {
          T along[4] = {0, 0, 0, 0};
          for (int64_t c = 0; c < s.channels; ++c) {
            const int64_t plane = (image * s.channels + c) * pixels;
            const T g = grad_out[(image * s.channels + c) * s.points + p];
            for (int t = 0; t < 4; ++t) {
              if (!tap.reads(t)) continue;
              along[t] += g * x[plane + tap.index[t]];
              grad_x[plane + tap.index[t]] += g * tap.weight(t);
            }
          }
          slope_x = tap.slope_x(along[0], along[1], along[2], along[3]) * T(s.col_scale());
          slope_y = tap.slope_y(along[0], along[1], along[2], along[3]) * T(s.row_scale());
        }
        grad_points[at] = slope_x;
        grad_points[at + 1] = slope_y;
      }
    }
  });
}

}  // namespace

void point_sample_cpu(DType dtype, const PointSample& s, const void* x, const void* points, void* out) {
  DETC_DISPATCH_WIDE(dtype, T, { forward(s, static_cast<const T*>(x), static_cast<const T*>(points), static_cast<T*>(out)); });
}

void point_sample_backward_cpu(
    DType dtype, const PointSample& s, const void* grad_out, const void* x, const void* points, void* grad_x, void* grad_points) {
  DETC_DISPATCH_WIDE(dtype, T, {
    backward(
        s, static_cast<const T*>(grad_out), static_cast<const T*>(x), static_cast<const T*>(points), static_cast<T*>(grad_x),
        static_cast<T*>(grad_points));
  });
}

}  // namespace detc
