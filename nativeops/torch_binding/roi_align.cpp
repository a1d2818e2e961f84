#include "../kernels/roi_align.h"

#include "common.h"

namespace detc::binding {
namespace {

struct Options {
  int64_t pooled_height, pooled_width, sampling_ratio;
  bool aligned;
  double canonical_scale, canonical_level;
};

// The arguments that forward and backward, one level and many, have in common. `maps` must be contiguous where they are
// read.
RoiAlignArgs make_args(const std::vector<Tensor>& maps, const Tensor& rois, const std::optional<Tensor>& valid,
                       const std::vector<double>& scales, const Options& options) {
  STD_TORCH_CHECK(!maps.empty() && maps.size() <= static_cast<size_t>(kMaxLevels) && maps.size() == scales.size(),
                  "roi_align: 1 to ", kMaxLevels, " feature maps with a scale each");
  RoiAlignArgs args{};
  args.dtype = dtype_of(maps[0], "roi_align: features");
  args.num_levels = static_cast<int64_t>(maps.size());
  args.batch = maps[0].size(0);
  args.channels = maps[0].size(1);
  for (size_t l = 0; l < maps.size(); ++l) {
    STD_TORCH_CHECK(maps[l].dim() == 4 && maps[l].size(0) == args.batch && maps[l].size(1) == args.channels &&
                        maps[l].scalar_type() == maps[0].scalar_type(),
                    "roi_align: features must be [B, C, H, W] of one dtype, with the same B and C");
    args.height[l] = maps[l].size(2);
    args.width[l] = maps[l].size(3);
    args.scale[l] = scales[l];
  }
  const ScalarType coordinates = args.dtype == DType::f64 ? ScalarType::Double : ScalarType::Float;
  STD_TORCH_CHECK(rois.scalar_type() == coordinates,
                  "roi_align: rois must be float64 for float64 features and float32 for all others");
  if (rois.dim() == 3) {
    STD_TORCH_CHECK(rois.size(0) == args.batch && rois.size(2) == 4, "roi_align: rois must be [B, R, 4]");
    args.rois_per_image = rois.size(1);
    args.num_rois = args.batch * args.rois_per_image;
  } else {
    STD_TORCH_CHECK(rois.dim() == 2 && rois.size(1) == 5, "roi_align: rois must be [R, 5]");
    args.num_rois = rois.size(0);
  }
  if (valid.has_value())
    STD_TORCH_CHECK(valid->numel() == args.num_rois && valid->scalar_type() == ScalarType::Bool,
                    "roi_align: valid must be bool, one for each roi");
  args.rois = data(rois);
  args.valid = static_cast<const bool*>(data(valid));
  args.pooled_height = options.pooled_height;
  args.pooled_width = options.pooled_width;
  args.sampling_ratio = options.sampling_ratio;
  args.aligned = options.aligned;
  args.canonical_scale = options.canonical_scale;
  args.canonical_level = options.canonical_level;
  STD_TORCH_CHECK(options.pooled_height > 0 && options.pooled_width > 0, "roi_align: the output must have a size");
  return args;
}

template <class Run>
Tensor forward(const std::vector<Tensor>& features, const Tensor& rois_in, const std::optional<Tensor>& valid_in,
               const std::vector<double>& scales, const Options& options, const Run& run) {
  std::vector<Tensor> maps;
  for (const Tensor& feature : features) maps.push_back(dense(feature));
  const Tensor rois = dense(rois_in);
  const std::optional<Tensor> valid = dense(valid_in);
  RoiAlignArgs args = make_args(maps, rois, valid, scales, options);
  for (size_t l = 0; l < maps.size(); ++l) args.features[l] = data(maps[l]);
  std::vector<int64_t> size{args.num_rois, args.channels, args.pooled_height, args.pooled_width};
  if (rois.dim() == 3) size = {args.batch, args.rois_per_image, args.channels, args.pooled_height, args.pooled_width};
  Tensor out = empty(maps[0], size);
  args.output = out.mutable_data_ptr();
  if (out.numel() > 0) run(args, maps[0]);
  return out;
}

template <class Run>
std::vector<Tensor> backward(const Tensor& grad_in, const std::vector<Tensor>& features, const Tensor& rois_in,
                             const std::optional<Tensor>& valid_in, const std::vector<double>& scales, Options options,
                             const Run& run) {
  const Tensor grad = dense(grad_in), rois = dense(rois_in);
  const std::optional<Tensor> valid = dense(valid_in);
  STD_TORCH_CHECK(grad.dim() >= 4, "roi_align_backward: the gradient must be [R, C, P, Q] or [B, R, C, P, Q]");
  options.pooled_height = grad.size(grad.dim() - 2);
  options.pooled_width = grad.size(grad.dim() - 1);
  RoiAlignArgs args = make_args(features, rois, valid, scales, options);
  STD_TORCH_CHECK(grad.scalar_type() == features[0].scalar_type(),
                  "roi_align_backward: the gradient must have the features' dtype");
  STD_TORCH_CHECK(grad.numel() == args.num_rois * args.channels * args.pooled_height * args.pooled_width,
                  "roi_align_backward: the gradient has the wrong size");
  args.grad = data(grad);
  std::vector<Tensor> out;
  int64_t elements = 0;
  for (size_t l = 0; l < features.size(); ++l) {
    out.push_back(empty(grad, {args.batch, args.channels, args.height[l], args.width[l]}));
    args.grad_features[l] = out[l].mutable_data_ptr();
    elements += out[l].numel();
  }
  if (elements > 0) run(args, grad);
  return out;
}

void run_forward_cpu(const RoiAlignArgs& args, const Tensor&) { roi_align_forward_cpu(args); }
void run_backward_cpu(const RoiAlignArgs& args, const Tensor&) { roi_align_backward_cpu(args); }

#ifdef DETC_WITH_CUDA
void run_forward_cuda(const RoiAlignArgs& args, const Tensor& like) {
  const CudaScope scope(like);
  roi_align_forward_cuda(args, scope.stream());
}
void run_backward_cuda(const RoiAlignArgs& args, const Tensor& like) {
  const CudaScope scope(like);
  Tensor workspace = empty_bytes(like, roi_align_backward_cuda_workspace(args));
  roi_align_backward_cuda(args, workspace.mutable_data_ptr(), scope.stream());
}
#endif

template <void (*run)(const RoiAlignArgs&, const Tensor&)>
Tensor multilevel_forward(std::vector<Tensor> features, Tensor rois, std::optional<Tensor> valid,
                          std::vector<double> scales, int64_t height, int64_t width, int64_t sampling_ratio,
                          bool aligned, double canonical_scale, double canonical_level) {
  return forward(features, rois, valid, scales,
                 {height, width, sampling_ratio, aligned, canonical_scale, canonical_level}, run);
}

template <void (*run)(const RoiAlignArgs&, const Tensor&)>
std::vector<Tensor> multilevel_backward(Tensor grad, std::vector<Tensor> features, Tensor rois,
                                        std::optional<Tensor> valid, std::vector<double> scales, int64_t sampling_ratio,
                                        bool aligned, double canonical_scale, double canonical_level) {
  return backward(grad, features, rois, valid, scales,
                  {0, 0, sampling_ratio, aligned, canonical_scale, canonical_level}, run);
}

template <void (*run)(const RoiAlignArgs&, const Tensor&)>
Tensor single_forward(Tensor feature, Tensor rois, double scale, int64_t height, int64_t width, int64_t sampling_ratio,
                      bool aligned) {
  return forward({feature}, rois, std::nullopt, {scale}, {height, width, sampling_ratio, aligned, 1.0, 0.0}, run);
}

template <void (*run)(const RoiAlignArgs&, const Tensor&)>
Tensor single_backward(Tensor grad, Tensor feature, Tensor rois, double scale, int64_t sampling_ratio, bool aligned) {
  return backward(grad, {feature}, rois, std::nullopt, {scale}, {0, 0, sampling_ratio, aligned, 1.0, 0.0}, run)[0];
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(detc, CPU, m) {
  m.impl("multilevel_roi_align", TORCH_BOX(&multilevel_forward<run_forward_cpu>));
  m.impl("multilevel_roi_align_backward", TORCH_BOX(&multilevel_backward<run_backward_cpu>));
  m.impl("roi_align", TORCH_BOX(&single_forward<run_forward_cpu>));
  m.impl("roi_align_backward", TORCH_BOX(&single_backward<run_backward_cpu>));
}

#ifdef DETC_WITH_CUDA
STABLE_TORCH_LIBRARY_IMPL(detc, CUDA, m) {
  m.impl("multilevel_roi_align", TORCH_BOX(&multilevel_forward<run_forward_cuda>));
  m.impl("multilevel_roi_align_backward", TORCH_BOX(&multilevel_backward<run_backward_cuda>));
  m.impl("roi_align", TORCH_BOX(&single_forward<run_forward_cuda>));
  m.impl("roi_align_backward", TORCH_BOX(&single_backward<run_backward_cuda>));
}
#endif

}  // namespace detc::binding
