// detc-flags: -ffp-contract=off
// CPU NMS. Contraction is off so that IoU rounds exactly as in torchvision and identical boxes are kept.
#include "nms.h"

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "order.h"
#include "parallel.h"
#include "rotated_box.h"

namespace detc {
namespace {

constexpr int64_t kLanes = 32;              // kept boxes are compared in blocks of this many
constexpr int64_t kParallelWork = 4000000;  // comparisons (some 0.2 ms) from which waking threads is worth it

template <class A>
struct Box {
  A x1, y1, x2, y2, area;
};

// How a kind of box is read and overlaps: Box<A> here, RotatedBox below.
template <class A, class T>
void read(const T* p, Box<A>& b) {
  b = {load(p), load(p + 1), load(p + 2), load(p + 3), A(0)};
  b.area = (b.x2 - b.x1) * (b.y2 - b.y1);
}
template <class A, class T>
void read(const T* p, RotatedBox& b) {
  b = rotated_box_at(p);
}

// The boxes of one group as structure of arrays, padded to whole blocks with boxes that overlap nothing.
template <class A>
struct BoxArrays {
  std::vector<A> x1, y1, x2, y2, area;
  int64_t size = 0;

  void reserve(int64_t n) {
    const int64_t padded = (n + kLanes - 1) / kLanes * kLanes;
    for (auto* v : {&x1, &y1}) v->assign(padded, std::numeric_limits<A>::max());
    for (auto* v : {&x2, &y2}) v->assign(padded, std::numeric_limits<A>::lowest());
    area.assign(padded, A(0));
    size = 0;
  }

  void push(const Box<A>& b) {
    x1[size] = b.x1;
    y1[size] = b.y1;
    x2[size] = b.x2;
    y2[size] = b.y2;
    area[size++] = b.area;
  }
};

// The order of operands is torchvision's; it matters for NaN.
template <class A>
A intersection(A ax1, A ay1, A ax2, A ay2, const Box<A>& b) {
  const A x1 = ax1 < b.x1 ? b.x1 : ax1, y1 = ay1 < b.y1 ? b.y1 : ay1;
  const A x2 = b.x2 < ax2 ? b.x2 : ax2, y2 = b.y2 < ay2 ? b.y2 : ay2;
  const A w = A(0) < x2 - x1 ? x2 - x1 : A(0), h = A(0) < y2 - y1 ? y2 - y1 : A(0);
  return w * h;
}

template <class A>
A iou_of(const Box<A>& a, const Box<A>& b) {
  const A inter = intersection(a.x1, a.y1, a.x2, a.y2, b);
  return inter / (a.area + b.area - inter);
}
template <class A>
A iou_of(const RotatedBox& a, const RotatedBox& b) {
  return static_cast<A>(rotated_iou(a, b));
}

// Largest A that is not above the threshold: iou > threshold (in double) is then the same as iou > it.
template <class A>
A floor_to(double threshold) {
  A t = static_cast<A>(threshold);
  if (static_cast<double>(t) > threshold) t = std::nextafter(t, -std::numeric_limits<A>::infinity());
  return t;
}

// Whether any of the boxes [begin, end) of `kept` overlaps `b` by more than `threshold`.
template <class A>
bool overlaps_any_exact(const BoxArrays<A>& kept, int64_t begin, int64_t end, const Box<A>& b, A threshold) {
  for (int64_t i = begin; i < end; ++i) {
    const A inter = intersection(kept.x1[i], kept.y1[i], kept.x2[i], kept.y2[i], b);
    if (inter / (kept.area[i] + b.area - inter) > threshold) return true;
  }
  return false;
}

// The same for well-formed boxes and a threshold >= 0, a block at a time: a test without division that no overlapping
// box fails
// (`low` is a little under the threshold), then the exact one where it hits.
template <class A>
bool overlaps_any(const BoxArrays<A>& kept, int64_t begin, int64_t end, const Box<A>& b, A threshold, A low) {
  const A *x1 = kept.x1.data(), *y1 = kept.y1.data(), *x2 = kept.x2.data(), *y2 = kept.y2.data(),
          *areas = kept.area.data();
  for (int64_t base = begin / kLanes * kLanes; base < end; base += kLanes) {
    int32_t hit = 0;
#pragma omp simd reduction(| : hit)
    for (int64_t i = base; i < base + kLanes; ++i) {
      const A inter = intersection(x1[i], y1[i], x2[i], y2[i], b);
      hit |= inter > low * (areas[i] + b.area - inter) ? 1 : 0;
    }
    if (hit &&
        overlaps_any_exact(kept, base < begin ? begin : base, base + kLanes < end ? base + kLanes : end, b, threshold))
      return true;
  }
  return false;
}

// The boxes kept so far, and whether one of them suppresses another box.
template <class A>
class Kept {
 public:
  Kept(const std::vector<Box<A>>& boxes, double iou_threshold)
      : threshold_(floor_to<A>(iou_threshold)), low_(threshold_ * A(1 - 1e-5)) {
    kept_.reserve(static_cast<int64_t>(boxes.size()));
    well_formed_ = threshold_ >= A(0);
    for (const auto& b : boxes) well_formed_ = well_formed_ && b.x2 >= b.x1 && b.y2 >= b.y1 && std::isfinite(b.area);
  }
  int64_t size() const { return kept_.size; }
  void push(const Box<A>& b) { kept_.push(b); }
  bool suppresses(int64_t begin, int64_t end, const Box<A>& b) const {
    return well_formed_ ? overlaps_any(kept_, begin, end, b, threshold_, low_)
                        : overlaps_any_exact(kept_, begin, end, b, threshold_);
  }

