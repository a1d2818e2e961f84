// The CUDA kernels of NMS, RoIAlign, RoIPool, focal losses, overlaps and rotated boxes, run through emulated_cuda.h and
// compared with the CPU's.
#include <string>

#include "box_iou.h"
#include "emulated_checks.h"
#include "focal_loss.h"
#include "max_iou_assign.h"
#include "nms.h"
#include "roi_align.h"
#include "roi_pool.h"
#include "rotated_box.h"

using namespace detc;

namespace {

template <class T>
std::vector<T> boxes_of(int64_t n, double extent, double largest, bool rotated = false) {
  const auto corner = uniform<T>(n * 2, 0, extent), side = uniform<T>(n * 2, 1, largest), angle = uniform<T>(n, 0, 7);
  std::vector<T> out;
  for (int64_t i = 0; i < n; ++i) {
    const T x = corner[2 * i], y = corner[2 * i + 1], w = side[2 * i], h = side[2 * i + 1];
    if (rotated)
      out.insert(out.end(), {x, y, w, h, angle[i]});
    else
      out.insert(out.end(), {x, y, x + w, y + h});
  }
  return out;
}

struct Bools {
  explicit Bools(size_t n) : data(new bool[n]()), size(n) {}
  ~Bools() { delete[] data; }
  std::vector<float> numbers() const { return {data, data + size}; }
  bool* data;
  size_t size;
};

template <class T>
void nms_case(NmsMethod method, bool agnostic, bool rotated, int64_t pre_topk, int64_t N) {
  const int64_t B = 2, C = 3, K = 9, D = rotated ? 5 : 4;
  auto boxes = boxes_of<T>(B * N, 60, 40, rotated);
  auto scores = uniform<T>(B * N * C, 0, 1);
  for (auto& s : scores) s = std::round(s * 20) / 20;  // ties
  if (N > 4) scores[1] = static_cast<T>(NAN), scores[5] = static_cast<T>(INFINITY), boxes[D] = static_cast<T>(NAN);
  std::vector<T> out_boxes[2], out_scores[2];
  std::vector<int64_t> labels[2], index[2];
  std::vector<float> valid[2];
  for (int side = 0; side < 2; ++side) {
    out_boxes[side] = unset<T>(B * K * D), out_scores[side] = unset<T>(B * K);
    labels[side].assign(B * K, -7), index[side].assign(B * K, -7);
    Bools ok(B * K);
    NmsArgs args{};
    args.dtype = dtype_of<T>(), args.rotated = rotated, args.boxes = boxes.data(), args.scores = scores.data();
    args.batch = B, args.num_boxes = N, args.num_classes = C;
    args.score_threshold = 0.1, args.iou_threshold = 0.4, args.sigma = 0.5, args.min_score = 0.15;
    args.pre_topk = pre_topk, args.keep = K, args.class_agnostic = agnostic, args.method = method;
    args.out_boxes = out_boxes[side].data(), args.out_scores = out_scores[side].data();
    args.out_labels = labels[side].data(), args.out_index = index[side].data(), args.out_valid = ok.data;
    if (side == 0) {
      std::vector<char> work(static_cast<size_t>(batched_nms_cuda_workspace(args)));
      batched_nms_cuda(args, work.data(), static_cast<int64_t>(work.size()), nullptr);
    } else {
      batched_nms_cpu(args);
    }
    valid[side] = ok.numbers();
  }
  const std::string name =
      "batched_nms method " + std::to_string(static_cast<int>(method)) + " of " + std::to_string(N);
  compare((name + " boxes").c_str(), out_boxes[0], out_boxes[1]);
  compare((name + " scores").c_str(), out_scores[0], out_scores[1]);
  compare((name + " labels").c_str(), labels[0], labels[1]);
  compare((name + " index").c_str(), index[0], index[1]);
  compare((name + " valid").c_str(), valid[0], valid[1]);
}

template <class T>
void plain_nms(int64_t n, bool rotated) {
  const auto boxes = boxes_of<T>(n, 200, 40, rotated);
  auto scores = uniform<T>(n, 0, 1);
  if (n > 2) scores[2] = static_cast<T>(NAN);
  std::vector<int64_t> got(static_cast<size_t>(n), -7), wanted = got;
  int64_t count = -1;
  std::vector<char> work(static_cast<size_t>(nms_cuda_workspace(dtype_of<T>(), rotated, n)));
  nms_cuda(dtype_of<T>(), rotated, boxes.data(), scores.data(), n, 0.3, got.data(), &count, work.data(),
           static_cast<int64_t>(work.size()), nullptr);
  wanted.resize(
      static_cast<size_t>(nms_cpu(dtype_of<T>(), rotated, boxes.data(), scores.data(), n, 0.3, wanted.data())));
  got.resize(static_cast<size_t>(count));
  compare(("nms of " + std::to_string(n)).c_str(), got, wanted);
}

template <class T>
void roi_align_case(bool listed, bool aligned, int64_t ratio) {
  RoiAlignArgs args{};
  args.dtype = dtype_of<T>(), args.num_levels = listed ? 1 : 2, args.batch = 2, args.channels = 3;
  args.height[0] = 12, args.width[0] = 16, args.height[1] = 6, args.width[1] = 8, args.scale[0] = 0.25,
  args.scale[1] = 0.125;
  args.pooled_height = 3, args.pooled_width = 2, args.sampling_ratio = ratio, args.aligned = aligned;
  args.canonical_scale = 20, args.canonical_level = 3;
  const int64_t R = 7;
  auto rois = boxes_of<T>(2 * R, 50, 40);
  rois[4] = static_cast<T>(NAN), rois[9] = static_cast<T>(-1e9), rois[15] = static_cast<T>(1e9);
  Bools valid(2 * R);
  for (size_t i = 0; i < valid.size; ++i) valid.data[i] = i != 3;
  if (listed) {
    std::vector<T> with_image;
    for (int64_t r = 0; r < 2 * R; ++r) {
      with_image.push_back(static_cast<T>(r % 4 - 1));  // images -1 and 2 do not exist
      with_image.insert(with_image.end(), rois.begin() + r * 4, rois.begin() + r * 4 + 4);
    }
    rois = with_image;
  } else {
    args.valid = valid.data;
    args.rois_per_image = R;
  }
  args.num_rois = 2 * R, args.rois = rois.data();
  std::vector<T> maps[2];
  for (int64_t l = 0; l < args.num_levels; ++l) {
    maps[l] = randn<T>(2 * 3 * args.height[l] * args.width[l]);
    args.features[l] = maps[l].data();
  }
  const int64_t outputs = args.num_rois * args.channels * 6;
  auto got = unset<T>(outputs), wanted = got;
  args.output = got.data();
  roi_align_forward_cuda(args, nullptr);
  args.output = wanted.data();
  roi_align_forward_cpu(args);
  compare("roi_align", got, wanted);
  const auto grad = randn<T>(outputs);
  args.grad = grad.data();
  std::vector<T> grads[2][2];
  for (int side = 0; side < 2; ++side) {
    for (int64_t l = 0; l < args.num_levels; ++l) {
      grads[side][l] = unset<T>(static_cast<int64_t>(maps[l].size()));
      args.grad_features[l] = grads[side][l].data();
    }
    if (side == 0) {
      std::vector<char> work(static_cast<size_t>(roi_align_backward_cuda_workspace(args)));
      roi_align_backward_cuda(args, work.data(), nullptr);
    } else {
      roi_align_backward_cpu(args);
    }
  }
  for (int64_t l = 0; l < args.num_levels; ++l) compare("roi_align grad", grads[0][l], grads[1][l]);
}

template <class T>
void roi_pool_case() {
  RoiPoolArgs args{};
  args.dtype = dtype_of<T>(), args.batch = 2, args.channels = 3, args.height = 9, args.width = 7, args.num_rois = 8;
  args.pooled_height = 3, args.pooled_width = 2, args.scale = 0.5;
  const auto feature = randn<T>(2 * 3 * 63);
  std::vector<T> rois;
  const auto boxes = boxes_of<T>(8, 20, 20);
  for (int64_t r = 0; r < 8; ++r) {
    rois.push_back(static_cast<T>(r % 4 - 1));
    rois.insert(rois.end(), boxes.begin() + r * 4, boxes.begin() + r * 4 + 4);
  }
  rois[7] = static_cast<T>(NAN);
  args.feature = feature.data(), args.rois = rois.data();
  const int64_t outputs = 8 * 3 * 6;
  const auto grad = randn<T>(outputs);
  args.grad = grad.data();
  std::vector<T> out[2], grads[2];
  std::vector<int64_t> where[2];
  for (int side = 0; side < 2; ++side) {
    out[side] = unset<T>(outputs), grads[side] = unset<T>(2 * 3 * 63), where[side].assign(outputs, -7);
    args.output = out[side].data(), args.argmax = where[side].data(), args.grad_feature = grads[side].data();
    if (side == 0) {
      roi_pool_cuda(args, nullptr);
      std::vector<char> work(static_cast<size_t>(roi_pool_backward_cuda_workspace(args)));
      roi_pool_backward_cuda(args, work.data(), nullptr);
    } else {
      roi_pool_cpu(args);
      roi_pool_backward_cpu(args);
    }
  }
  compare("roi_pool", out[0], out[1]);
  compare("roi_pool argmax", where[0], where[1]);
  compare("roi_pool grad", grads[0], grads[1]);
}

template <class T>
void focal_case(FocalKind kind, double gamma, bool labelled) {
  const int64_t rows = 37, classes = 5, n = rows * classes;
  const auto logits = randn<T>(n, 4), targets = uniform<T>(n, -0.5, 1), weights = uniform<T>(rows, 0, 2),
             grad = randn<T>(n);
  auto clipped = targets;
  for (auto& t : clipped) t = std::max(t, T(0));
  std::vector<int64_t> labels(rows);
  for (int64_t r = 0; r < rows; ++r) labels[r] = r % 7 - 1;
  FocalArgs args{};
  args.dtype = dtype_of<T>(), args.kind = kind, args.logits = logits.data(), args.weights = weights.data(),
  args.rows = rows, args.classes = classes;
  args.alpha = 0.3, args.gamma = gamma, args.grad = grad.data();
  if (labelled)
    args.labels = labels.data();
  else
    args.targets = clipped.data();
  std::vector<T> loss[2], slopes[2];
  std::vector<double> sums[2];
  std::vector<char> work(static_cast<size_t>(focal_loss_cuda_workspace()));
  for (int side = 0; side < 2; ++side) {
    loss[side] = unset<T>(n), slopes[side] = unset<T>(n), sums[side] = {0};
    args.loss = loss[side].data(), args.sum = nullptr, args.grad_logits = slopes[side].data();
    if (side == 0) {
      focal_loss_cuda(args, work.data(), nullptr);
      focal_loss_backward_cuda(args, nullptr);
    } else {
      focal_loss_cpu(args);
      focal_loss_backward_cpu(args);
    }
    if (kind != FocalKind::focal || gamma != 2.0) continue;  // 65536 threads for a sum are slow here
    args.sum = sums[side].data();
    if (side == 0)
      focal_loss_cuda(args, work.data(), nullptr);
    else
      focal_loss_cpu(args);
  }
  compare("focal loss", loss[0], loss[1]);
  compare("focal loss grad", slopes[0], slopes[1]);
  compare("focal loss sum", std::vector<float>(sums[0].begin(), sums[0].end()),
          std::vector<float>(sums[1].begin(), sums[1].end()));
}

template <class T>
void iou_case(IouKind kind, bool aligned) {
  BoxIouArgs args{};
  args.dtype = dtype_of<T>(), args.kind = kind, args.batch = 2, args.n = 6, args.m = aligned ? 6 : 5,
  args.aligned = aligned;
  auto a = boxes_of<T>(2 * args.n, 30, 30), b = boxes_of<T>(2 * args.m, 30, 30);
  const int64_t outputs = 2 * args.n * (aligned ? 1 : args.m);
  const auto grad = randn<T>(outputs);
  args.a = a.data(), args.b = b.data(), args.grad = grad.data();
  std::vector<T> out[2], ga[2], gb[2];
  for (int side = 0; side < 2; ++side) {
    out[side] = unset<T>(outputs), ga[side] = unset<T>(static_cast<int64_t>(a.size())),
    gb[side] = unset<T>(static_cast<int64_t>(b.size()));
    args.out = out[side].data(), args.grad_a = ga[side].data(), args.grad_b = gb[side].data();
    if (side == 0) {
      box_iou_cuda(args, nullptr);
      box_iou_backward_cuda(args, nullptr);
    } else {
      box_iou_cpu(args);
      box_iou_backward_cpu(args);
    }
  }
  compare("box_iou", out[0], out[1]);
  compare("box_iou grad a", ga[0], ga[1]);
  compare("box_iou grad b", gb[0], gb[1]);
}

template <class T>
void assign_case(LowQuality low_quality, bool shared) {
  const int64_t B = 3, N = 300, G = 5;
  auto boxes = boxes_of<T>(shared ? N : B * N, 40, 30), truths = boxes_of<T>(B * G, 40, 30);
  for (auto* v : {&boxes, &truths})
    for (auto& x : *v) x = std::round(x);
  boxes[2] = static_cast<T>(NAN);
  Bools valid(B * G);
  for (size_t i = 0; i < valid.size; ++i) valid.data[i] = i >= 5 && i % 3 != 0;
  MaxIouAssignArgs args{};
  args.dtype = dtype_of<T>(), args.boxes = boxes.data(), args.shared_boxes = shared, args.truths = truths.data(),
  args.valid = valid.data;
  args.batch = B, args.n = N, args.g = G, args.positive = 0.6, args.negative = 0.3, args.min_positive = 0.2,
  args.low_quality = low_quality;
  std::vector<int64_t> index[2];
  std::vector<T> iou[2];
  for (int side = 0; side < 2; ++side) {
    index[side].assign(B * N, -7), iou[side] = unset<T>(B * N);
    args.index = index[side].data(), args.iou = iou[side].data();
    if (side == 0) {
      std::vector<char> work(static_cast<size_t>(max_iou_assign_cuda_workspace(args)));
      max_iou_assign_cuda(args, work.data(), nullptr);
    } else {
      max_iou_assign_cpu(args);
    }
  }
  compare("max_iou_assign index", index[0], index[1]);
  compare("max_iou_assign iou", iou[0], iou[1]);
}

template <class T>
void rotated_case(bool aligned) {
  const int64_t n = 20;
  const auto a = boxes_of<T>(n, 30, 30, true), b = boxes_of<T>(n, 30, 30, true);
  auto got = unset<T>(aligned ? n : n * n), wanted = got;
  RotatedIouArgs args{dtype_of<T>(), a.data(), b.data(), n, n, aligned, got.data()};
  rotated_iou_cuda(args, nullptr);
  args.out = wanted.data();
  rotated_iou_cpu(args);
  compare("rotated_iou", got, wanted);
}

template <class T>
void all() {
  for (const int64_t n : {0, 1, 17, 40})
    for (int method = 0; method < 5; ++method) {
      nms_case<T>(static_cast<NmsMethod>(method), method % 2 == 0, false, 0, n);
      nms_case<T>(static_cast<NmsMethod>(method), method % 2 == 1, true, 23, n);
    }
  nms_case<T>(NmsMethod::hard, false, false, 0, 400);  // more candidates than one tile
  plain_nms<T>(3, false);
  plain_nms<T>(1300, false);
  plain_nms<T>(60, true);
  for (int flags = 0; flags < 8; ++flags) roi_align_case<T>(flags & 1, flags & 2, flags & 4 ? 2 : 0);
  roi_pool_case<T>();
  for (const auto kind : {FocalKind::focal, FocalKind::quality, FocalKind::varifocal, FocalKind::varifocal_detached})
    for (const double gamma : {2.0, 1.5}) focal_case<T>(kind, gamma, gamma == 2.0);
  for (const auto kind : {IouKind::iou, IouKind::giou, IouKind::diou, IouKind::ciou})
    for (const bool aligned : {false, true}) iou_case<T>(kind, aligned);
  for (const auto low_quality : {LowQuality::none, LowQuality::truth, LowQuality::own})
    for (const bool shared : {false, true}) assign_case<T>(low_quality, shared);
  rotated_case<T>(false);
  rotated_case<T>(true);
}

}  // namespace

int main() {
  all<float>();
  all<double>();
  return failures == 0 ? 0 : 1;
}
