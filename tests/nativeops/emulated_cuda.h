// Enough of CUDA to run a kernel on the host: every thread of a block is a coroutine, __syncthreads() switches to the next one.
//
// Included before a .cu that launches through DETC_LAUNCH. What it shows: indices, bounds (with the sanitizers), arithmetic, and that every
// thread reaches every barrier. What it cannot show: races between barriers, and speed.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static

struct Dim {
  unsigned x, y, z;
};
inline Dim threadIdx{}, blockIdx{}, blockDim{}, gridDim{};
using cudaStream_t = void*;

inline int cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t) {
  std::memset(data, value, bytes);
  return 0;
}
inline unsigned long long atomicAdd(unsigned long long* to, unsigned long long value) {
  const auto before = *to;
  *to += value;
  return before;
}
inline unsigned long long atomicMax(unsigned long long* to, unsigned long long value) {
  const auto before = *to;
  if (value > before) *to = value;
  return before;
}
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
using std::isnan;

namespace emulated {

struct Thread {
  ucontext_t context;
  std::vector<char> stack;
  bool done;
  int64_t barriers;
};
inline std::vector<Thread> threads;
inline ucontext_t scheduler;
inline size_t current;
inline const std::function<void()>* body;

inline void enter() {
  (*body)();
  threads[current].done = true;
  swapcontext(&threads[current].context, &scheduler);
}

inline void barrier() {
  ++threads[current].barriers;
  swapcontext(&threads[current].context, &scheduler);
}

inline void launch(int64_t blocks, int count, const std::function<void()>& kernel) {
  body = &kernel;
  threads.resize(static_cast<size_t>(count));
  gridDim = {static_cast<unsigned>(blocks), 1, 1};
  blockDim = {static_cast<unsigned>(count), 1, 1};
  for (int64_t block = 0; block < blocks; ++block) {
    blockIdx.x = static_cast<unsigned>(block);
    for (auto& thread : threads) {
      thread.stack.resize(1 << 16);
      thread.done = false;
      thread.barriers = 0;
      getcontext(&thread.context);
      thread.context.uc_stack.ss_sp = thread.stack.data();
      thread.context.uc_stack.ss_size = thread.stack.size();
      thread.context.uc_link = nullptr;
      makecontext(&thread.context, enter, 0);
    }
    for (bool running = true; running;) {
      running = false;
      for (current = 0; current < threads.size(); ++current) {
        if (threads[current].done) continue;
        threadIdx.x = static_cast<unsigned>(current);
        swapcontext(&scheduler, &threads[current].context);
        running = true;
      }
      for (const auto& thread : threads)
        if (thread.barriers != threads[0].barriers) {
          std::fprintf(stderr, "threads of a block left a barrier out\n");
          std::abort();
        }
    }
  }
}

}  // namespace emulated

#define DETC_LAUNCH_TEAMS DETC_LAUNCH
namespace detc {
template <class Key>
size_t sort_pairs_bytes(int64_t) {
  return 1;
}
template <class Key>
void sort_pairs(void*, size_t, const Key* keys, Key* sorted_keys, const uint32_t* values, uint32_t* sorted_values, int64_t n, void*) {
  std::vector<std::pair<Key, uint32_t>> pairs;
  for (int64_t i = 0; i < n; ++i) pairs.emplace_back(keys[i], values[i]);
  std::stable_sort(pairs.begin(), pairs.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (int64_t i = 0; i < n; ++i) sorted_keys[i] = pairs[i].first, sorted_values[i] = pairs[i].second;
}
}  // namespace detc

#define __syncthreads() emulated::barrier()
#define DETC_LAUNCH(kernel, blocks, count, stream, ...) \
  ((void)(stream), emulated::launch(blocks, count, [&] { kernel(__VA_ARGS__); }))
