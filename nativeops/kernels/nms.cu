// detc-flags: -fmad=false
// CUDA NMS. Scores become integer keys, a stable radix sort orders them, then one block an image walks the candidates
// in order: no host sync, no workspace that grows with the square of the boxes. Multiply-add fusion is off so that IoU
// rounds as on the CPU.
#include <math.h>

#include "device_sort.h"
#include "launch.h"
#include "nms.h"
#include "rotated_box.h"

namespace detc {
namespace {

constexpr int kTile = 512;

template <class A>
struct KeyOf;
template <>
struct KeyOf<float> {
  using type = uint32_t;
};
template <>
struct KeyOf<double> {
  using type = uint64_t;
};

// As in order.h: larger score, smaller key; NaN first. The largest key is left to what is no candidate.
__device__ inline uint32_t device_key(float score) {
  if (score != score) return 0;
  score += 0.0f;
  uint32_t bits;
  memcpy(&bits, &score, 4);
  bits = (bits & 0x80000000u) ? ~bits : (bits | 0x80000000u);
  return ~bits;
}
__device__ inline uint64_t device_key(double score) {
  if (score != score) return 0;
  score += 0.0;
  uint64_t bits;
  memcpy(&bits, &score, 8);
  bits = (bits >> 63) ? ~bits : (bits | (uint64_t{1} << 63));
  return ~bits;
}

template <class A>
struct StraightBox {
  A x1, y1, x2, y2, area;
};
template <class A, class T>
__device__ void read(const T* p, StraightBox<A>& b) {
  b = {load(p), load(p + 1), load(p + 2), load(p + 3), A(0)};
  b.area = (b.x2 - b.x1) * (b.y2 - b.y1);
}
template <class A, class T>
__device__ void read(const T* p, RotatedBox& b) {
  b = rotated_box_at(p);
}
template <class A>
__device__ A iou_of(const StraightBox<A>& a, const StraightBox<A>& b) {
  const A x1 = a.x1 < b.x1 ? b.x1 : a.x1, y1 = a.y1 < b.y1 ? b.y1 : a.y1, x2 = b.x2 < a.x2 ? b.x2 : a.x2,
          y2 = b.y2 < a.y2 ? b.y2 : a.y2;
  const A w = A(0) < x2 - x1 ? x2 - x1 : A(0), h = A(0) < y2 - y1 ? y2 - y1 : A(0);
  const A inter = w * h;
  return inter / (a.area + b.area - inter);
}
template <class A>
__device__ A iou_of(const RotatedBox& a, const RotatedBox& b) {
  return static_cast<A>(rotated_iou(a, b));
}

// Where everything lies in the workspace. Sizes are for one call; every part starts at a multiple of 256 bytes.
template <class A, class Shape>
struct Layout {
  using Key = typename KeyOf<A>::type;
  Key *keys, *sorted_keys;         // [B, F], F = N * C candidates an image
  uint32_t *index, *sorted_index;  // [B, F]
  int64_t* counts;                 // [B] candidates that count
  Shape* boxes;                    // [B, M], by score
  int64_t* classes;                // [B, M]
  A *scores, *worst;               // [B, M]
  A* chosen;                       // [B, limit] scores of those chosen, where they decay
  int64_t* kept;                   // [B, limit] positions among the sorted
  int64_t* kept_counts;            // [B]
  void* temporary;
  size_t temporary_bytes;
  int64_t total;

  Layout(void* workspace, int64_t batch, int64_t F, int64_t M, int64_t limit) : total(0) {
    char* base = static_cast<char*>(workspace);
    keys = take<Key>(base, batch * F);
    sorted_keys = take<Key>(base, batch * F);
    index = take<uint32_t>(base, batch * F);
    sorted_index = take<uint32_t>(base, batch * F);
    counts = take<int64_t>(base, batch);
    boxes = take<Shape>(base, batch * M);
    classes = take<int64_t>(base, batch * M);
    scores = take<A>(base, batch * M);
    worst = take<A>(base, batch * M);
    chosen = take<A>(base, batch * limit);
    kept = take<int64_t>(base, batch * limit);
    kept_counts = take<int64_t>(base, batch);
    temporary_bytes = sort_pairs_bytes<Key>(F);
    temporary = take<char>(base, static_cast<int64_t>(temporary_bytes));
  }

