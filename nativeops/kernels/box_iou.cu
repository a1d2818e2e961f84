#include "box_iou.h"
#include "launch.h"

namespace detc {
namespace {

template <IouKind kind, class T>
__device__ OverlapBox<acc_t<T>> box_at(const T* p) {
  return overlap_box<kind, acc_t<T>>(load(p), load(p + 1), load(p + 2), load(p + 3));
}

template <IouKind kind, class T>
__global__ void forward_kernel(BoxIouArgs args) {
  const T *a = static_cast<const T*>(args.a), *b = static_cast<const T*>(args.b);
  const int64_t m = args.aligned ? 1 : args.m;
  DETC_GRID_STRIDE(at, args.batch * args.n * m) {
    const int64_t i = at / m, j = args.aligned ? i : i / args.n * m + at % m;
    store(static_cast<T*>(args.out) + at,
          static_cast<acc_t<T>>(box_overlap<kind>(box_at<kind>(a + i * 4), box_at<kind>(b + j * 4))));
  }
}

template <IouKind kind, class T>
__global__ void backward_kernel(const T* first, const T* second, const T* grad, T* out, int64_t batch, int64_t n,
                                int64_t m, int64_t row_step, int64_t column_step, bool aligned) {
  using A = acc_t<T>;
  DETC_GRID_STRIDE(at, batch * n) {
    A sum[4] = {};
    const int64_t image = at / n, i = at - image * n;
    if (aligned) {
      add_overlap_gradient<kind>(first + at * 4, second + at * 4, static_cast<A>(load(grad + at)), sum);
    } else {
      for (int64_t j = 0; j < m; ++j)
        add_overlap_gradient<kind>(first + at * 4, second + (image * m + j) * 4,
                                   static_cast<A>(load(grad + image * n * m + i * row_step + j * column_step)), sum);
    }
    for (int d = 0; d < 4; ++d) store(out + at * 4 + d, sum[d]);
  }
}

template <IouKind kind, class T>
void backward(const BoxIouArgs& args, void* stream) {
  const T *a = static_cast<const T*>(args.a), *b = static_cast<const T*>(args.b),
          *grad = static_cast<const T*>(args.grad);
  const int64_t m = args.aligned ? args.n : args.m;
  if (args.batch * args.n > 0)
    DETC_LAUNCH((backward_kernel<kind, T>), blocks_for(args.batch * args.n), kThreads, stream, a, b, grad,
                static_cast<T*>(args.grad_a), args.batch, args.n, m, m, int64_t{1}, args.aligned);
  if (args.batch * m > 0)
    DETC_LAUNCH((backward_kernel<kind, T>), blocks_for(args.batch * m), kThreads, stream, b, a, grad,
                static_cast<T*>(args.grad_b), args.batch, m, args.n, int64_t{1}, m, args.aligned);
}

}  // namespace

void box_iou_cuda(const BoxIouArgs& args, void* stream) {
  const int64_t total = args.batch * args.n * (args.aligned ? 1 : args.m);
  if (total == 0) return;
  DETC_DISPATCH_FLOATING(args.dtype, T, {
    DETC_DISPATCH_IOU_KIND(args.kind, kKind,
                           DETC_LAUNCH((forward_kernel<kKind, T>), blocks_for(total), kThreads, stream, args);)
  })
}
void box_iou_backward_cuda(const BoxIouArgs& args, void* stream) {
  DETC_DISPATCH_FLOATING(args.dtype, T, { DETC_DISPATCH_IOU_KIND(args.kind, kKind, backward<kKind, T>(args, stream);) })
}

}  // namespace detc
