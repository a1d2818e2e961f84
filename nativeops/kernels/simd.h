// Vectors as wide as the target's registers, through the compiler's vector extension (GCC and clang): plain operators, no intrinsics.
#pragma once

#include <cstdint>
#include <cstring>

#include "scalar.h"

namespace detc {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif

template <class T>
inline constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

template <class T>
struct vector_of {
  typedef T type __attribute__((vector_size(kVectorBytes)));
};
template <class T>
using vec = typename vector_of<T>::type;

template <class T>
inline vec<T> vload(const T* p) {
  vec<T> v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
template <class T>
inline void vstore(T* p, vec<T> v) {
  std::memcpy(p, &v, sizeof(v));
}
template <class T>
inline vec<T> vset(T x) {
  return x - vec<T>{};
}
// Sum of the lanes, always in the same order.
template <class T>
inline T vsum(vec<T> v) {
  T lanes[kLanes<T>];
  vstore(lanes, v);
  for (int width = kLanes<T> / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  return lanes[0];
}

template <class T>
inline T dot(const T* a, const T* b, int64_t n) {
  constexpr int L = kLanes<T>;
  vec<T> sum = {};
  int64_t i = 0;
  for (; i + L <= n; i += L) sum += vload(a + i) * vload(b + i);
  T total = vsum<T>(sum);
  for (; i < n; ++i) total += a[i] * b[i];
  return total;
}

inline int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

}  // namespace detc

// The block with `T` bound to float or double: kernels that compute in the type they store. Bindings widen 16-bit inputs first.
#define DETC_DISPATCH_WIDE(dtype, T, ...)                  \
  if ((dtype) == ::detc::DType::f64) {                     \
    using T = double;                                      \
    __VA_ARGS__                                            \
  } else {                                                 \
    using T = float;                                       \
    __VA_ARGS__                                            \
  }
