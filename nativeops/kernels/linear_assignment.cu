#include "launch.h"
#include "linear_assignment.h"

namespace detc {
namespace {

// One problem as the block sees it, turned so that n <= m.
template <class T>
struct Problem {
  const T* cost;
  const bool *row_valid, *col_valid;  // of the turned rows and columns
  int64_t n, m, row_stride, col_stride;
  double price;

  __device__ bool allowed(int64_t i, int64_t j) const {
    const double c = static_cast<double>(load(cost + i * row_stride + j * col_stride));
    return fabs(c) <= kCostLimit && (!row_valid || row_valid[i]) && (!col_valid || col_valid[j]);
  }
  __device__ double at(int64_t i, int64_t j) const {
    return allowed(i, j) ? static_cast<double>(load(cost + i * row_stride + j * col_stride)) : price;
  }
};

// Workspace of one problem.
struct Scratch {
  double *row_dual, *col_dual, *distance;
  int64_t *parent, *settled, *col_of_row, *row_of_col;

  __device__ Scratch(void* base, int64_t n, int64_t m) {
    row_dual = static_cast<double*>(base);
    col_dual = row_dual + n;
    distance = col_dual + m;
    parent = reinterpret_cast<int64_t*>(distance + m);
    settled = parent + m;
    row_of_col = settled + m;
    col_of_row = row_of_col + m;
  }
};
constexpr int64_t scratch_words(int64_t n, int64_t m) { return 2 * n + 5 * m; }

// Smallest value of the block and its lowest index, in slot 0. Every thread must call it.
__device__ void reduce_least(double* values, int64_t* indices, double value, int64_t index) {
  values[threadIdx.x] = value;
  indices[threadIdx.x] = index;
  __syncthreads();
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) {
      const double other = values[threadIdx.x + half];
      const int64_t other_index = indices[threadIdx.x + half];
      if (other < values[threadIdx.x] || (other == values[threadIdx.x] && other_index < indices[threadIdx.x])) {
        values[threadIdx.x] = other;
        indices[threadIdx.x] = other_index;
      }
    }
    __syncthreads();
  }
}

