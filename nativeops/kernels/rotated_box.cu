#include "launch.h"
#include "rotated_box.h"

namespace detc {
namespace {

template <class T>
__global__ void rotated_iou_kernel(RotatedIouArgs args) {
  const int64_t m = args.aligned ? 1 : args.m;
  DETC_GRID_STRIDE(at, args.n * m) {
    const int64_t i = at / m, j = args.aligned ? i : at % m;
    const double iou = rotated_iou(rotated_box_at(static_cast<const T*>(args.a) + i * 5),
                                   rotated_box_at(static_cast<const T*>(args.b) + j * 5));
    store(static_cast<T*>(args.out) + at, static_cast<acc_t<T>>(iou));
  }
}

}  // namespace

void rotated_iou_cuda(const RotatedIouArgs& args, void* stream) {
  const int64_t total = args.n * (args.aligned ? 1 : args.m);
  if (total == 0) return;
  DETC_DISPATCH_FLOATING(args.dtype, T, DETC_LAUNCH(rotated_iou_kernel<T>, blocks_for(total), kThreads, stream, args);)
}

}  // namespace detc
