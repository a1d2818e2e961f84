#include "../kernels/box_iou.h"

#include "common.h"

namespace detc::binding {
namespace {

IouKind kind_of(const std::string& name) {
  if (name == "iou") return IouKind::iou;
  if (name == "giou") return IouKind::giou;
  if (name == "diou") return IouKind::diou;
  if (name == "ciou") return IouKind::ciou;
  STD_TORCH_CHECK(false, "box_iou: unknown kind ", name);
  return IouKind::iou;
}

BoxIouArgs make_args(const Tensor& a, const Tensor& b, const std::string& kind, bool aligned) {
  STD_TORCH_CHECK(a.dim() == 3 && b.dim() == 3 && a.size(2) == 4 && b.size(2) == 4 && a.size(0) == b.size(0) &&
                      a.scalar_type() == b.scalar_type(),
                  "box_iou: boxes must be [B, N, 4] and [B, M, 4] of one dtype");
  STD_TORCH_CHECK(!aligned || a.size(1) == b.size(1), "box_iou: aligned boxes must be as many on both sides");
  BoxIouArgs args{};
  args.dtype = dtype_of(a, "box_iou: boxes");
  args.kind = kind_of(kind);
  args.a = data(a);
  args.b = data(b);
  args.batch = a.size(0);
  args.n = a.size(1);
  args.m = b.size(1);
  args.aligned = aligned;
  return args;
}

template <class Run>
Tensor forward(const Tensor& a_in, const Tensor& b_in, const std::string& kind, bool aligned, const Run& run) {
  const Tensor a = dense(a_in), b = dense(b_in);
  BoxIouArgs args = make_args(a, b, kind, aligned);
  Tensor out = aligned ? empty(a, {args.batch, args.n}) : empty(a, {args.batch, args.n, args.m});
  args.out = out.mutable_data_ptr();
  if (out.numel() > 0) run(args, a);
  return out;
}

template <class Run>
std::tuple<Tensor, Tensor> backward(const Tensor& grad_in, const Tensor& a_in, const Tensor& b_in,
                                    const std::string& kind, bool aligned, const Run& run) {
  const Tensor grad = dense(grad_in), a = dense(a_in), b = dense(b_in);
  BoxIouArgs args = make_args(a, b, kind, aligned);
  STD_TORCH_CHECK(grad.scalar_type() == a.scalar_type() && grad.numel() == args.batch * args.n * (aligned ? 1 : args.m),
                  "box_iou_backward: the gradient must have the shape and dtype of the result");
  Tensor grad_a = empty_as(a), grad_b = empty_as(b);
  args.grad = data(grad);
  args.grad_a = grad_a.mutable_data_ptr();
  args.grad_b = grad_b.mutable_data_ptr();
  run(args, a);
  return {grad_a, grad_b};
}

Tensor forward_cpu(Tensor a, Tensor b, std::string kind, bool aligned) {
  return forward(a, b, kind, aligned, [](const BoxIouArgs& args, const Tensor&) { box_iou_cpu(args); });
}
std::tuple<Tensor, Tensor> backward_cpu(Tensor grad, Tensor a, Tensor b, std::string kind, bool aligned) {
  return backward(grad, a, b, kind, aligned, [](const BoxIouArgs& args, const Tensor&) { box_iou_backward_cpu(args); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CPU, m) {
  m.impl("box_iou", TORCH_BOX(&forward_cpu));
  m.impl("box_iou_backward", TORCH_BOX(&backward_cpu));
}

#ifdef DETC_WITH_CUDA
namespace {

Tensor forward_cuda(Tensor a, Tensor b, std::string kind, bool aligned) {
  return forward(a, b, kind, aligned, [](const BoxIouArgs& args, const Tensor& like) {
    const CudaScope scope(like);
    box_iou_cuda(args, scope.stream());
  });
}
std::tuple<Tensor, Tensor> backward_cuda(Tensor grad, Tensor a, Tensor b, std::string kind, bool aligned) {
  return backward(grad, a, b, kind, aligned, [](const BoxIouArgs& args, const Tensor& like) {
    const CudaScope scope(like);
    box_iou_backward_cuda(args, scope.stream());
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CUDA, m) {
  m.impl("box_iou", TORCH_BOX(&forward_cuda));
  m.impl("box_iou_backward", TORCH_BOX(&backward_cuda));
}
#endif

}  // namespace detc::binding