 private:
  BoxArrays<A> kept_;
  A threshold_, low_;
  bool well_formed_;
};

class KeptRotated {
 public:
  KeptRotated(const std::vector<RotatedBox>&, double iou_threshold) : threshold_(iou_threshold) {}
  int64_t size() const { return static_cast<int64_t>(kept_.size()); }
  void push(const RotatedBox& b) { kept_.push_back(b); }
  bool suppresses(int64_t begin, int64_t end, const RotatedBox& b) const {
    for (int64_t i = begin; i < end; ++i)
      if (rotated_iou(kept_[i], b) > threshold_) return true;
    return false;
  }

 private:
  std::vector<RotatedBox> kept_;
  double threshold_;
};

// Greedy suppression over boxes given in order; calls keep(i) for every box that stays, stops after `limit`.
template <class Boxes, class KeptBoxes, class Keep>
void greedy(const Boxes& boxes, KeptBoxes kept, int64_t limit, const Keep& keep) {
  const int64_t n = static_cast<int64_t>(boxes.size());
  const int64_t size = std::clamp<int64_t>(n / 16, 512, 4096);
  std::vector<uint8_t> dead(size);
  for (int64_t tile = 0; tile < n && kept.size() < limit; tile += size) {
    const int64_t end = std::min(tile + size, n);
    // Against what was kept before this tile: independent, so in parallel. Then within the tile, in order.
    const int64_t before = kept.size();
    const int64_t grain = before * (end - tile) > kParallelWork ? 32 : size;
    parallel_for(end - tile, grain, [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; ++i) dead[i] = before > 0 && kept.suppresses(0, before, boxes[tile + i]);
    });
    for (int64_t i = tile; i < end && kept.size() < limit; ++i) {
      if (dead[i - tile] || kept.suppresses(before, kept.size(), boxes[i])) continue;
      kept.push(boxes[i]);
      keep(i);
    }
  }
}
template <class A, class Keep>
void suppress(const std::vector<Box<A>>& boxes, double iou_threshold, int64_t limit, const Keep& keep) {
  greedy(boxes, Kept<A>(boxes, iou_threshold), limit, keep);
}
template <class A, class Keep>
void suppress(const std::vector<RotatedBox>& boxes, double iou_threshold, int64_t limit, const Keep& keep) {
  greedy(boxes, KeptRotated(boxes, iou_threshold), limit, keep);
}

template <class A>
struct Scored {
  A score;
  int64_t candidate;  // position in the image's sorted candidates
};

// Soft-NMS: take the best, decay the others by their overlap with it, repeat.
template <class A, class Shape>
void soft(const std::vector<Shape>& boxes, std::vector<A> scores, const std::vector<uint32_t>& index,
          const NmsArgs& args, std::vector<Scored<A>>& out, const std::vector<int64_t>& members) {
  const int64_t n = static_cast<int64_t>(boxes.size());
  std::vector<int64_t> active(n);
  std::iota(active.begin(), active.end(), 0);
  const A threshold = floor_to<A>(args.iou_threshold), sigma = static_cast<A>(args.sigma),
          floor = static_cast<A>(args.min_score);
  const bool linear = args.method == NmsMethod::soft_linear;
  for (int64_t taken = 0; taken < args.keep && !active.empty(); ++taken) {
    size_t best = 0;
    for (size_t a = 1; a < active.size(); ++a) {
      const A score = scores[active[a]], most = scores[active[best]];
      if (score > most || (score == most && index[active[a]] < index[active[best]])) best = a;
    }
    const int64_t top = active[best];
    if (!(scores[top] > floor)) break;
    out.push_back({scores[top], members[top]});
    size_t left = 0;
    for (size_t a = 0; a < active.size(); ++a) {
      const int64_t i = active[a];
      if (i == top) continue;
      const A iou = iou_of<A>(boxes[top], boxes[i]);
      if (linear) {
        if (iou > threshold) scores[i] *= A(1) - iou;
      } else if (iou == iou) {
        scores[i] *= std::exp(-(iou * iou) / sigma);
      }
      if (scores[i] > floor) active[left++] = i;
    }
    active.resize(left);
  }
}

// Matrix NMS: every score is decayed at once by its worst overlap with a better box, relative to how much that box was
// itself overlapped.
template <class A, class Shape>
void matrix(const std::vector<Shape>& boxes, const std::vector<A>& scores, const NmsArgs& args,
            std::vector<Scored<A>>& out, const std::vector<int64_t>& members) {
  const int64_t n = static_cast<int64_t>(boxes.size());
  std::vector<A> worst(n, A(0)), decay(n, A(1));
  const A sigma = static_cast<A>(args.sigma), floor = static_cast<A>(args.min_score);
  const bool linear = args.method == NmsMethod::matrix_linear;
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t i = 0; i < j; ++i) {
      const A iou = iou_of<A>(boxes[i], boxes[j]);
      if (!(iou > A(0))) continue;
      worst[j] = std::max(worst[j], iou);
      const A ratio = linear ? (A(1) - iou) / std::max(A(1) - worst[i], A(1e-6))
                             : std::exp(-sigma * (iou * iou - worst[i] * worst[i]));
      decay[j] = std::min(decay[j], ratio);
    }
    const A score = scores[j] * decay[j];
    if (score > floor) out.push_back({score, members[j]});
  }
}

