// parallel_for: the kernels' only way to use more than one CPU thread.
//
// The host that loads the library decides which threads do the work: the torch binding hands the ranges to torch's own
// pool, the ONNX Runtime binding to the pool in parallel.cpp. A body must not throw.
#pragma once

#include <cstdint>

namespace detc {

using RangeBody = void (*)(int64_t begin, int64_t end, void* context);
using ParallelBackend = void (*)(int64_t n, int64_t grain, RangeBody body, void* context);

void set_parallel_backend(ParallelBackend backend);
void run_parallel(int64_t n, int64_t grain, RangeBody body, void* context);

// Calls f(begin, end) on disjoint ranges that cover [0, n); ranges are not shorter than `grain` except the last.
template <class F>
void parallel_for(int64_t n, int64_t grain, const F& f) {
  if (n <= 0) return;
  if (n <= grain) {
    f(int64_t{0}, n);
    return;
  }
  run_parallel(
      n, grain, [](int64_t begin, int64_t end, void* context) { (*static_cast<const F*>(context))(begin, end); },
      const_cast<void*>(static_cast<const void*>(&f)));
}

}  // namespace detc
