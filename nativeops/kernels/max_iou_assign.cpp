// detc-flags: -ffp-contract=off
#include "max_iou_assign.h"

#include <algorithm>
#include <mutex>
#include <vector>

#include "parallel.h"

namespace detc {
namespace {

constexpr int64_t kBlock = 256;  // boxes at a time: their coordinates and results stay in the first-level cache

template <class A>
struct Block {
  A x1[kBlock], y1[kBlock], x2[kBlock], y2[kBlock], area[kBlock], iou[kBlock], best[kBlock];
  int64_t own[kBlock], claim[kBlock];
  int64_t count;
};

template <class T, class A>
void load_block(const T* boxes, int64_t count, Block<A>& block) {
  block.count = count;
  for (int64_t i = 0; i < count; ++i) {
    const T* p = boxes + i * 4;
    const auto box = overlap_box<IouKind::iou, A>(load(p), load(p + 1), load(p + 2), load(p + 3));
    block.x1[i] = box.x1;
    block.y1[i] = box.y1;
    block.x2[i] = box.x2;
    block.y2[i] = box.y2;
    block.area[i] = box.area;
  }
}

// Overlaps of the block with one truth; the same code both times it is needed, so the same bits.
template <class A>
void overlap_block(Block<A>& block, const OverlapBox<A>& truth) {
  const int64_t count = block.count;
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const OverlapBox<A> box{block.x1[i], block.y1[i], block.x2[i], block.y2[i], block.area[i], A(0)};
    block.iou[i] = assign_overlap(box, truth);
  }
}

template <class T>
void one_image(const MaxIouAssignArgs& args, int64_t image) {
  using A = acc_t<T>;
  const int64_t N = args.n;
  const T* boxes = static_cast<const T*>(args.boxes) + (args.shared_boxes ? 0 : image * N * 4);
  const T* truths = static_cast<const T*>(args.truths) + image * args.g * 4;
  std::vector<OverlapBox<A>> truth;
  std::vector<int64_t> number;
  for (int64_t g = 0; g < args.g; ++g) {
    if (!args.valid[image * args.g + g]) continue;
    const T* p = truths + g * 4;
    truth.push_back(overlap_box<IouKind::iou, A>(load(p), load(p + 1), load(p + 2), load(p + 3)));
    number.push_back(g);
  }
  const int64_t G = static_cast<int64_t>(truth.size()), blocks = (N + kBlock - 1) / kBlock;
  std::vector<A> highest(G, A(0));
  const int64_t grain = 1 + 800 / (G + 1);  // blocks a thread: some 200 000 overlaps
  const bool claims = args.low_quality != LowQuality::none;
  if (claims) {
    std::mutex mutex;
    parallel_for(blocks, grain, [&](int64_t from, int64_t to) {
      std::vector<A> mine(G, A(0));
      Block<A> block;
      for (int64_t b = from; b < to; ++b) {
        load_block(boxes + b * kBlock * 4, std::min(kBlock, N - b * kBlock), block);
        for (int64_t g = 0; g < G; ++g) {
          overlap_block(block, truth[g]);
          A most = mine[g];
          for (int64_t i = 0; i < block.count; ++i) most = block.iou[i] > most ? block.iou[i] : most;
          mine[g] = most;
        }
      }
      const std::lock_guard<std::mutex> lock(mutex);  // a maximum: the order does not matter
      for (int64_t g = 0; g < G; ++g) highest[g] = std::max(highest[g], mine[g]);
    });
  }
  parallel_for(blocks, grain, [&](int64_t from, int64_t to) {
    Block<A> block;
    for (int64_t b = from; b < to; ++b) {
      load_block(boxes + b * kBlock * 4, std::min(kBlock, N - b * kBlock), block);
      std::fill(block.best, block.best + kBlock, A(-1));
      std::fill(block.own, block.own + kBlock, 0);
      std::fill(block.claim, block.claim + kBlock, -1);
      for (int64_t g = 0; g < G; ++g) {
        overlap_block(block, truth[g]);
        const bool claiming = claims && highest[g] >= static_cast<A>(args.min_positive);
        const int64_t name = number[g];
        for (int64_t i = 0; i < block.count; ++i) {
          const bool better = block.iou[i] > block.best[i];
          block.best[i] = better ? block.iou[i] : block.best[i];
          block.own[i] = better ? name : block.own[i];
        }
        if (!claiming) continue;
        for (int64_t i = 0; i < block.count; ++i) block.claim[i] = block.iou[i] == highest[g] ? name : block.claim[i];
      }
      for (int64_t i = 0; i < block.count; ++i) {
        const int64_t at = image * N + b * kBlock + i;
        args.index[at] = assigned_index(block.best[i], block.own[i], block.claim[i], G > 0, args);
        store(static_cast<T*>(args.iou) + at, G > 0 ? block.best[i] : A(0));
      }
    }
  });
}

}  // namespace

void max_iou_assign_cpu(const MaxIouAssignArgs& args) {
  DETC_DISPATCH_FLOATING(args.dtype, T, {
    for (int64_t image = 0; image < args.batch; ++image) one_image<T>(args, image);
  })
}

}  // namespace detc
