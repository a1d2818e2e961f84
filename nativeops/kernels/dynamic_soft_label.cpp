// CPU kernel of dynamic_soft_label. Exponentials and logarithms are computed only for pairs whose IoU and distance could still make the k best.
#include "dynamic_soft_label.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "parallel.h"

namespace detc {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kTiny = 1e-7f;          // in log(iou + kTiny)
constexpr float kLargestPower = 30.0f;  // of ten, in the centre cost
constexpr float kSmallestUnion = 1e-6f;

// The points of one image that lie in some truth, as structure of arrays.
struct Points {
  std::vector<int64_t> index;
  std::vector<float> x, y, per_stride, x1, y1, x2, y2, area, class_cost;

  void push(int64_t n, const float* point, float stride, const float* box) {
    index.push_back(n);
    x.push_back(point[0]);
    y.push_back(point[1]);
    per_stride.push_back(1.0f / stride);
    x1.push_back(box[0]);
    y1.push_back(box[1]);
    x2.push_back(box[2]);
    y2.push_back(box[3]);
    area.push_back((box[2] - box[0]) * (box[3] - box[1]));
    class_cost.push_back(-1.0f);
  }
  int64_t size() const { return static_cast<int64_t>(index.size()); }
};

struct Scored {
  float cost;
  int64_t at;
};

float softplus(float x) { return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); }
float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

class Image {
 public:
  Image(const DynamicSoftLabelArgs& args, int64_t image)
      : args_(args),
        logits_(args.logits + image * args.num_points * args.num_classes),
        boxes_(args.boxes + image * args.num_points * 4),
        truth_(args.truth + image * args.num_truth * 4),
        labels_(args.labels + image * args.num_truth),
        valid_(args.valid + image * args.num_truth),
        out_index_(args.out_index + image * args.num_points),
        out_iou_(args.out_iou + image * args.num_points) {}

  void run() {
    std::fill(out_index_, out_index_ + args_.num_points, int64_t{-1});
    std::fill(out_iou_, out_iou_ + args_.num_points, 0.0f);
    find_points();
    const int64_t m = points_.size();
    if (m == 0) return;
    claims_.assign(m, 0);
    owner_.assign(m, -1);
    iou_.resize(m);
    far_.resize(m);
    for (int64_t g = 0; g < args_.num_truth; ++g)
      if (valid_[g]) take(g);
    for (int64_t i = 0; i < m; ++i) {
      if (claims_[i] == 0) continue;
      const int64_t g = claims_[i] > 1 ? cheapest(i) : owner_[i];
      out_index_[points_.index[i]] = g;
      out_iou_[points_.index[i]] = overlap(g, i);
    }
  }

 private:
  void find_points() {
    std::vector<uint8_t> covered(args_.num_points, 0);
    for (int64_t g = 0; g < args_.num_truth; ++g) {
      if (!valid_[g]) continue;
      const float* t = truth_ + g * 4;
      const float x1 = t[0], y1 = t[1], x2 = t[2], y2 = t[3];
      for (int64_t n = 0; n < args_.num_points; ++n) {
        const float x = args_.points[2 * n], y = args_.points[2 * n + 1];
        covered[n] |= static_cast<uint8_t>((x > x1) & (x < x2) & (y > y1) & (y < y2));
      }
    }
    for (int64_t n = 0; n < args_.num_points; ++n)
      if (covered[n]) points_.push(n, args_.points + 2 * n, args_.strides[n], boxes_ + n * 4);
  }

  float overlap(int64_t g, int64_t i) const {
    const float* t = truth_ + g * 4;
    const float w = std::max(std::min(t[2], points_.x2[i]) - std::max(t[0], points_.x1[i]), 0.0f);
    const float h = std::max(std::min(t[3], points_.y2[i]) - std::max(t[1], points_.y1[i]), 0.0f);
    const float inter = w * h, both = (t[2] - t[0]) * (t[3] - t[1]) + points_.area[i] - inter;
    return inter / std::max(both, kSmallestUnion);
  }

  float distance(int64_t g, int64_t i) const {
    const float* t = truth_ + g * 4;
    const float dx = (t[0] + t[2]) * 0.5f - points_.x[i], dy = (t[1] + t[3]) * 0.5f - points_.y[i];
    return std::sqrt(dx * dx + dy * dy) * points_.per_stride[i];
  }

  // The loss of the point's logits against zeros, summed over classes; computed when first asked for.
  float class_cost(int64_t i) {
    float& known = points_.class_cost[i];
    if (known >= 0) return known;
    const float* row = logits_ + points_.index[i] * args_.num_classes;
    float sum = 0;
    for (int64_t c = 0; c < args_.num_classes; ++c) {
      const float p = sigmoid(row[c]);
      sum += softplus(row[c]) * p * p;
    }
    return known = sum;
  }

  float cost(int64_t g, int64_t i, float iou, float far) {
    const float logit = logits_[points_.index[i] * args_.num_classes + labels_[g]];
    const float p = sigmoid(logit), loss = softplus(logit), gap = iou - p;
    const float own = (loss - logit * iou) * gap * gap - loss * p * p;
    return class_cost(i) + own - args_.iou_weight * std::log(iou + kTiny) + std::pow(10.0f, std::min(far - args_.radius, kLargestPower));
  }