// Splits sorted candidates into groups that may suppress each other, each group in score order.
std::vector<std::vector<int64_t>> group_by_class(const std::vector<int64_t>& classes, bool together) {
  std::vector<std::vector<int64_t>> groups;
  const int64_t n = static_cast<int64_t>(classes.size());
  if (n == 0) return groups;
  if (together) {
    groups.emplace_back(n);
    std::iota(groups[0].begin(), groups[0].end(), 0);
    return groups;
  }
  std::vector<int64_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return classes[a] < classes[b]; });
  for (int64_t i = 0; i < n; ++i) {
    if (i == 0 || classes[order[i]] != classes[order[i - 1]]) groups.emplace_back();
    groups.back().push_back(order[i]);
  }
  return groups;
}

template <class T, class Shape>
void one_image(const NmsArgs& args, int64_t image) {
  using A = acc_t<T>;
  using Key = decltype(descending_key(A(0)));
  const int64_t N = args.num_boxes, C = args.num_classes, K = args.keep, D = args.rotated ? 5 : 4;
  const T* boxes = static_cast<const T*>(args.boxes) + image * N * D;
  const T* scores = static_cast<const T*>(args.scores) + image * N * C;
  const int64_t* labels = args.labels ? args.labels + image * N : nullptr;

  std::vector<Keyed<Key>> candidates;
  for (int64_t i = 0; i < N * C; ++i) {
    const A score = load(scores + i);
    if (score > static_cast<A>(args.score_threshold))
      candidates.push_back({descending_key(score), static_cast<uint32_t>(i)});
  }
  sort_first(candidates, args.pre_topk);

  const int64_t M = static_cast<int64_t>(candidates.size());
  std::vector<Shape> box(M);
  std::vector<int64_t> classes(M);
  for (int64_t m = 0; m < M; ++m) {
    const int64_t n = candidates[m].index / C;
    read<A>(boxes + n * D, box[m]);
    classes[m] = labels ? labels[n] : candidates[m].index % C;
  }
  const auto score_at = [&](int64_t m) { return static_cast<A>(load(scores + candidates[m].index)); };

  std::vector<Scored<A>> chosen;
  const auto groups = group_by_class(classes, args.class_agnostic || (C == 1 && !labels));
  int64_t work = 0;
  for (const auto& members : groups) work += static_cast<int64_t>(members.size() * members.size()) / 2;
  const int64_t grain = work > kParallelWork ? 1 : static_cast<int64_t>(groups.size());
  if (args.method == NmsMethod::hard) {
    std::vector<uint8_t> alive(M, 0);
    parallel_for(static_cast<int64_t>(groups.size()), grain, [&](int64_t from, int64_t to) {
      for (int64_t g = from; g < to; ++g) {
        const auto& members = groups[g];
        if (static_cast<int64_t>(members.size()) == M) {
          suppress<A>(box, args.iou_threshold, K, [&](int64_t i) { alive[i] = 1; });
          continue;
        }
        std::vector<Shape> mine(members.size());
        for (size_t i = 0; i < members.size(); ++i) mine[i] = box[members[i]];
        suppress<A>(mine, args.iou_threshold, K, [&](int64_t i) { alive[members[i]] = 1; });
      }
    });
    for (int64_t m = 0; m < M && static_cast<int64_t>(chosen.size()) < K; ++m)
      if (alive[m]) chosen.push_back({score_at(m), m});
  } else {
    std::vector<std::vector<Scored<A>>> results(groups.size());
    parallel_for(static_cast<int64_t>(groups.size()), grain, [&](int64_t from, int64_t to) {
      for (int64_t g = from; g < to; ++g) {
        const auto& members = groups[g];
        std::vector<Shape> mine(members.size());
        std::vector<A> its(members.size());
        std::vector<uint32_t> index(members.size());
        for (size_t i = 0; i < members.size(); ++i) {
          mine[i] = box[members[i]];
          its[i] = score_at(members[i]);
          index[i] = candidates[members[i]].index;
        }
        const bool is_soft = args.method == NmsMethod::soft_linear || args.method == NmsMethod::soft_gaussian;
        if (is_soft)
          soft(mine, std::move(its), index, args, results[g], members);
        else
          matrix(mine, its, args, results[g], members);
      }
    });
    for (const auto& result : results) chosen.insert(chosen.end(), result.begin(), result.end());
    std::sort(chosen.begin(), chosen.end(), [&](const Scored<A>& a, const Scored<A>& b) {
      return a.score != b.score ? a.score > b.score : candidates[a.candidate].index < candidates[b.candidate].index;
    });
  }

  T* out_boxes = static_cast<T*>(args.out_boxes) + image * K * D;
  T* out_scores = static_cast<T*>(args.out_scores) + image * K;
  const int64_t count = std::min<int64_t>(K, static_cast<int64_t>(chosen.size()));
  for (int64_t k = 0; k < K; ++k) {
    const bool valid = k < count;
    const int64_t m = valid ? chosen[k].candidate : 0;
    const int64_t n = valid ? candidates[m].index / C : 0;
    for (int64_t d = 0; d < D; ++d) {
      if (valid)
        out_boxes[k * D + d] = boxes[n * D + d];
      else
        store(out_boxes + k * D + d, A(0));
    }
    store(out_scores + k, valid ? chosen[k].score : A(0));
    args.out_labels[image * K + k] = valid ? classes[m] : 0;
    args.out_index[image * K + k] = n;
    args.out_valid[image * K + k] = valid;
  }
}

