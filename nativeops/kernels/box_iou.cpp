// detc-flags: -ffp-contract=off
#include "box_iou.h"

#include <vector>

#include "parallel.h"

namespace detc {
namespace {

// One image's second boxes as structure of arrays, with what does not depend on the first box worked out once.
template <class A>
struct Columns {
  std::vector<A> data;
  int64_t m;
  const A* row(int i) const { return data.data() + i * m; }
};

template <IouKind kind, class T>
Columns<acc_t<T>> columns_of(const T* boxes, int64_t m) {
  using A = acc_t<T>;
  Columns<A> columns{std::vector<A>(6 * m), m};
  for (int64_t j = 0; j < m; ++j) {
    const T* p = boxes + j * 4;
    const auto box = overlap_box<kind, A>(load(p), load(p + 1), load(p + 2), load(p + 3));
    const A values[6] = {box.x1, box.y1, box.x2, box.y2, box.area, box.angle};
    for (int i = 0; i < 6; ++i) columns.data[i * m + j] = values[i];
  }
  return columns;
}

template <IouKind kind, class T>
OverlapBox<acc_t<T>> box_at(const T* p) {
  return overlap_box<kind, acc_t<T>>(load(p), load(p + 1), load(p + 2), load(p + 3));
}

template <IouKind kind, class A>
void overlap_row(const OverlapBox<A>& a, const Columns<A>& b, A* out) {
  const A *x1 = b.row(0), *y1 = b.row(1), *x2 = b.row(2), *y2 = b.row(3), *area = b.row(4), *angle = b.row(5);
  const int64_t m = b.m;
#pragma omp simd
  for (int64_t j = 0; j < m; ++j) {
    const OverlapBox<A> other{x1[j], y1[j], x2[j], y2[j], area[j], angle[j]};
    out[j] = box_overlap<kind>(a, other);
  }
}

template <IouKind kind, class T>
void forward(const BoxIouArgs& args) {
  using A = acc_t<T>;
  const T *a = static_cast<const T*>(args.a), *b = static_cast<const T*>(args.b);
  T* out = static_cast<T*>(args.out);
  if (args.aligned) {
    parallel_for(args.batch * args.n, 16384, [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; ++i)
        store(out + i, static_cast<A>(box_overlap<kind>(box_at<kind>(a + i * 4), box_at<kind>(b + i * 4))));
    });
    return;
  }
  for (int64_t image = 0; image < args.batch; ++image) {
    const Columns<A> columns = columns_of<kind>(b + image * args.m * 4, args.m);
    parallel_for(args.n, args.m > 0 ? 262144 / args.m + 1 : args.n, [&](int64_t from, int64_t to) {
      std::vector<A> row(args.m);
      for (int64_t i = from; i < to; ++i) {
        const int64_t at = image * args.n + i;
        overlap_row<kind>(box_at<kind>(a + at * 4), columns, row.data());
        for (int64_t j = 0; j < args.m; ++j) store(out + at * args.m + j, row[j]);
      }
    });
  }
}

// Gradient by `first` [B, N, 4]; grad[i, j] lies at i * row_step + j * column_step of its image. Called once for each
// side.
template <IouKind kind, class T>
void backward_side(const T* first, const T* second, const T* grad, T* out, int64_t batch, int64_t n, int64_t m,
                   int64_t row_step, int64_t column_step, bool aligned) {
  using A = acc_t<T>;
  parallel_for(batch * n, aligned ? 4096 : 16384 / (m + 1) + 1, [&](int64_t from, int64_t to) {
    for (int64_t at = from; at < to; ++at) {
      A sum[4] = {};
      const int64_t image = n > 0 ? at / n : 0, i = at - image * n;
      if (aligned) {
        add_overlap_gradient<kind>(first + at * 4, second + at * 4, static_cast<A>(load(grad + at)), sum);
      } else {
        for (int64_t j = 0; j < m; ++j)
          add_overlap_gradient<kind>(first + at * 4, second + (image * m + j) * 4,
                                     static_cast<A>(load(grad + image * n * m + i * row_step + j * column_step)), sum);
      }
      for (int d = 0; d < 4; ++d) store(out + at * 4 + d, sum[d]);
    }
  });
}

template <IouKind kind, class T>
void backward(const BoxIouArgs& args) {
  const T *a = static_cast<const T*>(args.a), *b = static_cast<const T*>(args.b),
          *grad = static_cast<const T*>(args.grad);
  const int64_t m = args.aligned ? args.n : args.m;
  backward_side<kind>(a, b, grad, static_cast<T*>(args.grad_a), args.batch, args.n, m, m, 1, args.aligned);
  backward_side<kind>(b, a, grad, static_cast<T*>(args.grad_b), args.batch, m, args.n, 1, m, args.aligned);
}

}  // namespace

void box_iou_cpu(const BoxIouArgs& args) {
  DETC_DISPATCH_FLOATING(args.dtype, T, { DETC_DISPATCH_IOU_KIND(args.kind, kKind, forward<kKind, T>(args);) })
}
void box_iou_backward_cpu(const BoxIouArgs& args) {
  DETC_DISPATCH_FLOATING(args.dtype, T, { DETC_DISPATCH_IOU_KIND(args.kind, kKind, backward<kKind, T>(args);) })
}

}  // namespace detc
