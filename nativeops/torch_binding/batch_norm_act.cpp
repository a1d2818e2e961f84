#include "../kernels/batch_norm_act.h"

#include "common.h"

namespace detc::binding {
namespace {

using torch::headeronly::MemoryFormat;

bool is_channels_last(const Tensor& x) {
  int64_t step = 1;
  for (const int64_t d : {1, 3, 2, 0}) {
    if (x.size(d) != 1 && x.stride(d) != step) return false;
    step *= x.size(d);
  }
  return true;
}

// In one of the two orders that the kernel knows; a map with gaps in the order that it has.
Tensor in_order(const Tensor& x) {
  if (x.is_contiguous() || is_channels_last(x)) return x;
  const bool neighbours = x.size(1) > 1 && x.stride(1) == 1;
  return torch::stable::contiguous(x, neighbours ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

// Not initialised, in x's order; `empty` gives channels first.
Tensor same_order(const Tensor& x) {
  Tensor out = torch::stable::empty_like(x);
  prefer_huge_pages(out.mutable_data_ptr(), out.numel() * static_cast<int64_t>(out.element_size()));
  return out;
}

ScalarType statistics_of(const Tensor& x) { return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float; }

void check_vector(const Tensor& v, const Tensor& x, const char* name) {
  STD_TORCH_CHECK(
      v.dim() == 1 && v.size(0) == x.size(1) && v.scalar_type() == statistics_of(x), "batch_norm_act: ", name,
      " must be [C], float64 if x is so, else float32");
}

BatchNormAct norm_of(const Tensor& x, double eps, int64_t activation, double slope) {
  STD_TORCH_CHECK(activation >= 0 && activation <= static_cast<int64_t>(Activation::hardswish), "batch_norm_act: unknown activation");
  return {x.size(0), x.size(1), x.size(2) * x.size(3), !x.is_contiguous(), eps, static_cast<Activation>(activation), slope};
}

std::tuple<Tensor, Tensor, Tensor> on_cpu(Tensor x, Tensor weight, Tensor bias, double eps, int64_t activation, double slope) {
  STD_TORCH_CHECK(x.dim() == 4, "batch_norm_act: x must be [N, C, H, W]");
  check_vector(weight, x, "weight"), check_vector(bias, x, "bias");
  x = in_order(x), weight = dense(weight), bias = dense(bias);
  Tensor out = same_order(x), mean = zeros(weight, {x.size(1)}), var = zeros(weight, {x.size(1)});
  batch_norm_act_cpu(
      dtype_of(x, "batch_norm_act: x"), norm_of(x, eps, activation, slope), data(x), data(weight), data(bias), out.mutable_data_ptr(),
      mean.mutable_data_ptr(), var.mutable_data_ptr());
  return {out, mean, var};
}

std::tuple<Tensor, Tensor, Tensor> backward_on_cpu(
    Tensor grad, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor var, double eps, int64_t activation, double slope) {
  STD_TORCH_CHECK(x.dim() == 4 && grad.dim() == 4 && grad.scalar_type() == x.scalar_type(), "batch_norm_act: x and grad must be [N, C, H, W] of one dtype");
  for (int64_t d = 0; d < 4; ++d) STD_TORCH_CHECK(grad.size(d) == x.size(d), "batch_norm_act: x and grad must have one shape");
  check_vector(weight, x, "weight"), check_vector(bias, x, "bias"), check_vector(mean, x, "mean"), check_vector(var, x, "var");
  x = in_order(x), weight = dense(weight), bias = dense(bias), mean = dense(mean), var = dense(var);
  const auto norm = norm_of(x, eps, activation, slope);
  if (norm.channels_last ? !is_channels_last(grad) : !grad.is_contiguous())
    grad = torch::stable::contiguous(grad, norm.channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
  Tensor grad_x = same_order(x), grad_weight = zeros(weight, {x.size(1)}), grad_bias = zeros(weight, {x.size(1)});
  batch_norm_act_backward_cpu(
      dtype_of(x, "batch_norm_act: x"), norm, data(grad), data(x), data(weight), data(bias), data(mean), data(var), grad_x.mutable_data_ptr(),
      grad_weight.mutable_data_ptr(), grad_bias.mutable_data_ptr());
  return {grad_x, grad_weight, grad_bias};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CPU, m) {
  m.impl("batch_norm_act", TORCH_BOX(&on_cpu));
  m.impl("batch_norm_act_backward", TORCH_BOX(&backward_on_cpu));
}

}  // namespace detc::binding
