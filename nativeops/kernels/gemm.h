// A small dense matrix product for kernels that must not call a framework's: C += A B on blocks that fit the caches.
//
// B is packed into panels of kPanel<T> columns, [panel][k][kPanel], padded with zeros. C is padded to whole panels too. A may have any
// strides: element (m, k) is a[m * row + k * step]. The tile of C stays in registers while k runs.
#pragma once

#include <cstdint>

#include "simd.h"

namespace detc {

inline constexpr int kPanelVectors = 2;
template <class T>
inline constexpr int kPanel = kPanelVectors * kLanes<T>;

#if defined(__AVX512F__)
inline constexpr int kTileRows = 12;  // 24 of the 32 registers hold the tile
#else
inline constexpr int kTileRows = 6;  // 12 of 16
#endif

template <class T, int ROWS>
inline void gemm_tile(int64_t K, const T* a, int64_t row, int64_t step, const T* panel, T* c, int64_t ldc) {
  constexpr int L = kLanes<T>;
  vec<T> sum[ROWS][kPanelVectors];
#pragma GCC unroll 12
  for (int m = 0; m < ROWS; ++m) {
    sum[m][0] = vload(c + m * ldc);
    sum[m][1] = vload(c + m * ldc + L);
  }
  for (int64_t k = 0; k < K; ++k) {
    const vec<T> b0 = vload(panel + k * kPanel<T>), b1 = vload(panel + k * kPanel<T> + L);
#pragma GCC unroll 12
    for (int m = 0; m < ROWS; ++m) {
      const T x = a[m * row + k * step];
      sum[m][0] += x * b0;
      sum[m][1] += x * b1;
    }
  }
#pragma GCC unroll 12
  for (int m = 0; m < ROWS; ++m) {
    vstore(c + m * ldc, sum[m][0]);
    vstore(c + m * ldc + L, sum[m][1]);
  }
}

template <class T, int ROWS = kTileRows - 1>
inline void gemm_tail(int64_t rows, int64_t K, const T* a, int64_t row, int64_t step, const T* panel, T* c, int64_t ldc) {
  if constexpr (ROWS >= 1) {
    if (rows == ROWS) gemm_tile<T, ROWS>(K, a, row, step, panel, c, ldc);
    else gemm_tail<T, ROWS - 1>(rows, K, a, row, step, panel, c, ldc);
  }
}

// C[M, panels * kPanel] += A[M, K] B. `panel_stride` is the distance from one panel of B to the next.
template <class T>
void gemm(
    int64_t M, int64_t panels, int64_t K, const T* a, int64_t row, int64_t step, const T* b, int64_t panel_stride, T* c, int64_t ldc) {
  for (int64_t p = 0; p < panels; ++p) {
    const T* panel = b + p * panel_stride;
    int64_t m = 0;
    for (; m + kTileRows <= M; m += kTileRows)
      gemm_tile<T, kTileRows>(K, a + m * row, row, step, panel, c + m * ldc + p * kPanel<T>, ldc);
    gemm_tail<T>(M - m, K, a + m * row, row, step, panel, c + m * ldc + p * kPanel<T>, ldc);
  }
}

}  // namespace detc
