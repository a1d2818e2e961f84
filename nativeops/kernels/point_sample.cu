#include "bilinear.h"
#include "fixed_point.h"
#include "launch.h"
#include "point_sample.h"

namespace detc {
namespace {

template <class T>
__device__ Bilinear<acc_t<T>> tap_at(const PointSample& s, const T* point) {
  using A = acc_t<T>;
  return bilinear_zeros<A>(s.row(A(load(point + 1))), s.col(A(load(point))), s.height, s.width);
}

template <class T>
__global__ void forward_kernel(PointSample s, const T* x, const T* points, T* out) {
  using A = acc_t<T>;
  DETC_GRID_STRIDE(i, s.images * s.channels * s.points) {
    const int64_t p = i % s.points, plane = i / s.points, image = plane / s.channels;
    const auto tap = tap_at(s, points + (image * s.points + p) * 2);
    A sum = 0;
    if (tap.inside)
      for (int t = 0; t < 4; ++t) sum += tap.weight(t) * A(load(x + plane * s.height * s.width + tap.index[t]));
    store(out + i, sum);
  }
}

// One thread a point, which walks the channels.
template <class T>
__global__ void backward_kernel(PointSample s, const T* grad_out, const T* x, const T* points, FixedPoint grad_x, T* grad_points) {
  using A = acc_t<T>;
  bool finite;
  const A scale = static_cast<A>(ldexp(1.0, fixed_point_exponent(grad_x, 1, &finite)));
  DETC_GRID_STRIDE(i, s.images * s.points) {
    const int64_t image = i / s.points, p = i % s.points;
    const auto tap = tap_at(s, points + i * 2);
    A slope_x = 0, slope_y = 0;
    if (tap.inside) {
      A along[4] = {0, 0, 0, 0};
      for (int64_t c = 0; c < s.channels; ++c) {
        const int64_t plane = (image * s.channels + c) * s.height * s.width;
        const A g = load(grad_out + (image * s.channels + c) * s.points + p);
        for (int t = 0; t < 4; ++t) {
          if (!tap.reads(t)) continue;
          along[t] += g * A(load(x + plane + tap.index[t]));
          if (finite) fixed_point_add(grad_x, plane + tap.index[t], g * tap.weight(t), scale);
        }
      }
      slope_x = tap.slope_x(along[0], along[1], along[2], along[3]) * A(s.col_scale());
      slope_y = tap.slope_y(along[0], along[1], along[2], along[3]) * A(s.row_scale());
    }
    store(grad_points + 2 * i, slope_x);
    store(grad_points + 2 * i + 1, slope_y);
  }
}

}  // namespace

void point_sample_cuda(DType dtype, const PointSample& s, const void* x, const void* points, void* out, void* stream) {
  const int64_t n = s.images * s.channels * s.points;
  if (n == 0) return;
  DETC_DISPATCH_FLOATING(dtype, T, {
    DETC_LAUNCH(
        forward_kernel<T>, blocks_for(n), kThreads, stream, s, static_cast<const T*>(x), static_cast<const T*>(points),
        static_cast<T*>(out));
  });
}

int64_t point_sample_backward_workspace(const PointSample& s) {
  return fixed_point_bytes(s.images * s.channels * s.height * s.width);
}

void point_sample_backward_cuda(
    DType dtype, const PointSample& s, const void* grad_out, const void* x, const void* points, void* grad_x, void* grad_points,
    void* workspace, void* stream) {
  const int64_t pixels = s.images * s.channels * s.height * s.width, n = s.images * s.points;
  DETC_DISPATCH_FLOATING(dtype, T, {
    const FixedPoint sums = fixed_point_begin(workspace, pixels, s.points, stream);
    fixed_point_bound(sums, 0, static_cast<const T*>(grad_out), s.images * s.channels * s.points, stream);
    if (n > 0)
      DETC_LAUNCH(
          backward_kernel<T>, blocks_for(n), kThreads, stream, s, static_cast<const T*>(grad_out), static_cast<const T*>(x),
          static_cast<const T*>(points), sums, static_cast<T*>(grad_points));
    if (pixels > 0) fixed_point_finish(sums, 1, static_cast<T*>(grad_x), stream);
  });
}

}  // namespace detc
