#include "../kernels/focal_loss.h"

#include "common.h"

namespace detc::binding {
namespace {

FocalKind kind_of(const std::string& name) {
  if (name == "focal") return FocalKind::focal;
  if (name == "quality") return FocalKind::quality;
  if (name == "varifocal") return FocalKind::varifocal;
  if (name == "varifocal_detached") return FocalKind::varifocal_detached;
  STD_TORCH_CHECK(false, "focal_loss: unknown kind ", name);
  return FocalKind::focal;
}

// Contiguous inputs, kept alive for as long as the arguments point into them.
struct Prepared {
  Tensor logits, targets;
  std::optional<Tensor> weights;
  FocalArgs args{};

  Prepared(const Tensor& logits_in, const Tensor& targets_in, const std::optional<Tensor>& weights_in,
           const std::string& kind, double alpha, double gamma)
      : logits(dense(logits_in)), targets(dense(targets_in)), weights(dense(weights_in)) {
    STD_TORCH_CHECK(logits.dim() >= 1, "focal_loss: logits must be [..., C]");
    const int64_t rank = logits.dim();
    args.dtype = dtype_of(logits, "focal_loss: logits");
    args.kind = kind_of(kind);
    args.classes = logits.size(rank - 1);
    args.rows = args.classes > 0 ? logits.numel() / args.classes : 0;
    args.alpha = alpha;
    args.gamma = gamma;
    args.logits = data(logits);
    if (targets.scalar_type() == ScalarType::Long) {
      STD_TORCH_CHECK(targets.numel() == args.rows || args.classes == 0,
                      "focal_loss: labels must be [...], the logits' shape without the classes");
      args.labels = data_as<int64_t>(targets);
    } else {
      STD_TORCH_CHECK(targets.numel() == logits.numel() && targets.scalar_type() == logits.scalar_type(),
                      "focal_loss: targets must have the logits' shape and dtype, or be int64 labels");
      args.targets = data(targets);
    }
    if (weights.has_value()) {
      STD_TORCH_CHECK(
          (weights->numel() == args.rows || args.classes == 0) && weights->scalar_type() == logits.scalar_type(),
          "focal_loss: weights must be [...], the logits' shape without the classes, and of their dtype");
      args.weights = data(*weights);
    }
  }
};

// Sums of 16-bit losses are float32.
ScalarType sum_type(DType dtype) { return dtype == DType::f64 ? ScalarType::Double : ScalarType::Float; }

Tensor forward_cpu(Tensor logits, Tensor targets, std::optional<Tensor> weights, std::string kind, double alpha,
                   double gamma, bool sum) {
  Prepared in(logits, targets, weights, kind, alpha, gamma);
  if (!sum) {
    Tensor loss = empty_as(in.logits);
    in.args.loss = loss.mutable_data_ptr();
    if (loss.numel() > 0) focal_loss_cpu(in.args);
    return loss;
  }
  double total = 0;
  in.args.sum = &total;
  if (in.logits.numel() > 0) focal_loss_cpu(in.args);
  return torch::stable::fill_(empty(in.logits, {}, sum_type(in.args.dtype)), total);
}

// The gradient of a sum arrives as one number expanded to a shape: then nothing is copied.
bool is_one_number(const Tensor& grad) {
  if (grad.numel() == 1) return true;
  for (int64_t d = 0; d < grad.dim(); ++d)
    if (grad.size(d) != 1 && grad.stride(d) != 0) return false;
  return grad.numel() > 0;
}

template <class Run>
Tensor backward(const Tensor& grad_in, const Tensor& logits, const Tensor& targets,
                const std::optional<Tensor>& weights, const std::string& kind, double alpha, double gamma,
                const Run& run) {
  Prepared in(logits, targets, weights, kind, alpha, gamma);
  const bool one = is_one_number(grad_in) && grad_in.scalar_type() == sum_type(in.args.dtype);
  const Tensor grad = one ? grad_in : dense(grad_in);
  STD_TORCH_CHECK(one || (grad.scalar_type() == in.logits.scalar_type() && grad.numel() == in.logits.numel()),
                  "focal_loss_backward: the gradient must have the logits' dtype and shape, or be one float");
  Tensor out = empty_as(in.logits);
  in.args.grad = data(grad);
  in.args.grad_is_one = one;
  in.args.grad_logits = out.mutable_data_ptr();
  if (out.numel() > 0) run(in.args, in.logits);
  return out;
}

Tensor backward_cpu(Tensor grad, Tensor logits, Tensor targets, std::optional<Tensor> weights, std::string kind,
                    double alpha, double gamma) {
  return backward(grad, logits, targets, weights, kind, alpha, gamma,
                  [](const FocalArgs& args, const Tensor&) { focal_loss_backward_cpu(args); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CPU, m) {
  m.impl("focal_loss", TORCH_BOX(&forward_cpu));
  m.impl("focal_loss_backward", TORCH_BOX(&backward_cpu));
}

#ifdef DETC_WITH_CUDA
namespace {

Tensor forward_cuda(Tensor logits, Tensor targets, std::optional<Tensor> weights, std::string kind, double alpha,
                    double gamma, bool sum) {
  Prepared in(logits, targets, weights, kind, alpha, gamma);
  const CudaScope scope(in.logits);
  if (!sum) {
    Tensor loss = empty_as(in.logits);
    in.args.loss = loss.mutable_data_ptr();
    if (loss.numel() > 0) focal_loss_cuda(in.args, nullptr, scope.stream());
    return loss;
  }
  Tensor total = zeros(in.logits, {}, ScalarType::Double);
  if (in.logits.numel() > 0) {
    Tensor workspace = empty_bytes(in.logits, focal_loss_cuda_workspace());
    in.args.sum = mutable_as<double>(total);
    focal_loss_cuda(in.args, workspace.mutable_data_ptr(), scope.stream());
  }
  return torch::stable::to(total, sum_type(in.args.dtype));
}

Tensor backward_cuda(Tensor grad, Tensor logits, Tensor targets, std::optional<Tensor> weights, std::string kind,
                     double alpha, double gamma) {
  return backward(grad, logits, targets, weights, kind, alpha, gamma, [](const FocalArgs& args, const Tensor& like) {
    const CudaScope scope(like);
    focal_loss_backward_cuda(args, scope.stream());
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CUDA, m) {
  m.impl("focal_loss", TORCH_BOX(&forward_cuda));
  m.impl("focal_loss_backward", TORCH_BOX(&backward_cuda));
}
#endif

}  // namespace detc::binding
