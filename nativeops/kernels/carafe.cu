#include "carafe.h"
#include "launch.h"

namespace detc {
namespace {

template <class T>
__global__ void forward_kernel(Carafe s, const T* x, const T* kernels, T* out) {
  using A = acc_t<T>;
  const int64_t oH = s.height * s.scale, oW = s.width * s.scale, per_group = s.channels / s.groups, r = s.kernel / 2;
  DETC_GRID_STRIDE(i, s.images * s.channels * oH * oW) {
    const int64_t ox = i % oW, oy = i / oW % oH, plane = i / (oW * oH), image = plane / s.channels;
    const int64_t group = image * s.groups + plane % s.channels / per_group;
    A sum = 0;
    for (int64_t tap = 0; tap < s.taps(); ++tap) {
      const int64_t y = oy / s.scale + tap / s.kernel - r, xx = ox / s.scale + tap % s.kernel - r;
      if (y < 0 || y >= s.height || xx < 0 || xx >= s.width) continue;
      sum += A(load(kernels + ((group * s.taps() + tap) * oH + oy) * oW + ox)) * A(load(x + (plane * s.height + y) * s.width + xx));
    }
    store(out + i, sum);
  }
}

template <class T>
__global__ void kernels_kernel(Carafe s, const T* grad_out, const T* x, T* grad_kernels) {
  using A = acc_t<T>;
  const int64_t oH = s.height * s.scale, oW = s.width * s.scale, per_group = s.channels / s.groups, r = s.kernel / 2;
  DETC_GRID_STRIDE(i, s.images * s.groups * s.taps() * oH * oW) {
    const int64_t ox = i % oW, oy = i / oW % oH, tap = i / (oW * oH) % s.taps(), group = i / (oW * oH * s.taps());
    const int64_t y = oy / s.scale + tap / s.kernel - r, xx = ox / s.scale + tap % s.kernel - r;
    A sum = 0;
    if (y >= 0 && y < s.height && xx >= 0 && xx < s.width)
      for (int64_t plane = group * per_group; plane < (group + 1) * per_group; ++plane)
        sum += A(load(grad_out + (plane * oH + oy) * oW + ox)) * A(load(x + (plane * s.height + y) * s.width + xx));
    store(grad_kernels + i, sum);
  }
}

// One thread a source pixel, which gathers from the outputs that read it: no atomics.
template <class T>
__global__ void source_kernel(Carafe s, const T* grad_out, const T* kernels, T* grad_x) {
  using A = acc_t<T>;
  const int64_t oH = s.height * s.scale, oW = s.width * s.scale, per_group = s.channels / s.groups, r = s.kernel / 2;
  DETC_GRID_STRIDE(i, s.images * s.channels * s.height * s.width) {
    const int64_t x = i % s.width, y = i / s.width % s.height, plane = i / (s.width * s.height), image = plane / s.channels;
    const int64_t group = image * s.groups + plane % s.channels / per_group;
    A sum = 0;
    for (int64_t tap = 0; tap < s.taps(); ++tap) {
      const int64_t from_y = y - tap / s.kernel + r, from_x = x - tap % s.kernel + r;
      if (from_y < 0 || from_y >= s.height || from_x < 0 || from_x >= s.width) continue;
      for (int64_t oy = from_y * s.scale; oy < (from_y + 1) * s.scale; ++oy)
        for (int64_t ox = from_x * s.scale; ox < (from_x + 1) * s.scale; ++ox)
          sum += A(load(grad_out + (plane * oH + oy) * oW + ox)) * A(load(kernels + ((group * s.taps() + tap) * oH + oy) * oW + ox));
    }
    store(grad_x + i, sum);
  }
}

}  // namespace

void carafe_cuda(DType dtype, const Carafe& s, const void* x, const void* kernels, void* out, void* stream) {
  const int64_t n = s.images * s.channels * s.height * s.width * s.scale * s.scale;
  if (n == 0) return;
  DETC_DISPATCH_FLOATING(dtype, T, {
    DETC_LAUNCH(
        forward_kernel<T>, blocks_for(n), kThreads, stream, s, static_cast<const T*>(x), static_cast<const T*>(kernels),
        static_cast<T*>(out));
  });
}

void carafe_backward_cuda(
    DType dtype, const Carafe& s, const void* grad_out, const void* x, const void* kernels, void* grad_x, void* grad_kernels,
    void* stream) {
  const int64_t sources = s.images * s.channels * s.height * s.width;
  const int64_t taps = s.images * s.groups * s.taps() * s.height * s.width * s.scale * s.scale;
  DETC_DISPATCH_FLOATING(dtype, T, {
    if (taps > 0)
      DETC_LAUNCH(
          kernels_kernel<T>, blocks_for(taps), kThreads, stream, s, static_cast<const T*>(grad_out), static_cast<const T*>(x),
          static_cast<T*>(grad_kernels));
    if (sources > 0)
      DETC_LAUNCH(
          source_kernel<T>, blocks_for(sources), kThreads, stream, s, static_cast<const T*>(grad_out), static_cast<const T*>(kernels),
          static_cast<T*>(grad_x));
  });
}

}  // namespace detc
