// Batched rectangular bipartite matching by shortest augmenting paths (Jonker and Volgenant 1987; Crouse 2016), in float64.
#pragma once

#include <cstdint>

#include "scalar.h"

namespace detc {

struct Assignment {
  int64_t problems, rows, cols;
};

inline constexpr double kCostLimit = 1e150;  // costs beyond it, and NaN, forbid a pair

// cost [B,N,M], row_valid [B,N] and col_valid [B,M] or null -> col_of_row [B,N] and row_of_col [B,M], -1 where unmatched. As many pairs
// as are allowed are matched, then the cheapest. CPU and CUDA do the same arithmetic in the same order, and ties go to the lower index.
// CPU: float32 and float64.
void linear_assignment_cpu(
    DType dtype, const Assignment& size, const void* cost, const bool* row_valid, const bool* col_valid, int64_t* col_of_row,
    int64_t* row_of_col);
// All four dtypes. One block a problem; nothing goes through the host.
void linear_assignment_cuda(
    DType dtype, const Assignment& size, const void* cost, const bool* row_valid, const bool* col_valid, int64_t* col_of_row,
    int64_t* row_of_col, void* workspace, void* stream);
int64_t linear_assignment_workspace(const Assignment& size);

}  // namespace detc
