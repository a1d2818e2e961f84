#include "../kernels/max_iou_assign.h"

#include "common.h"

namespace detc::binding {
namespace {

LowQuality low_quality_of(const std::string& name) {
  if (name == "none") return LowQuality::none;
  if (name == "truth") return LowQuality::truth;
  if (name == "own") return LowQuality::own;
  STD_TORCH_CHECK(false, "max_iou_assign: unknown low_quality ", name);
  return LowQuality::none;
}

template <class Run>
std::tuple<Tensor, Tensor> assign(const Tensor& boxes_in, const Tensor& truths_in, const Tensor& valid_in,
                                  double positive, double negative, double min_positive, const std::string& low_quality,
                                  const Run& run) {
  const Tensor boxes = dense(boxes_in), truths = dense(truths_in), valid = dense(valid_in);
  STD_TORCH_CHECK(truths.dim() == 3 && truths.size(2) == 4, "max_iou_assign: truths must be [B, G, 4]");
  MaxIouAssignArgs args{};
  args.batch = truths.size(0);
  args.g = truths.size(1);
  args.shared_boxes = boxes.dim() == 2;
  const int64_t rank = boxes.dim();
  STD_TORCH_CHECK((rank == 2 || (rank == 3 && boxes.size(0) == args.batch)) && boxes.size(rank - 1) == 4 &&
                      boxes.scalar_type() == truths.scalar_type(),
                  "max_iou_assign: boxes must be [N, 4] or [B, N, 4], of the truths' dtype");
  STD_TORCH_CHECK(valid.dim() == 2 && valid.size(0) == args.batch && valid.size(1) == args.g &&
                      valid.scalar_type() == ScalarType::Bool,
                  "max_iou_assign: valid must be bool [B, G]");
  args.dtype = dtype_of(boxes, "max_iou_assign: boxes");
  args.n = boxes.size(rank - 2);
  args.boxes = data(boxes);
  args.truths = data(truths);
  args.valid = data_as<bool>(valid);
  args.positive = positive;
  args.negative = negative;
  args.min_positive = min_positive;
  args.low_quality = low_quality_of(low_quality);
  Tensor index = empty(boxes, {args.batch, args.n}, ScalarType::Long), iou = empty(boxes, {args.batch, args.n});
  args.index = mutable_as<int64_t>(index);
  args.iou = iou.mutable_data_ptr();
  if (index.numel() > 0) run(args, boxes);
  return {index, iou};
}

std::tuple<Tensor, Tensor> assign_cpu(Tensor boxes, Tensor truths, Tensor valid, double positive, double negative,
                                      double min_positive, std::string low_quality) {
  return assign(boxes, truths, valid, positive, negative, min_positive, low_quality,
                [](const MaxIouAssignArgs& args, const Tensor&) { max_iou_assign_cpu(args); });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CPU, m) { m.impl("max_iou_assign", TORCH_BOX(&assign_cpu)); }

#ifdef DETC_WITH_CUDA
namespace {
std::tuple<Tensor, Tensor> assign_cuda(Tensor boxes, Tensor truths, Tensor valid, double positive, double negative,
                                       double min_positive, std::string low_quality) {
  return assign(boxes, truths, valid, positive, negative, min_positive, low_quality,
                [](const MaxIouAssignArgs& args, const Tensor& like) {
                  const CudaScope scope(like);
                  Tensor workspace = empty_bytes(like, max_iou_assign_cuda_workspace(args));
                  max_iou_assign_cuda(args, workspace.mutable_data_ptr(), scope.stream());
                });
}
}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CUDA, m) { m.impl("max_iou_assign", TORCH_BOX(&assign_cuda)); }
#endif

}  // namespace detc::binding
