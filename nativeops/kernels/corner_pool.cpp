#include "corner_pool.h"

#include <cmath>

#include "layout.h"
#include "simd.h"

namespace detc {
namespace {

// A plane as `length` steps of a scan over `lanes` independent neighbours.
struct Scan {
  int64_t lines, length, step, lanes, start;

  explicit Scan(const CornerPool& s)
      : lines(s.vertical ? 1 : s.height),
        length(s.vertical ? s.height : s.width),
        step((s.vertical ? s.width : 1) * (s.reversed ? -1 : 1)),
        lanes(s.vertical ? s.width : 1),
        start(s.reversed ? (length - 1) * (s.vertical ? s.width : 1) : 0) {}
};

template <class T>
bool takes_over(T value, T best) {
  return std::isnan(value) || (!std::isnan(best) && value >= best);
}

template <class T>
void forward(const CornerPool& s, const T* x, T* out) {
  const Scan scan(s);
  parallel_for(s.planes, grain_for(s.height * s.width), [=, &s](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane)
      for (int64_t line = 0; line < scan.lines; ++line) {
        const int64_t at = plane * s.height * s.width + line * s.width + scan.start;
        const T* from = x + at;
        T* to = out + at;
        std::copy_n(from, scan.lanes, to);
        for (int64_t i = 1; i < scan.length; ++i) {
          const T* before = to;
          from += scan.step;
          to += scan.step;
          for (int64_t j = 0; j < scan.lanes; ++j) to[j] = takes_over(from[j], before[j]) ? from[j] : before[j];
        }
      }
  });
}

template <class T>
void backward(const CornerPool& s, const T* grad_out, const T* x, T* grad_x) {
  const Scan scan(s);
  parallel_for(s.planes, grain_for(s.height * s.width), [=, &s](int64_t begin, int64_t end) {
    const auto best = scratch<T>(scan.lanes);
    const auto winner = scratch<int64_t>(scan.lanes);
    for (int64_t plane = begin; plane < end; ++plane) {
      std::fill_n(grad_x + plane * s.height * s.width, s.height * s.width, T(0));
      for (int64_t line = 0; line < scan.lines; ++line) {
        const int64_t first = plane * s.height * s.width + line * s.width + scan.start;
        for (int64_t i = 0, at = first; i < scan.length; ++i, at += scan.step)
          for (int64_t j = 0; j < scan.lanes; ++j) {
            if (i == 0 || takes_over(x[at + j], best[j])) {
              best[j] = x[at + j];
              winner[j] = at + j;
            }
            grad_x[winner[j]] += grad_out[at + j];
          }
      }
    }
  });
}

}  // namespace

void corner_pool_cpu(DType dtype, const CornerPool& s, const void* x, void* out) {
  if (s.planes * s.height * s.width == 0) return;
  DETC_DISPATCH_WIDE(dtype, T, { forward(s, static_cast<const T*>(x), static_cast<T*>(out)); });
}

void corner_pool_backward_cpu(DType dtype, const CornerPool& s, const void* grad_out, const void* x, void* grad_x) {
  if (s.planes * s.height * s.width == 0) return;
  DETC_DISPATCH_WIDE(dtype, T, { backward(s, static_cast<const T*>(grad_out), static_cast<const T*>(x), static_cast<T*>(grad_x)); });
}

}  // namespace detc
