#include "../kernels/nms.h"

#include "common.h"

namespace detc::binding {
namespace {

using Results = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

NmsMethod method_of(const std::string& name) {
  if (name == "hard") return NmsMethod::hard;
  if (name == "soft_linear") return NmsMethod::soft_linear;
  if (name == "soft_gaussian") return NmsMethod::soft_gaussian;
  if (name == "matrix_linear") return NmsMethod::matrix_linear;
  if (name == "matrix_gaussian") return NmsMethod::matrix_gaussian;
  STD_TORCH_CHECK(false, "batched_nms: unknown method ", name);
  return NmsMethod::hard;
}

// Everything but the call of the kernel, which differs by device.
template <class Run>
Results batched_nms(const Tensor& boxes_in, const Tensor& scores_in, const std::optional<Tensor>& labels_in,
                    double iou_threshold, double score_threshold, int64_t keep, int64_t pre_topk, bool class_agnostic,
                    const std::string& method, double sigma, double min_score, const Run& run) {
  const Tensor boxes = dense(boxes_in), scores = dense(scores_in);
  const std::optional<Tensor> labels = dense(labels_in);
  STD_TORCH_CHECK(boxes.dim() == 3 && (boxes.size(2) == 4 || boxes.size(2) == 5),
                  "batched_nms: boxes must be [B, N, 4], or [B, N, 5] when rotated");
  STD_TORCH_CHECK(scores.dim() == 3 && scores.size(0) == boxes.size(0) && scores.size(1) == boxes.size(1),
                  "batched_nms: scores must be [B, N, C]");
  STD_TORCH_CHECK(scores.scalar_type() == boxes.scalar_type(), "batched_nms: boxes and scores must have one dtype");
  STD_TORCH_CHECK(boxes.size(1) * scores.size(2) < (int64_t{1} << 32), "batched_nms: N * C must be below 2^32");
  STD_TORCH_CHECK(keep >= 0 && pre_topk >= 0, "batched_nms: keep and pre_topk must not be negative");
  if (labels.has_value()) {
    STD_TORCH_CHECK(scores.size(2) == 1 && labels->dim() == 2 && labels->size(0) == boxes.size(0) &&
                        labels->size(1) == boxes.size(1) && labels->scalar_type() == ScalarType::Long,
                    "batched_nms: labels must be int64 [B, N] and scores then [B, N, 1]");
  }
  const int64_t B = boxes.size(0);
  Tensor out_boxes = empty(boxes, {B, keep, boxes.size(2)}), out_scores = empty(boxes, {B, keep});
  Tensor out_labels = empty(boxes, {B, keep}, ScalarType::Long), out_index = empty(boxes, {B, keep}, ScalarType::Long);
  Tensor out_valid = empty(boxes, {B, keep}, ScalarType::Bool);
  NmsArgs args{};
  args.dtype = dtype_of(boxes, "batched_nms: boxes");
  args.rotated = boxes.size(2) == 5;
  args.boxes = data(boxes);
  args.scores = data(scores);
  args.labels = static_cast<const int64_t*>(data(labels));
  args.batch = B;
  args.num_boxes = boxes.size(1);
  args.num_classes = scores.size(2);
  args.score_threshold = score_threshold;
  args.iou_threshold = iou_threshold;
  args.sigma = sigma;
  args.min_score = min_score;
  args.pre_topk = pre_topk;
  args.keep = keep;
  args.class_agnostic = class_agnostic;
  args.method = method_of(method);
  args.out_boxes = out_boxes.mutable_data_ptr();
  args.out_scores = out_scores.mutable_data_ptr();
  args.out_labels = mutable_as<int64_t>(out_labels);
  args.out_index = mutable_as<int64_t>(out_index);
  args.out_valid = mutable_as<bool>(out_valid);
  if (B > 0 && keep > 0) run(args, boxes);
  return {out_boxes, out_scores, out_labels, out_index, out_valid};
}

Results batched_nms_on_cpu(const Tensor& boxes, const Tensor& scores, const std::optional<Tensor>& labels,
                           double iou_threshold, double score_threshold, int64_t keep, int64_t pre_topk,
                           bool class_agnostic, std::string method, double sigma, double min_score) {
  return batched_nms(boxes, scores, labels, iou_threshold, score_threshold, keep, pre_topk, class_agnostic, method,
                     sigma, min_score, [](const NmsArgs& args, const Tensor&) { batched_nms_cpu(args); });
}

void check_plain(const Tensor& boxes, const Tensor& scores) {
  STD_TORCH_CHECK(boxes.dim() == 2 && (boxes.size(1) == 4 || boxes.size(1) == 5),
                  "nms: boxes must be [N, 4], or [N, 5] when rotated");
  STD_TORCH_CHECK(scores.dim() == 1 && scores.size(0) == boxes.size(0), "nms: scores must be [N]");
  STD_TORCH_CHECK(scores.scalar_type() == boxes.scalar_type(), "nms: boxes and scores must have one dtype");
  STD_TORCH_CHECK(boxes.size(0) < (int64_t{1} << 32), "nms: N must be below 2^32");
}

Tensor nms_on_cpu(const Tensor& boxes_in, const Tensor& scores_in, double iou_threshold) {
  check_plain(boxes_in, scores_in);
  const Tensor boxes = dense(boxes_in), scores = dense(scores_in);
  const int64_t n = boxes.size(0);
  std::vector<int64_t> kept(n);
  const int64_t count = n > 0 ? nms_cpu(dtype_of(boxes, "nms: boxes"), boxes.size(1) == 5, data(boxes), data(scores), n,
                                        iou_threshold, kept.data())
                              : 0;
  Tensor out = empty(boxes, {count}, ScalarType::Long);
  if (count > 0) std::memcpy(out.mutable_data_ptr(), kept.data(), count * sizeof(int64_t));
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CPU, m) {
  m.impl("batched_nms", TORCH_BOX(&batched_nms_on_cpu));
  m.impl("nms", TORCH_BOX(&nms_on_cpu));
}

#ifdef DETC_WITH_CUDA
namespace {

Results batched_nms_on_cuda(const Tensor& boxes, const Tensor& scores, const std::optional<Tensor>& labels,
                            double iou_threshold, double score_threshold, int64_t keep, int64_t pre_topk,
                            bool class_agnostic, std::string method, double sigma, double min_score) {
  return batched_nms(boxes, scores, labels, iou_threshold, score_threshold, keep, pre_topk, class_agnostic, method,
                     sigma, min_score, [](const NmsArgs& args, const Tensor& like) {
                       const CudaScope scope(like);
                       const int64_t bytes = batched_nms_cuda_workspace(args);
                       Tensor workspace = empty_bytes(like, bytes);
                       batched_nms_cuda(args, workspace.mutable_data_ptr(), bytes, scope.stream());
                     });
}

// The result's length depends on the data, so this one (like torchvision's) has to wait for the device.
Tensor nms_on_cuda(const Tensor& boxes_in, const Tensor& scores_in, double iou_threshold) {
  check_plain(boxes_in, scores_in);
  const Tensor boxes = dense(boxes_in), scores = dense(scores_in);
  const int64_t n = boxes.size(0);
  Tensor kept = empty(boxes, {n}, ScalarType::Long);
  if (n == 0) return kept;
  const CudaScope scope(boxes);
  const DType dtype = dtype_of(boxes, "nms: boxes");
  Tensor count = empty(boxes, {1}, ScalarType::Long);
  const int64_t bytes = nms_cuda_workspace(dtype, boxes.size(1) == 5, n);
  Tensor workspace = empty_bytes(boxes, bytes);
  nms_cuda(dtype, boxes.size(1) == 5, data(boxes), data(scores), n, iou_threshold, mutable_as<int64_t>(kept),
           mutable_as<int64_t>(count), workspace.mutable_data_ptr(), bytes, scope.stream());
  const Tensor on_host =
      torch::stable::to(count, std::nullopt, std::nullopt, torch::stable::Device(torch::headeronly::DeviceType::CPU));
  return torch::stable::narrow(kept, 0, 0, *data_as<int64_t>(on_host));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CUDA, m) {
  m.impl("batched_nms", TORCH_BOX(&batched_nms_on_cuda));
  m.impl("nms", TORCH_BOX(&nms_on_cuda));
}
#endif

}  // namespace detc::binding
