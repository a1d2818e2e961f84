#include "bilinear.h"
#include "fixed_point.h"
#include "launch.h"
#include "ms_deform_attn.h"

namespace detc {
namespace {

// One thread an output element: neighbouring threads read neighbouring channels of the same pixels.
template <class T>
__global__ void forward_kernel(MsDeformAttn s, const T* value, const T* locations, const T* weights, T* out) {
  using A = acc_t<T>;
  const int64_t samples = s.levels * s.points, pixel = s.heads * s.channels;
  DETC_GRID_STRIDE(i, s.images * s.queries * pixel) {
    const int64_t channel = i % s.channels, row = i / s.channels;  // row: image, query, head
    const int64_t head = row % s.heads, image = row / (s.heads * s.queries);
    const T* base = value + image * s.positions * pixel + head * s.channels + channel;
    const T* location = locations + row * samples * 2;
    const T* weight = weights + row * samples;
    A sum = 0;
    for (int64_t level = 0; level < s.levels; ++level) {
      const int64_t H = s.height[level], W = s.width[level];
      const T* start = base + s.start[level] * pixel;
      for (int64_t point = 0; point < s.points; ++point, location += 2, ++weight) {
        const auto tap = bilinear_zeros<A>(load(location + 1) * A(H) - A(0.5), load(location) * A(W) - A(0.5), H, W);
        if (!tap.inside) continue;
        A sample = 0;
        for (int t = 0; t < 4; ++t) sample += tap.weight(t) * A(load(start + tap.index[t] * pixel));
        sum += sample * A(load(weight));
      }
    }
    store(out + i, sum);
  }
}

// One thread a sample (image, query, head, level, point), which walks the channels: its two small gradients need no reduction.
template <class T>
__global__ void backward_kernel(
    MsDeformAttn s, const T* grad_out, const T* value, const T* locations, const T* weights, FixedPoint grad_value, T* grad_locations,
    T* grad_weights) {
  using A = acc_t<T>;
  const int64_t pixel = s.heads * s.channels;
  bool finite;
  const A scale = static_cast<A>(ldexp(1.0, fixed_point_exponent(grad_value, 2, &finite)));
  DETC_GRID_STRIDE(i, s.images * s.queries * s.heads * s.levels * s.points) {
    const int64_t level = i / s.points % s.levels, row = i / (s.points * s.levels);
    const int64_t head = row % s.heads, image = row / (s.heads * s.queries);
    const int64_t H = s.height[level], W = s.width[level];
    const auto tap = bilinear_zeros<A>(load(locations + 2 * i + 1) * A(H) - A(0.5), load(locations + 2 * i) * A(W) - A(0.5), H, W);
    A slope_x = 0, slope_y = 0, along_weight = 0;
    if (tap.inside) {
      const int64_t base = (image * s.positions + s.start[level]) * pixel + head * s.channels;
      const A weight = load(weights + i);
      A along[4] = {0, 0, 0, 0};
      for (int t = 0; t < 4; ++t) {
        if (!tap.reads(t)) continue;
        const A w = tap.weight(t);
        const int64_t at = base + tap.index[t] * pixel;
        for (int64_t d = 0; d < s.channels; ++d) {
          const A g = load(grad_out + row * s.channels + d);
          along[t] += g * A(load(value + at + d));
          if (finite) fixed_point_add(grad_value, at + d, g * w * weight, scale);
        }
        along_weight += w * along[t];
      }
      slope_x = tap.slope_x(along[0], along[1], along[2], along[3]) * weight * A(W);
      slope_y = tap.slope_y(along[0], along[1], along[2], along[3]) * weight * A(H);
    }
    store(grad_locations + 2 * i, slope_x);
    store(grad_locations + 2 * i + 1, slope_y);
    store(grad_weights + i, along_weight);
  }
}

}  // namespace

void ms_deform_attn_cuda(
    DType dtype, const MsDeformAttn& s, const void* value, const void* locations, const void* weights, void* out, void* stream) {
  const int64_t n = s.images * s.queries * s.heads * s.channels;
  if (n == 0) return;
  DETC_DISPATCH_FLOATING(dtype, T, {
    DETC_LAUNCH(
        forward_kernel<T>, blocks_for(n), kThreads, stream, s, static_cast<const T*>(value), static_cast<const T*>(locations),
        static_cast<const T*>(weights), static_cast<T*>(out));
  });
}

int64_t ms_deform_attn_backward_workspace(const MsDeformAttn& s) {
  return fixed_point_bytes(s.images * s.positions * s.heads * s.channels);
}

void ms_deform_attn_backward_cuda(
    DType dtype, const MsDeformAttn& s, const void* grad_out, const void* value, const void* locations, const void* weights,
    void* grad_value, void* grad_locations, void* grad_weights, void* workspace, void* stream) {
  const int64_t values = s.images * s.positions * s.heads * s.channels;
  const int64_t samples = s.images * s.queries * s.heads * s.levels * s.points;
  DETC_DISPATCH_FLOATING(dtype, T, {
    // A sample gives a pixel at most one contribution, so queries * points meet in one sum.
    const FixedPoint sums = fixed_point_begin(workspace, values, s.queries * s.points, stream);
    fixed_point_bound(sums, 0, static_cast<const T*>(grad_out), s.images * s.queries * s.heads * s.channels, stream);
    fixed_point_bound(sums, 1, static_cast<const T*>(weights), samples, stream);
    if (samples > 0)
      DETC_LAUNCH(
          backward_kernel<T>, blocks_for(samples), kThreads, stream, s, static_cast<const T*>(grad_out), static_cast<const T*>(value),
          static_cast<const T*>(locations), static_cast<const T*>(weights), sums, static_cast<T*>(grad_locations),
          static_cast<T*>(grad_weights));
    if (values > 0) fixed_point_finish(sums, 2, static_cast<T*>(grad_value), stream);
  });
}

}  // namespace detc
