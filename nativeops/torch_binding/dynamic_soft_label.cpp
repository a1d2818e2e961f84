#include "../kernels/dynamic_soft_label.h"

#include "common.h"

namespace detc::binding {
namespace {

void check(const Tensor& tensor, std::vector<int64_t> size, ScalarType dtype, const char* what) {
  bool fits = tensor.dim() == static_cast<int64_t>(size.size()) && tensor.scalar_type() == dtype;
  for (size_t d = 0; fits && d < size.size(); ++d) fits = tensor.size(d) == size[d];
  STD_TORCH_CHECK(fits, "dynamic_soft_label: ", what);
}

std::tuple<Tensor, Tensor> dynamic_soft_label_on_cpu(const Tensor& points_in, const Tensor& strides_in, const Tensor& logits_in, const Tensor& boxes_in,
                                                     const Tensor& truth_in, const Tensor& labels_in, const Tensor& valid_in, int64_t topk, double radius,
                                                     double iou_weight) {
  const Tensor points = dense(points_in), strides = dense(strides_in), logits = dense(logits_in), boxes = dense(boxes_in);
  const Tensor truth = dense(truth_in), labels = dense(labels_in), valid = dense(valid_in);
  STD_TORCH_CHECK(logits.dim() == 3 && logits.scalar_type() == ScalarType::Float, "dynamic_soft_label: logits must be float32 [B, N, C]");
  STD_TORCH_CHECK(truth.dim() == 3, "dynamic_soft_label: truth must be float32 [B, G, 4]");
  const int64_t B = logits.size(0), N = logits.size(1), G = truth.size(1);
  check(points, {N, 2}, ScalarType::Float, "points must be float32 [N, 2]");
  check(strides, {N}, ScalarType::Float, "strides must be float32 [N]");
  check(boxes, {B, N, 4}, ScalarType::Float, "boxes must be float32 [B, N, 4]");
  check(truth, {B, G, 4}, ScalarType::Float, "truth must be float32 [B, G, 4]");
  check(labels, {B, G}, ScalarType::Long, "labels must be int64 [B, G]");
  check(valid, {B, G}, ScalarType::Bool, "valid must be bool [B, G]");
  STD_TORCH_CHECK(topk > 0, "dynamic_soft_label: topk must be positive");
  Tensor index = empty(logits, {B, N}, ScalarType::Long), iou = empty(logits, {B, N});
  for (int64_t i = 0; i < B * G; ++i) {
    const int64_t label = data_as<int64_t>(labels)[i];
    STD_TORCH_CHECK(!data_as<bool>(valid)[i] || (label >= 0 && label < logits.size(2)), "dynamic_soft_label: labels must be in 0..C-1");
  }
  DynamicSoftLabelArgs args{};
  args.points = data_as<float>(points);
  args.strides = data_as<float>(strides);
  args.logits = data_as<float>(logits);
  args.boxes = data_as<float>(boxes);
  args.truth = data_as<float>(truth);
  args.labels = data_as<int64_t>(labels);
  args.valid = data_as<bool>(valid);
  args.batch = B;
  args.num_points = N;
  args.num_classes = logits.size(2);
  args.num_truth = G;
  args.topk = topk;
  args.radius = static_cast<float>(radius);
  args.iou_weight = static_cast<float>(iou_weight);
  args.out_index = mutable_as<int64_t>(index);
  args.out_iou = mutable_as<float>(iou);
  dynamic_soft_label_cpu(args);
  return {index, iou};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CPU, m) { m.impl("dynamic_soft_label", TORCH_BOX(&dynamic_soft_label_on_cpu)); }

}  // namespace detc::binding
