#include "launch.h"
#include "masked_conv2d.h"

namespace detc {
namespace {

template <class T>
__global__ void convolve_kernel(MaskedConv s, const T* x, const bool* mask, const T* weight, const T* bias, T* out) {
  using A = acc_t<T>;
  const int64_t P = s.out_height * s.out_width;
  DETC_GRID_STRIDE(i, s.images * s.out_channels * P) {
    const int64_t position = i % P, o = i / P % s.out_channels, image = i / (P * s.out_channels);
    A sum = 0;
    if (mask[image * P + position]) {
      if (bias) sum = load(bias + o);
      const int64_t top = position / s.out_width * s.stride_h - s.pad_h, left = position % s.out_width * s.stride_w - s.pad_w;
      for (int64_t c = 0; c < s.channels; ++c)
        for (int64_t ky = 0; ky < s.kernel_h; ++ky)
          for (int64_t kx = 0; kx < s.kernel_w; ++kx) {
            const int64_t y = top + ky, xx = left + kx;
            if (y < 0 || y >= s.height || xx < 0 || xx >= s.width) continue;
            sum += A(load(x + ((image * s.channels + c) * s.height + y) * s.width + xx)) *
                   A(load(weight + ((o * s.channels + c) * s.kernel_h + ky) * s.kernel_w + kx));
          }
    }
    store(out + i, sum);
  }
}

}  // namespace

void masked_conv2d_cuda(
    DType dtype, const MaskedConv& s, const void* x, const bool* mask, const void* weight, const void* bias, void* out, void* stream) {
  const int64_t n = s.images * s.out_channels * s.out_height * s.out_width;
  if (n == 0) return;
  DETC_DISPATCH_FLOATING(dtype, T, {
    DETC_LAUNCH(
        convolve_kernel<T>, blocks_for(n), kThreads, stream, s, static_cast<const T*>(x), mask, static_cast<const T*>(weight),
        static_cast<const T*>(bias), static_cast<T*>(out));
  });
}

}  // namespace detc
