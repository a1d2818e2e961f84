#include "launch.h"
#include "mask_paste.h"

namespace detc {
namespace {

// Cell below the pixel's centre (-1 .. cells - 1) and the distance to it; false when the pixel is not covered.
template <class A>
__device__ bool place(A low, A high, int64_t pixel, int64_t cells, int64_t* cell, A* rest) {
  const A extent = high - low, centre = A(pixel) + A(0.5), scale = A(cells) / extent;
  if (!(extent > A(0) && extent < A(INFINITY) && scale < A(INFINITY)) || !(centre >= low && centre < high)) return false;
  const A at = (centre - low) * scale - A(0.5);
  const A below = fmin(fmax(floor(at), A(-1)), A(cells - 1));
  *cell = static_cast<int64_t>(below);
  *rest = fmin(fmax(at - below, A(0)), A(1));
  return true;
}

template <class A>
__device__ A finite(A v) {
  if (isnan(v)) return A(0);
  return fmin(fmax(v, A(-1e30)), A(1e30));
}

template <class T>
__global__ void paste_kernel(MaskPaste s, const T* masks, const T* boxes, uint8_t* out) {
  using A = acc_t<T>;
  const int64_t m = s.mask_height, k = s.mask_width;
  DETC_GRID_STRIDE(i, s.masks * s.height * s.width) {
    const int64_t x = i % s.width, y = i / s.width % s.height, n = i / (s.width * s.height);
    const T* box = boxes + n * 4;
    int64_t row = 0, col = 0;
    A dy = 0, dx = 0;
    bool set = false;
    if (m > 0 && k > 0 && place<A>(load(box + 1), load(box + 3), y, m, &row, &dy) && place<A>(load(box), load(box + 2), x, k, &col, &dx)) {
      const auto cell = [&](int64_t r, int64_t c) -> A {
        return r >= 0 && r < m && c >= 0 && c < k ? finite<A>(load(masks + (n * m + r) * k + c)) : A(0);
      };
      const A left = cell(row, col) * (1 - dy) + cell(row + 1, col) * dy;
      const A right = cell(row, col + 1) * (1 - dy) + cell(row + 1, col + 1) * dy;
      set = left * (1 - dx) + right * dx >= static_cast<A>(s.threshold);
    }
    out[i] = set;
  }
}

}  // namespace

void mask_paste_cuda(DType dtype, const MaskPaste& s, const void* masks, const void* boxes, uint8_t* out, void* stream) {
  const int64_t n = s.masks * s.height * s.width;
  if (n == 0) return;
  DETC_DISPATCH_FLOATING(dtype, T, {
    DETC_LAUNCH(
        paste_kernel<T>, blocks_for(n), kThreads, stream, s, static_cast<const T*>(masks), static_cast<const T*>(boxes), out);
  });
}

}  // namespace detc