 private:
  template <class U>
  U* take(char* base, int64_t n) {
    U* here = reinterpret_cast<U*>(base + total);
    total += (n * static_cast<int64_t>(sizeof(U)) + 255) / 256 * 256;
    return here;
  }
};

template <class T, class Key>
__global__ void key_kernel(const T* scores, int64_t F, int64_t batch, double threshold, bool all, Key* keys,
                           uint32_t* index, unsigned long long* counts) {
  DETC_GRID_STRIDE(at, batch * F) {
    const acc_t<T> score = load(scores + at);
    const bool candidate = all || score > static_cast<acc_t<T>>(threshold);
    keys[at] = candidate ? device_key(score) : static_cast<Key>(~Key(0));
    index[at] = static_cast<uint32_t>(at % F);
    if (candidate) atomicAdd(counts + at / F, 1ull);
  }
}

template <class T, class Shape>
__global__ void gather_kernel(NmsArgs args, int64_t F, int64_t M, const uint32_t* sorted_index, const int64_t* counts,
                              Shape* boxes, int64_t* classes, acc_t<T>* scores) {
  using A = acc_t<T>;
  const int64_t D = args.rotated ? 5 : 4;
  DETC_GRID_STRIDE(at, args.batch * M) {
    const int64_t image = at / M, m = at % M;
    if (m >= counts[image]) continue;
    const int64_t candidate = sorted_index[image * F + m], n = candidate / args.num_classes;
    read<A>(static_cast<const T*>(args.boxes) + (image * args.num_boxes + n) * D, boxes[at]);
    classes[at] = args.labels ? args.labels[image * args.num_boxes + n] : candidate % args.num_classes;
    scores[at] = load(static_cast<const T*>(args.scores) + image * F + candidate);
  }
}

template <class A, class Shape>
__device__ bool suppresses(const Shape* boxes, const int64_t* classes, bool together, double threshold, int64_t i,
                           int64_t j) {
  return (together || classes[i] == classes[j]) && static_cast<double>(iou_of<A>(boxes[i], boxes[j])) > threshold;
}

// Greedy suppression, one block an image: a tile of candidates against all kept before it, in parallel; then the tile,
// one kept box at a time.
template <class A, class Shape>
__global__ void greedy_kernel(const Shape* all_boxes, const int64_t* all_classes, const int64_t* counts, int64_t M,
                              bool together, double threshold, int64_t limit, int64_t* all_kept, int64_t* kept_counts) {
  __shared__ uint8_t dead[kTile];
  const int64_t image = blockIdx.x;
  const Shape* boxes = all_boxes + image * M;
  const int64_t* classes = all_classes + image * M;
  int64_t* kept = all_kept + image * limit;
  const int64_t n = counts[image] < M ? counts[image] : M;
  int64_t count = 0;
  for (int64_t tile = 0; tile < n && count < limit; tile += kTile) {
    const int64_t here = tile + kTile < n ? kTile : n - tile;
    for (int64_t i = threadIdx.x; i < here; i += blockDim.x) {
      bool gone = false;
      for (int64_t k = 0; k < count && !gone; ++k)
        gone = suppresses<A>(boxes, classes, together, threshold, kept[k], tile + i);
      dead[i] = gone;
    }
    __syncthreads();
    for (int64_t i = 0; i < here && count < limit; ++i) {
      if (dead[i]) continue;  // the same for all threads: nothing was written since the last barrier
      if (threadIdx.x == 0) kept[count] = tile + i;
      ++count;
      for (int64_t j = i + 1 + threadIdx.x; j < here; j += blockDim.x)
        if (!dead[j] && suppresses<A>(boxes, classes, together, threshold, tile + i, tile + j)) dead[j] = 1;
      __syncthreads();
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) kept_counts[image] = count;
}

// The best remaining candidate again and again, one block an image: soft-NMS when it decays the others, the last step
// of matrix NMS when not.
template <class A, class Shape>
__global__ void select_kernel(NmsArgs args, bool decay, const Shape* all_boxes, const int64_t* all_classes,
                              const uint32_t* sorted_index, int64_t F, const int64_t* counts, int64_t M, A* all_scores,
                              A* chosen_scores, int64_t* all_kept, int64_t* kept_counts) {
  __shared__ A best_scores[kThreads];
  __shared__ int64_t best_positions[kThreads];
  const int64_t image = blockIdx.x;
  const Shape* boxes = all_boxes + image * M;
  const int64_t* classes = all_classes + image * M;
  const uint32_t* candidate = sorted_index + image * F;
  A* scores = all_scores + image * M;
  const int64_t n = counts[image] < M ? counts[image] : M;
  const bool together = args.class_agnostic;
  int64_t count = 0;
  for (; count < args.keep; ++count) {
    A best = -INFINITY;
    int64_t position = -1;
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x)
      if (scores[i] > best || (scores[i] == best && position >= 0 && candidate[i] < candidate[position])) {
        best = scores[i];
        position = i;
      }
    best_scores[threadIdx.x] = best;
    best_positions[threadIdx.x] = position;
    __syncthreads();
    for (unsigned step = 1; step < blockDim.x; step *= 2) {
      const unsigned mine = threadIdx.x * 2 * step, other = mine + step;
      if (other < blockDim.x && best_positions[other] >= 0) {
        const bool better = best_positions[mine] < 0 || best_scores[other] > best_scores[mine] ||
                            (best_scores[other] == best_scores[mine] &&
                             candidate[best_positions[other]] < candidate[best_positions[mine]]);
        if (better) {
          best_scores[mine] = best_scores[other];
          best_positions[mine] = best_positions[other];
        }
      }
      __syncthreads();
    }
    best = best_scores[0];
    position = best_positions[0];
    __syncthreads();
    if (position < 0 || !(best > static_cast<A>(args.min_score))) break;
    if (threadIdx.x == 0) {
      all_kept[image * args.keep + count] = position;
      chosen_scores[image * args.keep + count] = best;
      scores[position] = -INFINITY;
    }
    if (decay) {
      for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
        if (i == position || !(together || classes[i] == classes[position])) continue;
        const A iou = iou_of<A>(boxes[position], boxes[i]);
        if (args.method == NmsMethod::soft_linear) {
          if (static_cast<double>(iou) > args.iou_threshold) scores[i] *= A(1) - iou;
        } else if (iou == iou) {
          scores[i] *= exp(-(iou * iou) / static_cast<A>(args.sigma));
        }
      }
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) kept_counts[image] = count;
}

// Matrix NMS in two passes over the pairs: how much each box is overlapped by a better one, then the decay that
// follows.
template <class A, class Shape>
__global__ void worst_kernel(NmsArgs args, const Shape* all_boxes, const int64_t* all_classes, const int64_t* counts,
                             int64_t M, A* worst) {
  DETC_GRID_STRIDE(at, args.batch * M) {
    const int64_t image = at / M, j = at % M;
    const int64_t n = counts[image] < M ? counts[image] : M;
    if (j >= n) continue;
    const Shape* boxes = all_boxes + image * M;
    const int64_t* classes = all_classes + image * M;
    A most = 0;
    for (int64_t i = 0; i < j; ++i) {
      if (!(args.class_agnostic || classes[i] == classes[j])) continue;
      const A iou = iou_of<A>(boxes[i], boxes[j]);
      if (iou > most) most = iou;
    }
    worst[at] = most;
  }
}

template <class A, class Shape>
__global__ void decay_kernel(NmsArgs args, const Shape* all_boxes, const int64_t* all_classes, const int64_t* counts,
                             int64_t M, const A* all_worst, A* scores) {
  const A sigma = static_cast<A>(args.sigma);
  DETC_GRID_STRIDE(at, args.batch * M) {
    const int64_t image = at / M, j = at % M;
    const int64_t n = counts[image] < M ? counts[image] : M;
    if (j >= n) continue;
    const Shape* boxes = all_boxes + image * M;
    const int64_t* classes = all_classes + image * M;
    const A* worst = all_worst + image * M;
    A decay = 1;
    for (int64_t i = 0; i < j; ++i) {
      if (!(args.class_agnostic || classes[i] == classes[j])) continue;
      const A iou = iou_of<A>(boxes[i], boxes[j]);
      if (!(iou > A(0))) continue;
      const A room = A(1) - worst[i] > A(1e-6) ? A(1) - worst[i] : A(1e-6);
      const A ratio = args.method == NmsMethod::matrix_linear ? (A(1) - iou) / room
                                                              : exp(-sigma * (iou * iou - worst[i] * worst[i]));
      if (ratio < decay) decay = ratio;
    }
    scores[at] *= decay;
  }
}

template <class T, class A>
__global__ void write_kernel(NmsArgs args, int64_t F, int64_t M, int64_t limit, const uint32_t* sorted_index,
                             const int64_t* classes, const A* scores, bool by_slot, const int64_t* kept,
                             const int64_t* kept_counts) {
  const int64_t K = args.keep, D = args.rotated ? 5 : 4;
  DETC_GRID_STRIDE(at, args.batch * K) {
    const int64_t image = at / K, k = at % K;
    const bool valid = k < kept_counts[image];
    const int64_t m = valid ? kept[image * limit + k] : 0;
    const int64_t n = valid ? sorted_index[image * F + m] / args.num_classes : 0;
    T* out = static_cast<T*>(args.out_boxes) + at * D;
    const T* box = static_cast<const T*>(args.boxes) + (image * args.num_boxes + n) * D;
    for (int64_t d = 0; d < D; ++d) {
      if (valid)
        out[d] = box[d];
      else
        store(out + d, A(0));
    }
    store(static_cast<T*>(args.out_scores) + at, valid ? scores[by_slot ? at : image * M + m] : A(0));
    args.out_labels[at] = valid ? classes[image * M + m] : 0;
    args.out_index[at] = n;
    args.out_valid[at] = valid;
  }
}

__global__ void index_kernel(const uint32_t* sorted_index, int64_t* kept, const int64_t* kept_count, int64_t* count) {
  DETC_GRID_STRIDE(i, *kept_count) kept[i] = sorted_index[kept[i]];
  if (blockIdx.x == 0 && threadIdx.x == 0) *count = *kept_count;
}

struct Sizes {
  int64_t F, M, limit;
};

Sizes sizes_of(const NmsArgs& args) {
  const int64_t F = args.num_boxes * args.num_classes;
  return {F, args.pre_topk > 0 && args.pre_topk < F ? args.pre_topk : F, args.keep};
}

template <class T, class Shape>
void batched(const NmsArgs& args, void* workspace, void* stream) {
  using A = acc_t<T>;
  const Sizes s = sizes_of(args);
  const Layout<A, Shape> at(workspace, args.batch, s.F, s.M, s.limit);
  cudaMemsetAsync(at.counts, 0, args.batch * sizeof(int64_t), static_cast<cudaStream_t>(stream));
  cudaMemsetAsync(at.kept_counts, 0, args.batch * sizeof(int64_t), static_cast<cudaStream_t>(stream));
  A* chosen = at.scores;
  const bool by_slot = args.method != NmsMethod::hard;
  if (s.F > 0) {
    DETC_LAUNCH(key_kernel<T>, blocks_for(args.batch * s.F), kThreads, stream, static_cast<const T*>(args.scores), s.F,
                args.batch, args.score_threshold, false, at.keys, at.index,
                reinterpret_cast<unsigned long long*>(at.counts));
    for (int64_t b = 0; b < args.batch; ++b)
      sort_pairs(at.temporary, at.temporary_bytes, at.keys + b * s.F, at.sorted_keys + b * s.F, at.index + b * s.F,
                 at.sorted_index + b * s.F, s.F, stream);
    DETC_LAUNCH((gather_kernel<T, Shape>), blocks_for(args.batch * s.M), kThreads, stream, args, s.F, s.M,
                at.sorted_index, at.counts, at.boxes, at.classes, at.scores);
    const bool soft = args.method == NmsMethod::soft_linear || args.method == NmsMethod::soft_gaussian;
    if (args.method == NmsMethod::hard) {
      DETC_LAUNCH_TEAMS((greedy_kernel<A, Shape>), args.batch, kThreads, stream, at.boxes, at.classes, at.counts, s.M,
                        args.class_agnostic, args.iou_threshold, s.limit, at.kept, at.kept_counts);
    } else {
      if (!soft) {
        DETC_LAUNCH((worst_kernel<A, Shape>), blocks_for(args.batch * s.M), kThreads, stream, args, at.boxes,
                    at.classes, at.counts, s.M, at.worst);
        DETC_LAUNCH((decay_kernel<A, Shape>), blocks_for(args.batch * s.M), kThreads, stream, args, at.boxes,
                    at.classes, at.counts, s.M, at.worst, at.scores);
      }
      chosen = at.chosen;
      DETC_LAUNCH_TEAMS((select_kernel<A, Shape>), args.batch, kThreads, stream, args, soft, at.boxes, at.classes,
                        at.sorted_index, s.F, at.counts, s.M, at.scores, chosen, at.kept, at.kept_counts);
    }
  }
  DETC_LAUNCH((write_kernel<T, A>), blocks_for(args.batch * args.keep), kThreads, stream, args, s.F, s.M, s.limit,
              at.sorted_index, at.classes, chosen, by_slot, at.kept, at.kept_counts);
}

template <class T, class Shape>
void plain(const NmsArgs& args, int64_t* kept, int64_t* count, void* workspace, void* stream) {
  using A = acc_t<T>;
  const int64_t n = args.num_boxes;
  const Layout<A, Shape> at(workspace, 1, n, n, n);
  cudaMemsetAsync(at.counts, 0, sizeof(int64_t), static_cast<cudaStream_t>(stream));
  DETC_LAUNCH(key_kernel<T>, blocks_for(n), kThreads, stream, static_cast<const T*>(args.scores), n, int64_t{1}, 0.0,
              true, at.keys, at.index, reinterpret_cast<unsigned long long*>(at.counts));
  sort_pairs(at.temporary, at.temporary_bytes, at.keys, at.sorted_keys, at.index, at.sorted_index, n, stream);
  DETC_LAUNCH((gather_kernel<T, Shape>), blocks_for(n), kThreads, stream, args, n, n, at.sorted_index, at.counts,
              at.boxes, at.classes, at.scores);
  DETC_LAUNCH_TEAMS((greedy_kernel<A, Shape>), 1, kThreads, stream, at.boxes, at.classes, at.counts, n, true,
                    args.iou_threshold, n, kept, at.kept_counts);
  DETC_LAUNCH(index_kernel, blocks_for(n), kThreads, stream, at.sorted_index, kept, at.kept_counts, count);
}

NmsArgs plain_args(DType dtype, bool rotated, const void* boxes, const void* scores, int64_t n, double iou_threshold) {
  NmsArgs args{};
  args.dtype = dtype;
  args.rotated = rotated;
  args.boxes = boxes;
  args.scores = scores;
  args.batch = args.num_classes = 1;
  args.num_boxes = n;
  args.iou_threshold = iou_threshold;
  return args;
}

}  // namespace

#define DETC_DISPATCH_SHAPE(args, T, Shape, ...) \
  DETC_DISPATCH_FLOATING((args).dtype, T, {      \
    if ((args).rotated) {                        \
      using Shape = RotatedBox;                  \
      __VA_ARGS__                                \
    } else {                                     \
      using Shape = StraightBox<acc_t<T>>;       \
      __VA_ARGS__                                \
    }                                            \
  })

int64_t batched_nms_cuda_workspace(const NmsArgs& args) {
  const Sizes s = sizes_of(args);
  int64_t bytes = 0;
  DETC_DISPATCH_SHAPE(args, T, Shape,
                      { bytes = Layout<acc_t<T>, Shape>(nullptr, args.batch, s.F, s.M, s.limit).total; })
  return bytes;
}

void batched_nms_cuda(const NmsArgs& args, void* workspace, int64_t, void* stream){
    DETC_DISPATCH_SHAPE(args, T, Shape, { batched<T, Shape>(args, workspace, stream); })}

int64_t nms_cuda_workspace(DType dtype, bool rotated, int64_t n) {
  const NmsArgs args = plain_args(dtype, rotated, nullptr, nullptr, n, 0);
  int64_t bytes = 0;
  DETC_DISPATCH_SHAPE(args, T, Shape, { bytes = Layout<acc_t<T>, Shape>(nullptr, 1, n, n, n).total; })
  return bytes;
}

void nms_cuda(DType dtype, bool rotated, const void* boxes, const void* scores, int64_t n, double iou_threshold,
              int64_t* kept, int64_t* count, void* workspace, int64_t, void* stream) {
  const NmsArgs args = plain_args(dtype, rotated, boxes, scores, n, iou_threshold);
  DETC_DISPATCH_SHAPE(args, T, Shape, { plain<T, Shape>(args, kept, count, workspace, stream); })
}

}  // namespace detc
