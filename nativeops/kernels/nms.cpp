// detc-flags: -ffp-contract=off
// CPU NMS. Contraction is off so that IoU rounds exactly as in torchvision and identical boxes are kept.
#include "nms.h"

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "order.h"
#include "parallel.h"

namespace detc {
namespace {

constexpr int64_t kLanes = 32;  // kept boxes are compared in blocks of this many

template <class A>
struct Box {
  A x1, y1, x2, y2;
};

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

  void push(const Box<A>& b, A its_area) {
    x1[size] = b.x1;
    y1[size] = b.y1;
    x2[size] = b.x2;
    y2[size] = b.y2;
    area[size++] = its_area;
  }
};

template <class A>
A area_of(const Box<A>& b) {
  return (b.x2 - b.x1) * (b.y2 - b.y1);
}

// The order of operands is torchvision's; it matters for NaN.
template <class A>
A intersection(A ax1, A ay1, A ax2, A ay2, const Box<A>& b) {
  const A x1 = ax1 < b.x1 ? b.x1 : ax1, y1 = ay1 < b.y1 ? b.y1 : ay1;
  const A x2 = b.x2 < ax2 ? b.x2 : ax2, y2 = b.y2 < ay2 ? b.y2 : ay2;
  const A w = A(0) < x2 - x1 ? x2 - x1 : A(0), h = A(0) < y2 - y1 ? y2 - y1 : A(0);
  return w * h;
}

template <class A>
A iou_of(const Box<A>& a, A a_area, const Box<A>& b, A b_area) {
  const A inter = intersection(a.x1, a.y1, a.x2, a.y2, b);
  return inter / (a_area + b_area - inter);
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
bool overlaps_any_exact(const BoxArrays<A>& kept, int64_t begin, int64_t end, const Box<A>& b, A area, A threshold) {
  for (int64_t i = begin; i < end; ++i) {
    const A inter = intersection(kept.x1[i], kept.y1[i], kept.x2[i], kept.y2[i], b);
    if (inter / (kept.area[i] + area - inter) > threshold) return true;
  }
  return false;
}

// The same for well-formed boxes and a threshold >= 0, a block at a time: a test without division that no overlapping box fails
// (`low` is a little under the threshold), then the exact one where it hits.
template <class A>
bool overlaps_any(const BoxArrays<A>& kept, int64_t begin, int64_t end, const Box<A>& b, A area, A threshold, A low) {
  const A *x1 = kept.x1.data(), *y1 = kept.y1.data(), *x2 = kept.x2.data(), *y2 = kept.y2.data(), *areas = kept.area.data();
  for (int64_t base = begin / kLanes * kLanes; base < end; base += kLanes) {
    int32_t hit = 0;
#pragma omp simd reduction(| : hit)
    for (int64_t i = base; i < base + kLanes; ++i) {
      const A inter = intersection(x1[i], y1[i], x2[i], y2[i], b);
      hit |= inter > low * (areas[i] + area - inter) ? 1 : 0;
    }
    if (hit && overlaps_any_exact(kept, base < begin ? begin : base, base + kLanes < end ? base + kLanes : end, b, area, threshold)) return true;
  }
  return false;
}

// Greedy suppression over boxes given in order; calls keep(i) for every box that stays, stops after `limit`.
template <class A, class Keep>
void greedy(const std::vector<Box<A>>& boxes, double iou_threshold, int64_t limit, const Keep& keep) {
  constexpr int64_t kTile = 512;
  const int64_t n = static_cast<int64_t>(boxes.size());
  const A threshold = floor_to<A>(iou_threshold);
  const A low = threshold * A(1 - 1e-5);
  bool well_formed = threshold >= A(0);
  std::vector<A> areas(n);
  for (int64_t i = 0; i < n; ++i) {
    areas[i] = area_of(boxes[i]);
    well_formed = well_formed && boxes[i].x2 >= boxes[i].x1 && boxes[i].y2 >= boxes[i].y1 && std::isfinite(areas[i]);
  }
  BoxArrays<A> kept;
  kept.reserve(n);
  const auto suppressed = [&](int64_t begin, int64_t end, int64_t i) {
    return well_formed ? overlaps_any(kept, begin, end, boxes[i], areas[i], threshold, low)
                       : overlaps_any_exact(kept, begin, end, boxes[i], areas[i], threshold);
  };
  std::vector<uint8_t> dead(kTile);
  for (int64_t tile = 0; tile < n && kept.size < limit; tile += kTile) {
    const int64_t end = tile + kTile < n ? tile + kTile : n;
    // Against what was kept before this tile: independent, so in parallel. Then within the tile, in order.
    const int64_t before = kept.size;
    const int64_t grain = before * (end - tile) > 500000 ? 32 : kTile;
    parallel_for(end - tile, grain, [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; ++i) dead[i] = before > 0 && suppressed(0, before, tile + i);
    });
    for (int64_t i = tile; i < end && kept.size < limit; ++i) {
      if (dead[i - tile] || suppressed(before, kept.size, i)) continue;
      kept.push(boxes[i], areas[i]);
      keep(i);
    }
  }
}

template <class A>
struct Scored {
  A score;
  int64_t candidate;  // position in the image's sorted candidates
};

// Soft-NMS: take the best, decay the others by their overlap with it, repeat.
template <class A>
void soft(const std::vector<Box<A>>& boxes, std::vector<A> scores, const NmsArgs& args, std::vector<Scored<A>>& out, const std::vector<int64_t>& members) {
  const int64_t n = static_cast<int64_t>(boxes.size());
  std::vector<int64_t> active(n);
  std::iota(active.begin(), active.end(), 0);
  std::vector<A> areas(n);
  for (int64_t i = 0; i < n; ++i) areas[i] = area_of(boxes[i]);
  const A threshold = floor_to<A>(args.iou_threshold), sigma = static_cast<A>(args.sigma), floor = static_cast<A>(args.min_score);
  const bool linear = args.method == NmsMethod::soft_linear;
  for (int64_t taken = 0; taken < args.keep && !active.empty(); ++taken) {
    size_t best = 0;
    for (size_t a = 1; a < active.size(); ++a)
      if (scores[active[a]] > scores[active[best]]) best = a;
    const int64_t top = active[best];
    if (!(scores[top] > floor)) break;
    out.push_back({scores[top], members[top]});
    size_t left = 0;
    for (size_t a = 0; a < active.size(); ++a) {
      const int64_t i = active[a];
      if (i == top) continue;
      const A iou = iou_of(boxes[top], areas[top], boxes[i], areas[i]);
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

// Matrix NMS: every score is decayed at once by its worst overlap with a better box, relative to how much that box was itself overlapped.
template <class A>
void matrix(const std::vector<Box<A>>& boxes, const std::vector<A>& scores, const NmsArgs& args, std::vector<Scored<A>>& out, const std::vector<int64_t>& members) {
  const int64_t n = static_cast<int64_t>(boxes.size());
  std::vector<A> areas(n), worst(n, A(0)), decay(n, A(1));
  for (int64_t i = 0; i < n; ++i) areas[i] = area_of(boxes[i]);
  const A sigma = static_cast<A>(args.sigma), floor = static_cast<A>(args.min_score);
  const bool linear = args.method == NmsMethod::matrix_linear;
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t i = 0; i < j; ++i) {
      const A iou = iou_of(boxes[i], areas[i], boxes[j], areas[j]);
      if (!(iou > A(0))) continue;
      worst[j] = std::max(worst[j], iou);
      const A ratio = linear ? (A(1) - iou) / std::max(A(1) - worst[i], A(1e-6)) : std::exp(-sigma * (iou * iou - worst[i] * worst[i]));
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

template <class T>
void one_image(const NmsArgs& args, int64_t image) {
  using A = acc_t<T>;
  using Key = decltype(descending_key(A(0)));
  const int64_t N = args.num_boxes, C = args.num_classes, K = args.keep;
  const T* boxes = static_cast<const T*>(args.boxes) + image * N * 4;
  const T* scores = static_cast<const T*>(args.scores) + image * N * C;
  const int64_t* labels = args.labels ? args.labels + image * N : nullptr;

  std::vector<Keyed<Key>> candidates;
  for (int64_t i = 0; i < N * C; ++i) {
    const A score = load(scores + i);
    if (score > args.score_threshold) candidates.push_back({descending_key(score), static_cast<uint32_t>(i)});
  }
  sort_first(candidates, args.pre_topk);

  const int64_t M = static_cast<int64_t>(candidates.size());
  std::vector<Box<A>> box(M);
  std::vector<int64_t> classes(M);
  for (int64_t m = 0; m < M; ++m) {
    const int64_t n = candidates[m].index / C;
    const T* b = boxes + n * 4;
    box[m] = {load(b), load(b + 1), load(b + 2), load(b + 3)};
    classes[m] = labels ? labels[n] : candidates[m].index % C;
  }
  const auto score_at = [&](int64_t m) { return static_cast<A>(load(scores + candidates[m].index)); };

  std::vector<Scored<A>> chosen;
  const auto groups = group_by_class(classes, args.class_agnostic || (C == 1 && !labels));
  if (args.method == NmsMethod::hard) {
    std::vector<uint8_t> alive(M, 0);
    parallel_for(static_cast<int64_t>(groups.size()), 1, [&](int64_t from, int64_t to) {
      for (int64_t g = from; g < to; ++g) {
        const auto& members = groups[g];
        if (static_cast<int64_t>(members.size()) == M) {
          greedy(box, args.iou_threshold, K, [&](int64_t i) { alive[i] = 1; });
          continue;
        }
        std::vector<Box<A>> mine(members.size());
        for (size_t i = 0; i < members.size(); ++i) mine[i] = box[members[i]];
        greedy(mine, args.iou_threshold, K, [&](int64_t i) { alive[members[i]] = 1; });
      }
    });
    for (int64_t m = 0; m < M && static_cast<int64_t>(chosen.size()) < K; ++m)
      if (alive[m]) chosen.push_back({score_at(m), m});
  } else {
    std::vector<std::vector<Scored<A>>> results(groups.size());
    parallel_for(static_cast<int64_t>(groups.size()), 1, [&](int64_t from, int64_t to) {
      for (int64_t g = from; g < to; ++g) {
        const auto& members = groups[g];
        std::vector<Box<A>> mine(members.size());
        std::vector<A> its(members.size());
        for (size_t i = 0; i < members.size(); ++i) {
          mine[i] = box[members[i]];
          its[i] = score_at(members[i]);
        }
        const bool is_soft = args.method == NmsMethod::soft_linear || args.method == NmsMethod::soft_gaussian;
        if (is_soft) soft(mine, std::move(its), args, results[g], members); else matrix(mine, its, args, results[g], members);
      }
    });
    for (const auto& result : results) chosen.insert(chosen.end(), result.begin(), result.end());
    std::sort(chosen.begin(), chosen.end(), [&](const Scored<A>& a, const Scored<A>& b) {
      return a.score != b.score ? a.score > b.score : candidates[a.candidate].index < candidates[b.candidate].index;
    });
  }

  T* out_boxes = static_cast<T*>(args.out_boxes) + image * K * 4;
  T* out_scores = static_cast<T*>(args.out_scores) + image * K;
  const int64_t count = std::min<int64_t>(K, static_cast<int64_t>(chosen.size()));
  for (int64_t k = 0; k < K; ++k) {
    const bool valid = k < count;
    const int64_t m = valid ? chosen[k].candidate : 0;
    const int64_t n = valid ? candidates[m].index / C : 0;
    for (int64_t d = 0; d < 4; ++d) {
      if (valid) out_boxes[k * 4 + d] = boxes[n * 4 + d]; else store(out_boxes + k * 4 + d, A(0));
    }
    store(out_scores + k, valid ? chosen[k].score : A(0));
    args.out_labels[image * K + k] = valid ? classes[m] : 0;
    args.out_index[image * K + k] = n;
    args.out_valid[image * K + k] = valid;
  }
}

template <class T>
int64_t plain(const void* boxes, const void* scores, int64_t n, double iou_threshold, int64_t* kept) {
  using A = acc_t<T>;
  using Key = decltype(descending_key(A(0)));
  std::vector<Keyed<Key>> order(n);
  for (int64_t i = 0; i < n; ++i) order[i] = {descending_key(static_cast<A>(load(static_cast<const T*>(scores) + i))), static_cast<uint32_t>(i)};
  sort_keyed(order);
  std::vector<Box<A>> box(n);
  for (int64_t i = 0; i < n; ++i) {
    const T* b = static_cast<const T*>(boxes) + static_cast<int64_t>(order[i].index) * 4;
    box[i] = {load(b), load(b + 1), load(b + 2), load(b + 3)};
  }
  int64_t count = 0;
  greedy(box, iou_threshold, n, [&](int64_t i) { kept[count++] = order[i].index; });
  return count;
}

}  // namespace

void batched_nms_cpu(const NmsArgs& args) {
  DETC_DISPATCH_FLOATING(args.dtype, T, {
    parallel_for(args.batch, 1, [&](int64_t from, int64_t to) {
      for (int64_t image = from; image < to; ++image) one_image<T>(args, image);
    });
  })
}

int64_t nms_cpu(DType dtype, const void* boxes, const void* scores, int64_t n, double iou_threshold, int64_t* kept) {
  DETC_DISPATCH_FLOATING(dtype, T, return plain<T>(boxes, scores, n, iou_threshold, kept);)
  return 0;
}

}  // namespace detc
