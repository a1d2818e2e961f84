// detc-flags: -ffp-contract=off
#include "linear_assignment.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "layout.h"
#include "simd.h"

namespace detc {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr int kWide = kLanes<double>;

// One problem, turned so that n <= m. Rows are inserted one by one; every insertion searches a shortest path to a free column.
class Solver {
 public:
  std::vector<int64_t> col_of_row, row_of_col;

  // `forbidden` entries of `cost` [n, m] hold NaN.
  void solve(std::vector<double>& cost, int64_t n, int64_t m) {
    n_ = n;
    m_ = m;
    padded_ = round_up(m, kWide);
    price_forbidden(cost);
    const size_t rows = static_cast<size_t>(n), cols = static_cast<size_t>(padded_);
    row_dual_.assign(rows, 0.0);
    col_dual_.assign(cols, 0.0);
    distance_.resize(cols);
    parent_.resize(cols);
    open_.resize(cols);
    col_of_row.assign(rows, -1);
    row_of_col.assign(cols, -1);
    for (int64_t row = 0; row < n; ++row) insert(cost.data(), row);
  }

 private:
  // A forbidden pair costs more than any matching of allowed ones, so the number of allowed pairs comes first.
  void price_forbidden(std::vector<double>& cost) {
    double low = kInf, high = -kInf;
    for (double c : cost) {
      low = c < low ? c : low;
      high = c > high ? c : high;
    }
    const bool any = high >= low;
    const double price = (any ? high : 0.0) + ((any ? high - low : 0.0) + 1.0) * static_cast<double>(n_);
    std::vector<double> rows(static_cast<size_t>(n_ * padded_), price);
    for (int64_t i = 0; i < n_; ++i)
      for (int64_t j = 0; j < m_; ++j)
        if (!std::isnan(cost[i * m_ + j])) rows[i * padded_ + j] = cost[i * m_ + j];
    cost.swap(rows);
  }

  void insert(const double* cost, int64_t row) {
    std::fill(distance_.begin(), distance_.end(), kInf);
    std::fill(open_.begin(), open_.begin() + m_, int64_t{-1});
    std::fill(open_.begin() + m_, open_.end(), int64_t{0});
    settled_.clear();
    double reached = 0;
    int64_t at = row, col = -1;
    for (;;) {
      const double nearest = relax(cost + at * padded_, reached, at);
      col = first_at(nearest);
      reached = nearest;
      open_[col] = 0;
      settled_.push_back(col);
      if (row_of_col[col] < 0) break;
      at = row_of_col[col];
    }
    for (const int64_t j : settled_) {
      const double slack = reached - distance_[j];
      col_dual_[j] -= slack;
      if (row_of_col[j] >= 0) row_dual_[row_of_col[j]] += slack;
    }
    row_dual_[row] += reached;
    for (int64_t i = -1; i != row;) {
      i = parent_[col];
      row_of_col[col] = i;
      std::swap(col, col_of_row[i]);
    }
  }

  // Relaxes every open column from row `at`; returns the smallest distance of an open column.
  double relax(const double* cost, double reached, int64_t at) {
    using Mask = vec<int64_t>;
    const vec<double> base = vset(reached), dual = vset(row_dual_[at]), inf = vset(kInf);
    const Mask from = Mask{} + at;
    vec<double> least = inf;
    for (int64_t j = 0; j < padded_; j += kWide) {
      const vec<double> reduced = base + vload(cost + j) - dual - vload(&col_dual_[j]);
      const vec<double> before = vload(&distance_[j]);
      const Mask open = vload(&open_[j]);
      const Mask closer = open & (reduced < before);
      const vec<double> now = closer ? reduced : before;
      vstore(&distance_[j], now);
      vstore(&parent_[j], closer ? from : vload(&parent_[j]));
      const vec<double> candidate = open ? now : inf;
      least = candidate < least ? candidate : least;
    }
    double nearest = kInf;
    for (int i = 0; i < kWide; ++i) nearest = least[i] < nearest ? least[i] : nearest;
    return nearest;
  }

  int64_t first_at(double nearest) const {
    for (int64_t j = 0; j < m_; ++j)
      if (open_[j] && distance_[j] == nearest) return j;
    return 0;  // unreachable: costs are finite
  }

  int64_t n_ = 0, m_ = 0, padded_ = 0;
  std::vector<double> row_dual_, col_dual_, distance_;
  std::vector<int64_t> parent_, open_, settled_;
};

template <class T>
void assign(const Assignment& s, const T* cost, const bool* row_valid, const bool* col_valid, int64_t* col_of_row, int64_t* row_of_col) {
  const int64_t N = s.rows, M = s.cols;
  parallel_for(s.problems, grain_for(4 * N * M), [=](int64_t begin, int64_t end) {
    Solver solver;
    std::vector<double> table;
    for (int64_t b = begin; b < end; ++b) {
      const T* c = cost + b * N * M;
      const bool flipped = N > M;
      table.resize(static_cast<size_t>(N * M));
      const auto allowed = [&](int64_t i, int64_t j) {
        const double value = static_cast<double>(c[i * M + j]);
        return std::abs(value) <= kCostLimit && (!row_valid || row_valid[b * N + i]) && (!col_valid || col_valid[b * M + j]);
      };
      for (int64_t i = 0; i < N; ++i)
        for (int64_t j = 0; j < M; ++j)
          table[flipped ? j * N + i : i * M + j] = allowed(i, j) ? static_cast<double>(c[i * M + j]) : std::nan("");
      solver.solve(table, std::min(N, M), std::max(N, M));
      const auto& cols = flipped ? solver.row_of_col : solver.col_of_row;
      const auto& rows = flipped ? solver.col_of_row : solver.row_of_col;
      for (int64_t i = 0; i < N; ++i) col_of_row[b * N + i] = cols[i] >= 0 && allowed(i, cols[i]) ? cols[i] : -1;
      for (int64_t j = 0; j < M; ++j) row_of_col[b * M + j] = rows[j] >= 0 && allowed(rows[j], j) ? rows[j] : -1;
    }
  });
}

}  // namespace

void linear_assignment_cpu(
    DType dtype, const Assignment& s, const void* cost, const bool* row_valid, const bool* col_valid, int64_t* col_of_row,
    int64_t* row_of_col) {
  if (s.rows * s.cols == 0) {
    std::fill(col_of_row, col_of_row + s.problems * s.rows, int64_t{-1});
    std::fill(row_of_col, row_of_col + s.problems * s.cols, int64_t{-1});
    return;
  }
  DETC_DISPATCH_WIDE(dtype, T, { assign(s, static_cast<const T*>(cost), row_valid, col_valid, col_of_row, row_of_col); });
}

}  // namespace detc
