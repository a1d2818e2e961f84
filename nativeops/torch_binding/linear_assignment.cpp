#include "../kernels/linear_assignment.h"

#include "wide.h"

namespace detc::binding {
namespace {

Assignment size_of(const Tensor& cost, const std::optional<Tensor>& row_valid, const std::optional<Tensor>& col_valid) {
  STD_TORCH_CHECK(cost.dim() == 3, "linear_assignment: cost must be [B, N, M]");
  const auto fits = [&](const std::optional<Tensor>& valid, int64_t n) {
    return !valid.has_value() ||
           (valid->scalar_type() == ScalarType::Bool && valid->dim() == 2 && valid->size(0) == cost.size(0) && valid->size(1) == n);
  };
  STD_TORCH_CHECK(
      fits(row_valid, cost.size(1)) && fits(col_valid, cost.size(2)), "linear_assignment: row_valid must be bool [B, N], col_valid [B, M]");
  return {cost.size(0), cost.size(1), cost.size(2)};
}

std::tuple<Tensor, Tensor> assign_on_cpu(Tensor cost, std::optional<Tensor> row_valid, std::optional<Tensor> col_valid) {
  const auto s = size_of(cost, row_valid, col_valid);
  cost = widened(cost), row_valid = dense(row_valid), col_valid = dense(col_valid);
  Tensor cols = empty(cost, {s.problems, s.rows}, ScalarType::Long), rows = empty(cost, {s.problems, s.cols}, ScalarType::Long);
  linear_assignment_cpu(
      dtype_of(cost, "cost"), s, data(cost), static_cast<const bool*>(data(row_valid)), static_cast<const bool*>(data(col_valid)),
      mutable_as<int64_t>(cols), mutable_as<int64_t>(rows));
  return {cols, rows};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CPU, m) { m.impl("linear_assignment", TORCH_BOX(&assign_on_cpu)); }

#ifdef DETC_WITH_CUDA
namespace {
std::tuple<Tensor, Tensor> assign_on_cuda(Tensor cost, std::optional<Tensor> row_valid, std::optional<Tensor> col_valid) {
  const auto s = size_of(cost, row_valid, col_valid);
  const CudaScope scope(cost);
  cost = dense(cost), row_valid = dense(row_valid), col_valid = dense(col_valid);
  Tensor cols = empty(cost, {s.problems, s.rows}, ScalarType::Long), rows = empty(cost, {s.problems, s.cols}, ScalarType::Long);
  Tensor workspace = empty_bytes(cost, linear_assignment_workspace(s));
  linear_assignment_cuda(
      dtype_of(cost, "cost"), s, data(cost), static_cast<const bool*>(data(row_valid)), static_cast<const bool*>(data(col_valid)),
      mutable_as<int64_t>(cols), mutable_as<int64_t>(rows), mutable_data(workspace), scope.stream());
  return {cols, rows};
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CUDA, m) { m.impl("linear_assignment", TORCH_BOX(&assign_on_cuda)); }
#endif

}  // namespace detc::binding
