#include "corner_pool.h"
#include "launch.h"

namespace detc {
namespace {

template <class A>
__device__ bool takes_over(A value, A best) {
  return isnan(value) || (!isnan(best) && value >= best);
}

// One thread a row or column of a plane: where it starts, its stride and its length.
struct Line {
  int64_t first, step, length;

  __device__ Line(const CornerPool& s, int64_t i) {
    const int64_t across = s.vertical ? s.width : s.height, plane = i / across * s.height * s.width;
    length = s.vertical ? s.height : s.width;
    step = s.vertical ? s.width : 1;
    first = plane + i % across * (s.vertical ? 1 : s.width);
    if (s.reversed) {
      first += (length - 1) * step;
      step = -step;
    }
  }
};

template <class T>
__global__ void forward_kernel(CornerPool s, const T* x, T* out) {
  using A = acc_t<T>;
  DETC_GRID_STRIDE(i, s.planes * (s.vertical ? s.width : s.height)) {
    const Line line(s, i);
    A best = load(x + line.first);
    for (int64_t j = 0, at = line.first; j < line.length; ++j, at += line.step) {
      const A value = load(x + at);
      if (takes_over(value, best)) best = value;
      store(out + at, best);
    }
  }
}

template <class T>
__global__ void backward_kernel(CornerPool s, const T* grad_out, const T* x, T* grad_x, acc_t<T>* sums) {
  using A = acc_t<T>;
  DETC_GRID_STRIDE(i, s.planes * (s.vertical ? s.width : s.height)) {
    const Line line(s, i);
    for (int64_t j = 0, at = line.first; j < line.length; ++j, at += line.step) sums[at] = 0;
    A best = load(x + line.first);
    int64_t winner = line.first;
    for (int64_t j = 0, at = line.first; j < line.length; ++j, at += line.step) {
      const A value = load(x + at);
      if (takes_over(value, best)) {
        best = value;
        winner = at;
      }
      sums[winner] += A(load(grad_out + at));
    }
    for (int64_t j = 0, at = line.first; j < line.length; ++j, at += line.step) store(grad_x + at, sums[at]);
  }
}

}  // namespace

void corner_pool_cuda(DType dtype, const CornerPool& s, const void* x, void* out, void* stream) {
  if (s.planes * s.height * s.width == 0) return;
  const int64_t lines = s.planes * (s.vertical ? s.width : s.height);
  DETC_DISPATCH_FLOATING(dtype, T, {
    DETC_LAUNCH(forward_kernel<T>, blocks_for(lines), kThreads, stream, s, static_cast<const T*>(x), static_cast<T*>(out));
  });
}

void corner_pool_backward_cuda(
    DType dtype, const CornerPool& s, const void* grad_out, const void* x, void* grad_x, void* sums, void* stream) {
  if (s.planes * s.height * s.width == 0) return;
  const int64_t lines = s.planes * (s.vertical ? s.width : s.height);
  DETC_DISPATCH_FLOATING(dtype, T, {
    DETC_LAUNCH(
        backward_kernel<T>, blocks_for(lines), kThreads, stream, s, static_cast<const T*>(grad_out), static_cast<const T*>(x),
        static_cast<T*>(grad_x), static_cast<acc_t<T>*>(sums));
  });
}

}  // namespace detc