template <class T, class Shape>
int64_t plain(const T* boxes, int64_t dimensions, const T* scores, int64_t n, double iou_threshold, int64_t* kept) {
  using A = acc_t<T>;
  using Key = decltype(descending_key(A(0)));
  std::vector<Keyed<Key>> order(n);
  for (int64_t i = 0; i < n; ++i)
    order[i] = {descending_key(static_cast<A>(load(scores + i))), static_cast<uint32_t>(i)};
  sort_keyed(order);
  std::vector<Shape> box(n);
  for (int64_t i = 0; i < n; ++i) read<A>(boxes + static_cast<int64_t>(order[i].index) * dimensions, box[i]);
  int64_t count = 0;
  suppress<A>(box, iou_threshold, n, [&](int64_t i) { kept[count++] = order[i].index; });
  return count;
}

}  // namespace

void batched_nms_cpu(const NmsArgs& args){
    DETC_DISPATCH_FLOATING(args.dtype, T,
                           {
                             const int64_t scanned = args.num_boxes * args.num_classes,
                                           most = args.pre_topk > 0 ? std::min(args.pre_topk, scanned) : scanned;
                             const int64_t work =
                                 args.batch * (scanned + most * std::min(most, args.keep * args.num_classes) / 2);
                             parallel_for(args.batch, work > kParallelWork ? 1 : args.batch,
                                          [&](int64_t from, int64_t to) {
                                            for (int64_t image = from; image < to; ++image) {
                                              if (args.rotated)
                                                one_image<T, RotatedBox>(args, image);
                                              else
                                                one_image<T, Box<acc_t<T>>>(args, image);
                                            }
                                          });
                           })}

int64_t nms_cpu(DType dtype, bool rotated, const void* boxes, const void* scores, int64_t n, double iou_threshold,
                int64_t* kept) {
  DETC_DISPATCH_FLOATING(dtype, T, {
    const T* b = static_cast<const T*>(boxes);
    const T* s = static_cast<const T*>(scores);
    return rotated ? plain<T, RotatedBox>(b, 5, s, n, iou_threshold, kept)
                   : plain<T, Box<acc_t<T>>>(b, 4, s, n, iou_threshold, kept);
  })
  return 0;
}

}  // namespace detc
