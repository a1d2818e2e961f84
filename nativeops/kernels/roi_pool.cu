#include "fixed_point.h"
#include "launch.h"
#include "roi_pool.h"

namespace detc {
namespace {

template <class T>
__global__ void forward_kernel(RoiPoolArgs args) {
  using A = acc_t<T>;
  const int64_t Q = args.pooled_width, P = args.pooled_height, C = args.channels;
  DETC_GRID_STRIDE(at, args.num_rois * C * P * Q) {
    const RoiPixels r = roi_pixels<A>(args, at / (Q * P * C));
    A value = 0;
    int64_t where = -1;
    if (r.image >= 0)
      roi_pool_bin(args, r,
                   static_cast<const T*>(args.feature) + (r.image * C + at / (Q * P) % C) * args.height * args.width,
                   at / Q % P, at % Q, &value, &where);
    store(static_cast<T*>(args.output) + at, value);
    args.argmax[at] = where;
  }
}

template <class T>
__global__ void backward_kernel(RoiPoolArgs args, FixedPoint sums) {
  using A = acc_t<T>;
  const int64_t PQ = args.pooled_width * args.pooled_height, C = args.channels, plane = args.height * args.width;
  bool finite;
  const A scale = static_cast<A>(ldexp(1.0, fixed_point_exponent(sums, 1, &finite)));
  if (!finite) return;
  DETC_GRID_STRIDE(at, args.num_rois * C * PQ) {
    const int64_t where = args.argmax[at], image = roi_pixels<A>(args, at / (PQ * C)).image;
    if (image >= 0 && where >= 0 && where < plane)
      fixed_point_add(sums, (image * C + at / PQ % C) * plane + where,
                      static_cast<A>(load(static_cast<const T*>(args.grad) + at)), scale);
  }
}

template <class T>
void backward(const RoiPoolArgs& args, void* workspace, void* stream) {
  const int64_t elements = args.batch * args.channels * args.height * args.width;
  const int64_t outputs = args.num_rois * args.channels * args.pooled_height * args.pooled_width;
  const FixedPoint sums =
      fixed_point_begin(workspace, elements, args.num_rois * args.pooled_height * args.pooled_width, stream);
  fixed_point_bound(sums, 0, static_cast<const T*>(args.grad), outputs, stream);
  if (outputs > 0) DETC_LAUNCH(backward_kernel<T>, blocks_for(outputs), kThreads, stream, args, sums);
  fixed_point_finish(sums, 1, static_cast<T*>(args.grad_feature), stream);
}

}  // namespace

void roi_pool_cuda(const RoiPoolArgs& args, void* stream){DETC_DISPATCH_FLOATING(args.dtype, T, {
  DETC_LAUNCH(forward_kernel<T>, blocks_for(args.num_rois * args.channels * args.pooled_height * args.pooled_width),
              kThreads, stream, args);
})} int64_t roi_pool_backward_cuda_workspace(const RoiPoolArgs& args) {
  return fixed_point_bytes(args.batch * args.channels * args.height * args.width);
}
void roi_pool_backward_cuda(const RoiPoolArgs& args, void* workspace, void* stream) {
  DETC_DISPATCH_FLOATING(args.dtype, T, backward<T>(args, workspace, stream);)
}

}  // namespace detc
