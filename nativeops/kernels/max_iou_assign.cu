#include "launch.h"
#include "max_iou_assign.h"

namespace detc {
namespace {

template <class T>
__device__ OverlapBox<acc_t<T>> box_at(const void* boxes, int64_t i) {
  const T* p = static_cast<const T*>(boxes) + i * 4;
  return overlap_box<IouKind::iou, acc_t<T>>(load(p), load(p + 1), load(p + 2), load(p + 3));
}

// Overlaps are not negative, so their bits order as integers do and an atomic maximum needs no float.
__device__ inline unsigned long long bits_of(double x) {
  unsigned long long bits;
  memcpy(&bits, &x, 8);
  return bits;
}

template <class T>
__global__ void highest_kernel(MaxIouAssignArgs args, unsigned long long* highest) {
  DETC_GRID_STRIDE(at, args.batch * args.n) {
    const int64_t image = at / args.n, i = at % args.n;
    const auto box = box_at<T>(args.boxes, args.shared_boxes ? i : at);
    for (int64_t g = 0; g < args.g; ++g) {
      const int64_t truth = image * args.g + g;
      if (!args.valid[truth]) continue;
      const unsigned long long bits = bits_of(static_cast<double>(assign_overlap(box, box_at<T>(args.truths, truth))));
      if (bits > highest[truth]) atomicMax(highest + truth, bits);
    }
  }
}

template <class T>
__global__ void assign_kernel(MaxIouAssignArgs args, const unsigned long long* highest) {
  using A = acc_t<T>;
  DETC_GRID_STRIDE(at, args.batch * args.n) {
    const int64_t image = at / args.n, i = at % args.n;
    const auto box = box_at<T>(args.boxes, args.shared_boxes ? i : at);
    A best = A(-1);
    int64_t own = 0, claim = -1;
    bool any = false;
    const A least = args.min_positive > 0 ? static_cast<A>(args.min_positive) : A(0);
    for (int64_t g = 0; g < args.g; ++g) {
      const int64_t truth = image * args.g + g;
      if (!args.valid[truth]) continue;
      any = true;
      const A iou = assign_overlap(box, box_at<T>(args.truths, truth));
      if (iou > best) {
        best = iou;
        own = g;
      }
      if (args.low_quality != LowQuality::none && bits_of(static_cast<double>(iou)) == highest[truth] &&
          bits_of(static_cast<double>(least)) <= highest[truth])
        claim = g;
    }
    args.index[at] = assigned_index(best, own, claim, any, args);
    store(static_cast<T*>(args.iou) + at, any ? best : A(0));
  }
}

}  // namespace

int64_t max_iou_assign_cuda_workspace(const MaxIouAssignArgs& args) { return args.batch * args.g * 8; }

void max_iou_assign_cuda(const MaxIouAssignArgs& args, void* workspace, void* stream) {
  unsigned long long* highest = static_cast<unsigned long long*>(workspace);
  const int64_t total = args.batch * args.n;
  if (total == 0) return;
  cudaMemsetAsync(workspace, 0, static_cast<size_t>(args.batch * args.g * 8), static_cast<cudaStream_t>(stream));
  DETC_DISPATCH_FLOATING(args.dtype, T, {
    if (args.low_quality != LowQuality::none)
      DETC_LAUNCH(highest_kernel<T>, blocks_for(total), kThreads, stream, args, highest);
    DETC_LAUNCH(assign_kernel<T>, blocks_for(total), kThreads, stream, args, highest);
  })
}

}  // namespace detc