  // Fills iou_ and far_ for truth g: straight-line loops over arrays.
  void measure(int64_t g) {
    const float* t = truth_ + g * 4;
    const float x1 = t[0], y1 = t[1], x2 = t[2], y2 = t[3];
    const float area = (x2 - x1) * (y2 - y1), cx = (x1 + x2) * 0.5f, cy = (y1 + y2) * 0.5f;
    const int64_t m = points_.size();
    const float *px1 = points_.x1.data(), *py1 = points_.y1.data(), *px2 = points_.x2.data(), *py2 = points_.y2.data();
    const float *parea = points_.area.data(), *px = points_.x.data(), *py = points_.y.data(), *per = points_.per_stride.data();
    float *iou = iou_.data(), *far = far_.data();
#pragma omp simd
    for (int64_t i = 0; i < m; ++i) {
      const float w0 = (x2 < px2[i] ? x2 : px2[i]) - (x1 > px1[i] ? x1 : px1[i]), w = w0 > 0 ? w0 : 0.0f;
      const float h0 = (y2 < py2[i] ? y2 : py2[i]) - (y1 > py1[i] ? y1 : py1[i]), h = h0 > 0 ? h0 : 0.0f;
      const float inter = w * h, both = area + parea[i] - inter;
      iou[i] = inter / (both > kSmallestUnion ? both : kSmallestUnion);
    }
#pragma omp simd
    for (int64_t i = 0; i < m; ++i) {
      const float dx = cx - px[i], dy = cy - py[i];
      far[i] = __builtin_sqrtf(dx * dx + dy * dy) * per[i];
    }
  }

  int64_t dynamic_k() {
    best_.clear();
    const size_t limit = static_cast<size_t>(std::min(args_.topk, points_.size()));
    float least = 0;  // the smallest IoU among a full `best_`
    for (int64_t i = 0; i < points_.size(); ++i) {
      if (!(iou_[i] > least)) continue;
      best_.insert(std::upper_bound(best_.begin(), best_.end(), iou_[i], std::greater<float>()), iou_[i]);
      if (best_.size() > limit) best_.pop_back();
      if (best_.size() == limit) least = best_.back();
    }
    float sum = 0;
    for (const float v : best_) sum += v;
    const float most = static_cast<float>(points_.size());  // sums of broken boxes' overlaps have no bound
    return sum < most ? std::max<int64_t>(1, static_cast<int64_t>(sum)) : points_.size();
  }

  // Gives truth g its k cheapest points.
  void take(int64_t g) {
    measure(g);
    const size_t k = static_cast<size_t>(dynamic_k());
    cheap_.clear();
    // Both terms alone are lower bounds of the cost, so a pair outside these two cannot enter a full list.
    float least_iou = -1.0f, farthest = kInfinity;
    for (int64_t i = 0; i < points_.size(); ++i) {
      if (!(iou_[i] >= least_iou) || !(far_[i] <= farthest)) continue;
      const Scored scored{cost(g, i, iou_[i], far_[i]), i};
      if (!(scored.cost < kInfinity) || (cheap_.size() == k && !(scored.cost < cheap_.back().cost))) continue;
      cheap_.insert(std::upper_bound(cheap_.begin(), cheap_.end(), scored, [](const Scored& a, const Scored& b) { return a.cost < b.cost; }), scored);
      if (cheap_.size() > k) cheap_.pop_back();
      if (cheap_.size() < k) continue;
      const float worst = cheap_.back().cost;
      if (args_.iou_weight > 0) least_iou = std::exp(-(worst + 1e-3f) / args_.iou_weight) * 0.999f - 2 * kTiny;
      if (worst < 1e29f) farthest = args_.radius + std::log10(worst + 1e-3f) + 1e-3f;
    }
    for (const Scored& scored : cheap_) {
      owner_[scored.at] = g;
      ++claims_[scored.at];
    }
  }

  int64_t cheapest(int64_t i) {
    int64_t best = owner_[i];
    float least = kInfinity;
    for (int64_t g = 0; g < args_.num_truth; ++g) {
      if (!valid_[g]) continue;
      const float c = cost(g, i, overlap(g, i), distance(g, i));
      if (c < least) {
        least = c;
        best = g;
      }
    }
    return best;
  }

  const DynamicSoftLabelArgs& args_;
  const float *logits_, *boxes_, *truth_;
  const int64_t* labels_;
  const bool* valid_;
  int64_t* out_index_;
  float* out_iou_;
  Points points_;
  std::vector<int64_t> claims_, owner_;
  std::vector<float> iou_, far_, best_;
  std::vector<Scored> cheap_;
};

}  // namespace

void dynamic_soft_label_cpu(const DynamicSoftLabelArgs& args) {
  parallel_for(args.batch, 1, [&](int64_t from, int64_t to) {
    for (int64_t image = from; image < to; ++image) Image(args, image).run();
  });
}

}  // namespace detc
