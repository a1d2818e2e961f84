// For ops whose CPU kernels know float32 and float64 only: 16-bit inputs are widened, results narrowed.
#pragma once

#include "common.h"

namespace detc::binding {

inline bool is_narrow(ScalarType type) { return type == ScalarType::Half || type == ScalarType::BFloat16; }

// Contiguous, in float32 when it was of 16 bits.
inline Tensor widened(const Tensor& tensor) {
  if (!is_narrow(tensor.scalar_type())) return dense(tensor);
  return dense(torch::stable::to(tensor, ScalarType::Float));
}
inline std::optional<Tensor> widened(const std::optional<Tensor>& tensor) {
  if (!tensor.has_value()) return std::nullopt;
  return widened(*tensor);
}

inline Tensor narrowed(const Tensor& result, ScalarType type) {
  return result.scalar_type() == type ? result : torch::stable::to(result, type);
}

inline std::vector<int64_t> sizes_of(const Tensor& tensor) {
  std::vector<int64_t> sizes;
  for (int64_t i = 0; i < tensor.dim(); ++i) sizes.push_back(tensor.size(i));
  return sizes;
}

inline void* mutable_data(const Tensor& tensor) { return tensor.mutable_data_ptr(); }

}  // namespace detc::binding
