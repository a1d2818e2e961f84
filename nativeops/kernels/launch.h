// Launching CUDA kernels: one-dimensional grid-stride loops, indices of 64 bits.
//
// Kernels are launched through DETC_LAUNCH only, so that the tests can compile a .cu for the host (tests/nativeops/emulated_cuda.h) and
// check its arithmetic and its bounds where there is no GPU.
#pragma once

#include <cstdint>

#ifndef DETC_EMULATE_CUDA
#include <cuda_runtime.h>
#define DETC_LAUNCH(kernel, blocks, threads, stream, ...) \
  kernel<<<static_cast<unsigned>(blocks), threads, 0, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__)
// For kernels whose threads work together (__shared__, __syncthreads) and that give the same result for any number of threads a block:
// compiled for the host they run with one.
#define DETC_LAUNCH_TEAMS DETC_LAUNCH
#endif

namespace detc {

inline constexpr int kThreads = 256;

// Blocks for n independent items; the loops stride, so the cap costs nothing.
inline int64_t blocks_for(int64_t n) {
  const int64_t blocks = (n + kThreads - 1) / kThreads;
  return blocks < 1 ? 1 : (blocks > 65535 ? 65535 : blocks);
}

}  // namespace detc

#define DETC_GRID_STRIDE(i, n)                                                               \
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < (n); \
       i += static_cast<int64_t>(blockDim.x) * gridDim.x)
