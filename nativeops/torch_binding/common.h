// What every torch binding needs: the stable ABI, and the few conversions between its tensors and the kernels' raw
// pointers.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "../kernels/pages.h"
#include "../kernels/scalar.h"

#ifndef STABLE_TORCH_ERROR_CODE_CHECK  // its name in the headers of torch 2.10
#define STABLE_TORCH_ERROR_CODE_CHECK(call) TORCH_ERROR_CODE_CHECK(call)
#endif

namespace detc::binding {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline DType dtype_of(const Tensor& tensor, const char* name) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float: return DType::f32;
    case ScalarType::Double: return DType::f64;
    case ScalarType::Half: return DType::f16;
    case ScalarType::BFloat16: return DType::bf16;
    default: STD_TORCH_CHECK(false, name, " must be float32, float64, float16 or bfloat16"); return DType::f32;
  }
}

inline Tensor dense(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

inline std::optional<Tensor> dense(const std::optional<Tensor>& tensor) {
  if (!tensor.has_value()) return std::nullopt;
  return dense(*tensor);
}

// Uninitialised, on the device of `like`.
inline Tensor empty(const Tensor& like, std::vector<int64_t> size, std::optional<ScalarType> dtype = std::nullopt) {
  Tensor out = torch::stable::new_empty(like, size,
                                        dtype.has_value() ? dtype : std::optional<ScalarType>(like.scalar_type()));
  if (out.is_cpu()) prefer_huge_pages(out.mutable_data_ptr(), out.numel() * static_cast<int64_t>(out.element_size()));
  return out;
}

inline Tensor empty_as(const Tensor& like) {
  const auto sizes = like.sizes();
  return empty(like, std::vector<int64_t>(sizes.begin(), sizes.end()));
}

inline Tensor zeros(const Tensor& like, std::vector<int64_t> size, std::optional<ScalarType> dtype = std::nullopt) {
  Tensor out = empty(like, std::move(size), dtype);
  return torch::stable::zero_(out);
}

// Workspace for a kernel; at least one byte so that its pointer is never null.
inline Tensor empty_bytes(const Tensor& like, int64_t bytes) {
  return empty(like, {bytes > 0 ? bytes : 1}, ScalarType::Byte);
}

inline const void* data(const Tensor& tensor) { return tensor.const_data_ptr(); }
inline const void* data(const std::optional<Tensor>& tensor) {
  return tensor.has_value() ? tensor->const_data_ptr() : nullptr;
}
template <class T>
const T* data_as(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}
template <class T>
T* mutable_as(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// A backward can be called by hand, and its kernel trusts the gradient's size.
inline void check_gradient(const Tensor& grad, const std::vector<int64_t>& size, const Tensor& like, const char* op) {
  bool fits = grad.dim() == static_cast<int64_t>(size.size()) && grad.scalar_type() == like.scalar_type();
  for (size_t d = 0; fits && d < size.size(); ++d) fits = grad.size(static_cast<int64_t>(d)) == size[d];
  STD_TORCH_CHECK(fits, op, "_backward: the gradient must have the shape and dtype of the result");
}

}  // namespace detc::binding

#ifdef DETC_WITH_CUDA
// Weak, so that the library also loads under a torch without CUDA; reached only from CUDA kernels, which such a torch
// cannot dispatch to.
extern "C" AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** ret_stream)
    __attribute__((weak));

namespace detc::binding {
// Makes `tensor`'s device current for its lifetime and gives the stream that torch would launch on.
class CudaScope {
 public:
  explicit CudaScope(const Tensor& tensor) : guard_(tensor.get_device_index()) {
    STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream != nullptr, "this torch has no CUDA");
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream_));
  }
  void* stream() const { return stream_; }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  void* stream_ = nullptr;
};
}  // namespace detc::binding
#endif
