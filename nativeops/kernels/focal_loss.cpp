#include "focal_loss.h"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "parallel.h"

namespace detc {
namespace {

constexpr int64_t kRun = 1024;  // elements computed at a time, in buffers that stay in the first-level cache

enum class Want { loss, slope };

// A run of elements [begin, begin + n) of the flattened tensors, widened to A.
template <class T>
struct Run {
  using A = acc_t<T>;
  A logit[kRun], target[kRun], result[kRun];
};

template <class T>
void widen(const void* from, int64_t begin, int64_t n, acc_t<T>* to) {
  const T* p = static_cast<const T*>(from) + begin;
  for (int64_t i = 0; i < n; ++i) to[i] = load(p + i);
}

// Calls f(row, first element of the row within the run, one past its last) for the rows that a run touches.
template <class F>
void for_rows(int64_t begin, int64_t n, int64_t classes, const F& f) {
  for (int64_t at = 0; at < n;) {
    const int64_t row = (begin + at) / classes, end = std::min(n, (row + 1) * classes - begin);
    f(row, at, end);
    at = end;
  }
}

template <class T, FocalKind kind, Want want, class Power>
void compute(const FocalArgs& args, Power power_of, int64_t begin, int64_t n, Run<T>& run) {
  using A = acc_t<T>;
  const A* logit = run.logit;
  const A* target = run.target;
  if constexpr (std::is_same_v<T, A>) {
    logit = static_cast<const A*>(args.logits) + begin;
    if (args.targets) target = static_cast<const A*>(args.targets) + begin;
  } else {
    widen<T>(args.logits, begin, n, run.logit);
    if (args.targets) widen<T>(args.targets, begin, n, run.target);
  }
  if (!args.targets) {
    std::fill(run.target, run.target + n, A(0));
    for_rows(begin, n, args.classes, [&](int64_t row, int64_t from, int64_t to) {
      const int64_t label = args.labels[row], at = row * args.classes + label - begin;
      if (label >= 0 && label < args.classes && at >= from && at < to) run.target[at] = A(1);
    });
  }
  const A alpha = static_cast<A>(args.alpha);
  A* result = run.result;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    A loss, slope;
    focal_element<kind>(logit[i], target[i], alpha, power_of, &loss, &slope);
    result[i] = want == Want::loss ? loss : slope;
  }
  if (args.weights) {
    for_rows(begin, n, args.classes, [&](int64_t row, int64_t from, int64_t to) {
      const A weight = load(static_cast<const T*>(args.weights) + row);
      for (int64_t i = from; i < to; ++i) run.result[i] *= weight;
    });
  }
}

template <class A>
A total_of(const A* values, int64_t n) {
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += values[i];
  return sum;
}

template <class T>
void forward(const FocalArgs& args) {
  using A = acc_t<T>;
  const int64_t total = args.rows * args.classes, runs = (total + kRun - 1) / kRun;
  std::vector<double> sums(args.sum ? runs : 0);
  DETC_DISPATCH_FOCAL(args, A, {
    parallel_for(runs, 64, [&](int64_t from, int64_t to) {
      Run<T> run;
      for (int64_t r = from; r < to; ++r) {
        const int64_t begin = r * kRun, n = std::min(kRun, total - begin);
        compute<T, kKind, Want::loss>(args, power_of, begin, n, run);
        if (args.sum) {
          sums[r] = total_of(run.result, n);
        } else {
          T* out = static_cast<T*>(args.loss) + begin;
          for (int64_t i = 0; i < n; ++i) store(out + i, run.result[i]);
        }
      }
    });
  })
  if (args.sum) {
    double sum = 0;  // by run, in order: the same whatever the number of threads
    for (const double part : sums) sum += part;
    *args.sum = sum;
  }
}

template <class T>
void backward(const FocalArgs& args) {
  using A = acc_t<T>;
  const int64_t total = args.rows * args.classes, runs = (total + kRun - 1) / kRun;
  const T* grad = static_cast<const T*>(args.grad);
  DETC_DISPATCH_FOCAL(args, A, {
    parallel_for(runs, 64, [&](int64_t from, int64_t to) {
      Run<T> run;
      for (int64_t r = from; r < to; ++r) {
        const int64_t begin = r * kRun, n = std::min(kRun, total - begin);
        compute<T, kKind, Want::slope>(args, power_of, begin, n, run);
        T* out = static_cast<T*>(args.grad_logits) + begin;
        if (args.grad_is_one) {
          const A g = *static_cast<const A*>(args.grad);
          for (int64_t i = 0; i < n; ++i) store(out + i, g * run.result[i]);
        } else {
          for (int64_t i = 0; i < n; ++i) store(out + i, static_cast<A>(load(grad + begin + i)) * run.result[i]);
        }
      }
    });
  })
}

}  // namespace

void focal_loss_cpu(const FocalArgs& args) { DETC_DISPATCH_FLOATING(args.dtype, T, forward<T>(args);) }
void focal_loss_backward_cpu(const FocalArgs& args) { DETC_DISPATCH_FLOATING(args.dtype, T, backward<T>(args);) }

}  // namespace detc
