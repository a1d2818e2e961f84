#include "../kernels/nms.h"

#include "common.h"

namespace detc::ort {
namespace {

enum class Family { hard, soft, matrix };

// Inputs: boxes [B, N, 4], scores [B, N, C], and for the labelled form labels [B, N] (C is then 1).
template <Family family, bool labelled>
class BatchedNms {
 public:
  explicit BatchedNms(const Attributes& attributes) {
    args_.dtype = DType::f32;
    args_.iou_threshold = attributes.number("iou_threshold");
    args_.score_threshold = args_.min_score = attributes.number("score_threshold");
    args_.keep = attributes.integer("keep");
    args_.pre_topk = attributes.integer("pre_topk");
    args_.class_agnostic = attributes.integer("class_agnostic") != 0;
    args_.method = NmsMethod::hard;
    if (family == Family::hard) return;
    args_.sigma = attributes.number("sigma");
    args_.min_score = attributes.number("min_score");
    const bool gaussian = attributes.integer("gaussian") != 0;
    if (family == Family::soft)
      args_.method = gaussian ? NmsMethod::soft_gaussian : NmsMethod::soft_linear;
    else
      args_.method = gaussian ? NmsMethod::matrix_gaussian : NmsMethod::matrix_linear;
  }

  void compute(Context& context) const {
    const Tensor boxes = context.input(0), scores = context.input(1);
    require(boxes.shape.size() == 3 && scores.shape.size() == 3 && (boxes.size(2) == 4 || boxes.size(2) == 5),
            "BatchedNMS: boxes [B, N, 4], scores [B, N, C]");
    require(boxes.size(0) == scores.size(0) && boxes.size(1) == scores.size(1),
            "BatchedNMS: boxes and scores differ in B or N");
    require(scores.size(1) * scores.size(2) < (int64_t{1} << 32), "BatchedNMS: N * C must be below 2^32");
    NmsArgs args = args_;
    args.rotated = boxes.size(2) == 5;
    args.boxes = boxes.data;
    args.scores = scores.data;
    if (labelled) {
      const Tensor labels = context.input(2);
      require(scores.size(2) == 1 && labels.shape == Shape({boxes.size(0), boxes.size(1)}),
              "BatchedNMSLabelled: labels [B, N], scores [B, N, 1]");
      args.labels = labels.as<int64_t>();
    }
    args.batch = boxes.size(0);
    args.num_boxes = boxes.size(1);
    args.num_classes = scores.size(2);
    const Shape slots{args.batch, args.keep};
    args.out_boxes = context.output<float>(0, {args.batch, args.keep, boxes.size(2)});
    args.out_scores = context.output<float>(1, slots);
    args.out_labels = context.output<int64_t>(2, slots);
    args.out_index = context.output<int64_t>(3, slots);
    args.out_valid = context.output<bool>(4, slots);
    if (size_of(slots) == 0) return;
#ifdef DETC_WITH_CUDA
    if (context.on_cuda()) {
      const int64_t bytes = batched_nms_cuda_workspace(args);
      batched_nms_cuda(args, context.workspace(bytes), bytes, context.stream());
      return;
    }
#endif
    batched_nms_cpu(args);
  }

 private:
  NmsArgs args_{};
};

// Inputs: boxes [N, 4], scores [N]. Output [M]: as many as stay, so this one runs on the CPU alone.
class Nms {
 public:
  explicit Nms(const Attributes& attributes) : iou_threshold_(attributes.number("iou_threshold")) {}

  void compute(Context& context) const {
    const Tensor boxes = context.input(0), scores = context.input(1);
    require(boxes.shape.size() == 2 && (boxes.size(1) == 4 || boxes.size(1) == 5) && scores.shape == Shape({boxes.size(0)}),
            "Nms: boxes must be [N, 4] or [N, 5], scores [N]");
    require(boxes.size(0) < (int64_t{1} << 32), "Nms: N must be below 2^32");
    std::vector<int64_t> kept(static_cast<size_t>(boxes.size(0)));
    const int64_t count = kept.empty() ? 0
                                       : nms_cpu(DType::f32, boxes.size(1) == 5, boxes.data, scores.data, boxes.size(0),
                                                 iou_threshold_, kept.data());
    std::copy_n(kept.begin(), count, context.output<int64_t>(0, {count}));
  }

 private:
  double iou_threshold_;
};

const std::vector<Type> kOutputs{kFloat, kFloat, kInt64, kInt64, kBool};

template <Family family>
bool add_family(const char* name) {
  const std::string labelled = std::string(name) + "Labelled";
  return add<BatchedNms<family, false>>(name, {kFloat, kFloat}, kOutputs) &&
         add<BatchedNms<family, true>>(labelled.c_str(), {kFloat, kFloat, kInt64}, kOutputs);
}

const bool added = add_family<Family::hard>("BatchedNMS") && add_family<Family::soft>("BatchedSoftNMS") &&
                   add_family<Family::matrix>("BatchedMatrixNMS") && add_on_cpu<Nms>("Nms", {kFloat, kFloat}, {kInt64});

}  // namespace
}  // namespace detc::ort
