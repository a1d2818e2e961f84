// Element types of the kernels: what is stored, what is computed in, and the dispatch from one to the other.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define DETC_HD __host__ __device__ __forceinline__
#else
#define DETC_HD inline
#endif

namespace detc {

enum class DType : int32_t { f32 = 0, f64 = 1, f16 = 2, bf16 = 3 };

#ifdef __CUDACC__
using half = __half;
using bfloat16 = __nv_bfloat16;
DETC_HD float load(const half* p) { return __half2float(*p); }
DETC_HD float load(const bfloat16* p) { return __bfloat162float(*p); }
DETC_HD void store(half* p, float v) { *p = __float2half_rn(v); }
DETC_HD void store(bfloat16* p, float v) { *p = __float2bfloat16_rn(v); }
#else
// On the host the 16-bit types are storage only; conversion is IEEE round to nearest even.
struct half {
  uint16_t bits;
};
struct bfloat16 {
  uint16_t bits;
};
inline float load(const half* p) {
  _Float16 h;
  std::memcpy(&h, p, 2);
  return static_cast<float>(h);
}
inline void store(half* p, float v) {
  const _Float16 h = static_cast<_Float16>(v);
  std::memcpy(p, &h, 2);
}
inline float load(const bfloat16* p) {
  const uint32_t bits = static_cast<uint32_t>(p->bits) << 16;
  float v;
  std::memcpy(&v, &bits, 4);
  return v;
}
inline void store(bfloat16* p, float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    p->bits = static_cast<uint16_t>((bits >> 16) | 0x40u);  // keep NaN a NaN
    return;
  }
  p->bits = static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
#endif

DETC_HD float load(const float* p) { return *p; }
DETC_HD double load(const double* p) { return *p; }
DETC_HD void store(float* p, float v) { *p = v; }
DETC_HD void store(double* p, double v) { *p = v; }

template <class T>
struct accumulate_in {
  using type = float;
};
template <>
struct accumulate_in<double> {
  using type = double;
};
// The type to compute in: double for double, float for everything else.
template <class T>
using acc_t = typename accumulate_in<T>::type;

inline int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f64: return 8;
    case DType::f32: return 4;
    default: return 2;
  }
}

}  // namespace detc

// Runs the block with `T` bound to the element type of `dtype`.
#define DETC_DISPATCH_FLOATING(dtype, T, ...) \
  switch (dtype) {                            \
    case ::detc::DType::f32: {                \
      using T = float;                        \
      __VA_ARGS__                             \
    } break;                                  \
    case ::detc::DType::f64: {                \
      using T = double;                       \
      __VA_ARGS__                             \
    } break;                                  \
    case ::detc::DType::f16: {                \
      using T = ::detc::half;                 \
      __VA_ARGS__                             \
    } break;                                  \
    case ::detc::DType::bf16: {               \
      using T = ::detc::bfloat16;             \
      __VA_ARGS__                             \
    } break;                                  \
  }
