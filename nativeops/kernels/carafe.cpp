// A source row is spread to the output's resolution (each pixel s times); a tap is then a product of two rows at a shift.
#include "carafe.h"

#include "layout.h"
#include "simd.h"

namespace detc {
namespace {

// Row `y` of a plane, each pixel `scale` times, between margins of zeros; all zeros when y is outside.
template <class T>
void spread(const Carafe& s, const T* plane, int64_t y, T* row) {
  const int64_t margin = s.kernel / 2 * s.scale;
  std::fill(row, row + s.width * s.scale + 2 * margin, T(0));
  if (y < 0 || y >= s.height) return;
  for (int64_t x = 0; x < s.width; ++x)
    for (int64_t i = 0; i < s.scale; ++i) row[margin + x * s.scale + i] = plane[y * s.width + x];
}

template <class T>
void forward(const Carafe& s, const T* x, const T* kernels, T* out) {
  const int64_t k = s.kernel, K = s.taps(), per_group = s.channels / s.groups, oH = s.height * s.scale, oW = s.width * s.scale;
  const int64_t line = oW + 2 * (k / 2) * s.scale;
  // One job: a row of source pixels of one channel, which is `scale` rows of output.
  parallel_for(s.images * s.channels * s.height, grain_for(K * s.scale * oW / 4), [=, &s](int64_t begin, int64_t end) {
    const auto rows = scratch<T>(k * line);
    for (int64_t job = begin; job < end; ++job) {
      const int64_t y = job % s.height, plane = job / s.height, image = plane / s.channels, group = plane % s.channels / per_group;
      for (int64_t r = 0; r < k; ++r) spread(s, x + plane * s.height * s.width, y + r - k / 2, rows.get() + r * line);
      for (int64_t oy = y * s.scale; oy < (y + 1) * s.scale; ++oy) {
        T* to = out + (plane * oH + oy) * oW;
        std::fill(to, to + oW, T(0));
        for (int64_t tap = 0; tap < K; ++tap) {
          const T* from = rows.get() + tap / k * line + tap % k * s.scale;
          const T* weight = kernels + (((image * s.groups + group) * K + tap) * oH + oy) * oW;
          for (int64_t i = 0; i < oW; ++i) to[i] += weight[i] * from[i];
        }
      }
    }
  });
}

// A row of output of one group is written by one job, which walks the group's channels.
template <class T>
void backward_kernels(const Carafe& s, const T* grad_out, const T* x, T* grad_kernels) {
  const int64_t k = s.kernel, K = s.taps(), per_group = s.channels / s.groups, oH = s.height * s.scale, oW = s.width * s.scale;
  const int64_t line = oW + 2 * (k / 2) * s.scale;
  parallel_for(s.images * s.groups * s.height, grain_for(per_group * K * s.scale * oW / 4), [=, &s](int64_t begin, int64_t end) {
    const auto rows = scratch<T>(k * line);
    for (int64_t job = begin; job < end; ++job) {
      const int64_t y = job % s.height, group = job / s.height;  // group: image and group
      const auto grads = [&](int64_t tap, int64_t oy) { return grad_kernels + ((group * K + tap) * oH + oy) * oW; };
      for (int64_t oy = y * s.scale; oy < (y + 1) * s.scale; ++oy)
        for (int64_t tap = 0; tap < K; ++tap) std::fill(grads(tap, oy), grads(tap, oy) + oW, T(0));
      for (int64_t c = 0; c < per_group; ++c) {
        const int64_t plane = group * per_group + c;
        for (int64_t r = 0; r < k; ++r) spread(s, x + plane * s.height * s.width, y + r - k / 2, rows.get() + r * line);
        for (int64_t oy = y * s.scale; oy < (y + 1) * s.scale; ++oy) {
          const T* g = grad_out + (plane * oH + oy) * oW;
          for (int64_t tap = 0; tap < K; ++tap) {
            const T* from = rows.get() + tap / k * line + tap % k * s.scale;
            T* to = grads(tap, oy);
            for (int64_t i = 0; i < oW; ++i) to[i] += g[i] * from[i];
          }
        }
      }
    }
  });
}

// A plane of the source is written by one job.
template <class T>
void backward_source(const Carafe& s, const T* grad_out, const T* kernels, T* grad_x) {
  const int64_t k = s.kernel, K = s.taps(), per_group = s.channels / s.groups, oH = s.height * s.scale, oW = s.width * s.scale;
  const int64_t margin = k / 2 * s.scale, line = oW + 2 * margin;
  parallel_for(s.images * s.channels, grain_for(K * oH * oW / 4), [=, &s](int64_t begin, int64_t end) {
    const auto rows = scratch<T>(k * line);
    for (int64_t plane = begin; plane < end; ++plane) {
      const int64_t group = plane / s.channels * s.groups + plane % s.channels / per_group;
      T* to = grad_x + plane * s.height * s.width;
      std::fill(to, to + s.height * s.width, T(0));
      for (int64_t y = 0; y < s.height; ++y) {
        std::fill(rows.get(), rows.get() + k * line, T(0));
        for (int64_t oy = y * s.scale; oy < (y + 1) * s.scale; ++oy) {
          const T* g = grad_out + (plane * oH + oy) * oW;
          for (int64_t tap = 0; tap < K; ++tap) {
            T* row = rows.get() + tap / k * line + tap % k * s.scale;
            const T* weight = kernels + ((group * K + tap) * oH + oy) * oW;
            for (int64_t i = 0; i < oW; ++i) row[i] += g[i] * weight[i];
          }
        }
        for (int64_t r = 0; r < k; ++r) {
          const int64_t from_y = y + r - k / 2;
          if (from_y < 0 || from_y >= s.height) continue;
          for (int64_t i = 0; i < oW; ++i) to[from_y * s.width + i / s.scale] += rows[r * line + margin + i];
        }
      }
    }
  });
}

}  // namespace

void carafe_cpu(DType dtype, const Carafe& s, const void* x, const void* kernels, void* out) {
  DETC_DISPATCH_WIDE(dtype, T, { forward(s, static_cast<const T*>(x), static_cast<const T*>(kernels), static_cast<T*>(out)); });
}

void carafe_backward_cpu(
    DType dtype, const Carafe& s, const void* grad_out, const void* x, const void* kernels, void* grad_x, void* grad_kernels) {
  DETC_DISPATCH_WIDE(dtype, T, {
    backward_kernels(s, static_cast<const T*>(grad_out), static_cast<const T*>(x), static_cast<T*>(grad_kernels));
    backward_source(s, static_cast<const T*>(grad_out), static_cast<const T*>(kernels), static_cast<T*>(grad_x));
  });
}

}  // namespace detc
