// Sums that many CUDA threads add to, with one result whatever their order: 64-bit fixed point instead of float atomics.
//
// A kernel that scatters gradients knows a bound on one contribution (a product of maxima, found on the device) and on how many
// contributions meet in one sum. That fixes a power of two by which contributions are scaled to integers: adding integers is
// associative, so the sums are exact and deterministic. What is lost is below 2^-40 of the largest contribution. No host sync.
//
// Workspace of `fixed_point_bytes(n)`: n sums, then the maxima. Not finite inputs give NaN in every sum.
#pragma once

#include <cmath>
#include <cstdint>

#include "launch.h"
#include "scalar.h"

namespace detc {

inline constexpr int kMaxima = 2;

struct FixedPoint {
  unsigned long long* sums;
  unsigned long long* maxima;  // bit patterns of non-negative doubles, which order as integers do
  int64_t n;
  int count_bits;  // 2^count_bits contributions at most meet in one sum
};

inline int64_t fixed_point_bytes(int64_t n) { return (n + kMaxima) * 8; }

#if defined(__CUDACC__) || defined(DETC_EMULATE_CUDA)

inline int bits_for(int64_t count) {
  int bits = 1;
  while (bits < 60 && (int64_t{1} << bits) < count) ++bits;
  return bits;
}

inline FixedPoint fixed_point_begin(void* workspace, int64_t n, int64_t contributions, void* stream) {
  FixedPoint sum{static_cast<unsigned long long*>(workspace), static_cast<unsigned long long*>(workspace) + n, n, bits_for(contributions)};
  cudaMemsetAsync(workspace, 0, static_cast<size_t>(fixed_point_bytes(n)), static_cast<cudaStream_t>(stream));
  return sum;
}

template <class T>
__global__ void fixed_point_maximum_kernel(const T* x, int64_t n, unsigned long long* slot) {
  double most = 0;
  bool strange = false;
  DETC_GRID_STRIDE(i, n) {
    const double v = fabs(static_cast<double>(load(x + i)));
    strange |= !(v <= 1.7e308);
    if (v > most) most = v;
  }
  if (strange) most = INFINITY;
  unsigned long long bits;
  memcpy(&bits, &most, 8);
  atomicMax(slot, bits);
}

// Takes the largest |x| into the bound on a contribution; at most kMaxima tensors, the bound is their product.
template <class T>
void fixed_point_bound(const FixedPoint& sum, int index, const T* x, int64_t n, void* stream) {
  if (n == 0) return;
  const int64_t blocks = blocks_for(n) < 1024 ? blocks_for(n) : 1024;
  DETC_LAUNCH(fixed_point_maximum_kernel<T>, blocks, kThreads, stream, x, n, sum.maxima + index);
}

// Exponent of the scale, from the first `factors` maxima; factors that are not bounded by a tensor are at most 1.
__device__ inline int fixed_point_exponent(const FixedPoint& sum, int factors, bool* finite) {
  double bound = 1;
  for (int i = 0; i < factors; ++i) {
    double factor;
    memcpy(&factor, &sum.maxima[i], 8);
    bound *= factor;
  }
  *finite = bound <= 1.7e308;
  if (!*finite || bound == 0) return 0;
  const int exponent = 61 - sum.count_bits - ilogb(bound);
  return exponent > 110 ? 110 : (exponent < -110 ? -110 : exponent);
}

template <class A>
__device__ inline void fixed_point_add(const FixedPoint& sum, int64_t at, A contribution, A scale) {
  const long long scaled = static_cast<long long>(rint(contribution * scale));
  atomicAdd(sum.sums + at, static_cast<unsigned long long>(scaled));
}

template <class T>
__global__ void fixed_point_finish_kernel(FixedPoint sum, int factors, T* out) {
  bool finite;
  const double unit = ldexp(1.0, -fixed_point_exponent(sum, factors, &finite));
  DETC_GRID_STRIDE(i, sum.n) {
    const double total = finite ? static_cast<double>(static_cast<long long>(sum.sums[i])) * unit : NAN;
    store(out + i, static_cast<acc_t<T>>(total));
  }
}

template <class T>
void fixed_point_finish(const FixedPoint& sum, int factors, T* out, void* stream) {
  DETC_LAUNCH(fixed_point_finish_kernel<T>, blocks_for(sum.n), kThreads, stream, sum, factors, out);
}

#endif

}  // namespace detc