template <class T>
__global__ void assignment_kernel(
    Assignment s, const T* cost, const bool* row_valid, const bool* col_valid, int64_t* col_of_row, int64_t* row_of_col, int64_t* words) {
  __shared__ double values[kThreads];
  __shared__ int64_t indices[kThreads];
  const bool flipped = s.rows > s.cols;
  const unsigned me = threadIdx.x;
  for (int64_t b = blockIdx.x; b < s.problems; b += gridDim.x) {
    Problem<T> p{};
    p.cost = cost + b * s.rows * s.cols;
    const bool* rows = row_valid ? row_valid + b * s.rows : nullptr;
    const bool* cols = col_valid ? col_valid + b * s.cols : nullptr;
    p.row_valid = flipped ? cols : rows;
    p.col_valid = flipped ? rows : cols;
    p.n = flipped ? s.cols : s.rows;
    p.m = flipped ? s.rows : s.cols;
    p.row_stride = flipped ? 1 : s.cols;
    p.col_stride = flipped ? s.cols : 1;
    const Scratch w(words + b * scratch_words(p.n, p.m), p.n, p.m);

    // A forbidden pair costs more than any matching of allowed ones.
    double low = INFINITY, high = INFINITY;  // high: of the negated costs
    for (int64_t i = me; i < p.n * p.m; i += blockDim.x) {
      if (!p.allowed(i / p.m, i % p.m)) continue;
      const double c = p.at(i / p.m, i % p.m);
      low = fmin(low, c);
      high = fmin(high, -c);
    }
    reduce_least(values, indices, low, 0);
    low = values[0];
    __syncthreads();
    reduce_least(values, indices, high, 0);
    high = -values[0];
    __syncthreads();
    const bool any = high >= low;
    p.price = __dadd_rn(any ? high : 0.0, __dmul_rn((any ? high - low : 0.0) + 1.0, static_cast<double>(p.n)));

    for (int64_t i = me; i < p.n; i += blockDim.x) {
      w.row_dual[i] = 0;
      w.col_of_row[i] = -1;
    }
    for (int64_t j = me; j < p.m; j += blockDim.x) {
      w.col_dual[j] = 0;
      w.row_of_col[j] = -1;
    }
    for (int64_t row = 0; row < p.n; ++row) {
      for (int64_t j = me; j < p.m; j += blockDim.x) {
        w.distance[j] = INFINITY;
        w.settled[j] = 0;
      }
      __syncthreads();
      double reached = 0;
      int64_t at = row, col;
      for (;;) {
        double least = INFINITY;
        int64_t where = p.m;
        for (int64_t j = me; j < p.m; j += blockDim.x) {
          if (w.settled[j]) continue;
          const double reduced = reached + p.at(at, j) - w.row_dual[at] - w.col_dual[j];
          if (reduced < w.distance[j]) {
            w.distance[j] = reduced;
            w.parent[j] = at;
          }
          if (w.distance[j] < least) {
            least = w.distance[j];
            where = j;
          }
        }
        reduce_least(values, indices, least, where);
        reached = values[0];
        col = indices[0];
        if (me == 0) w.settled[col] = 1;
        __syncthreads();
        if (w.row_of_col[col] < 0) break;
        at = w.row_of_col[col];
      }
      for (int64_t j = me; j < p.m; j += blockDim.x) {
        if (!w.settled[j]) continue;
        const double slack = reached - w.distance[j];
        w.col_dual[j] -= slack;
        if (w.row_of_col[j] >= 0) w.row_dual[w.row_of_col[j]] += slack;
      }
      __syncthreads();
      if (me == 0) {
        w.row_dual[row] += reached;
        for (int64_t i = -1; i != row;) {
          i = w.parent[col];
          w.row_of_col[col] = i;
          const int64_t next = w.col_of_row[i];
          w.col_of_row[i] = col;
          col = next;
        }
      }
      __syncthreads();
    }
    int64_t* of_rows = flipped ? row_of_col + b * s.cols : col_of_row + b * s.rows;
    int64_t* of_cols = flipped ? col_of_row + b * s.rows : row_of_col + b * s.cols;
    for (int64_t i = me; i < p.n; i += blockDim.x) {
      const int64_t j = w.col_of_row[i];
      of_rows[i] = p.allowed(i, j) ? j : -1;
    }
    for (int64_t j = me; j < p.m; j += blockDim.x) {
      const int64_t i = w.row_of_col[j];
      of_cols[j] = i >= 0 && p.allowed(i, j) ? i : -1;
    }
    __syncthreads();
  }
}

}  // namespace

int64_t linear_assignment_workspace(const Assignment& s) {
  const int64_t n = s.rows < s.cols ? s.rows : s.cols, m = s.rows < s.cols ? s.cols : s.rows;
  return s.problems * scratch_words(n, m) * 8;
}

void linear_assignment_cuda(
    DType dtype, const Assignment& s, const void* cost, const bool* row_valid, const bool* col_valid, int64_t* col_of_row,
    int64_t* row_of_col, void* workspace, void* stream) {
  if (s.rows * s.cols == 0) {
    const auto queue = static_cast<cudaStream_t>(stream);
    if (s.problems * s.rows > 0) cudaMemsetAsync(col_of_row, 0xff, static_cast<size_t>(s.problems * s.rows) * 8, queue);
    if (s.problems * s.cols > 0) cudaMemsetAsync(row_of_col, 0xff, static_cast<size_t>(s.problems * s.cols) * 8, queue);
    return;
  }
  if (s.problems == 0) return;
  DETC_DISPATCH_FLOATING(dtype, T, {
    DETC_LAUNCH(
        assignment_kernel<T>, s.problems < 65535 ? s.problems : 65535, kThreads, stream, s, static_cast<const T*>(cost), row_valid,
        col_valid, col_of_row, row_of_col, static_cast<int64_t*>(workspace));
  });
}

}  // namespace detc
