#include "../kernels/linear_assignment.h"

#include "common.h"

namespace detc::ort {
namespace {

// Inputs: cost [B, N, M], row_valid [B, N], col_valid [B, M]. Outputs: the column of each row, the row of each column.
class LinearAssignment {
 public:
  explicit LinearAssignment(const Attributes&) {}

  void compute(Context& context) const {
    const Tensor cost = context.input(0), rows = context.input(1), cols = context.input(2);
    require(cost.shape.size() == 3, "LinearAssignment: cost must be [B, N, M]");
    const Assignment s{cost.size(0), cost.size(1), cost.size(2)};
    const Shape row_size{s.problems, s.rows}, col_size{s.problems, s.cols};
    require(rows.shape == row_size && cols.shape == col_size,
            "LinearAssignment: row_valid must be [B, N] and col_valid [B, M]");
    int64_t* col_of_row = context.output<int64_t>(0, row_size);
    int64_t* row_of_col = context.output<int64_t>(1, col_size);
    if (size_of(row_size) + size_of(col_size) == 0) return;
#ifdef DETC_WITH_CUDA
    if (context.on_cuda()) {
      linear_assignment_cuda(DType::f32, s, cost.data, rows.as<bool>(), cols.as<bool>(), col_of_row, row_of_col,
                             context.workspace(linear_assignment_workspace(s)), context.stream());
      return;
    }
#endif
    linear_assignment_cpu(DType::f32, s, cost.data, rows.as<bool>(), cols.as<bool>(), col_of_row, row_of_col);
  }
};

const bool added = add<LinearAssignment>("LinearAssignment", {kFloat, kBool, kBool}, {kInt64, kInt64});

}  // namespace
}  // namespace detc::ort
