// detc-flags: -fmad=false
// CUDA RoIAlign: one thread an output element. The backward adds in fixed point (fixed_point.h), so it is
// deterministic. Multiply-add fusion is off so that samples lie exactly where they do on the CPU.
#include "fixed_point.h"
#include "launch.h"
#include "roi_align.h"

namespace detc {
namespace {

// Calls f(offset in the plane, weight) for every tap of every sample of one bin; weights include the division by the
// number of samples.
template <class A, class F>
__device__ void for_taps(const RoiAlignArgs& args, const RoiGeometry<A>& g, int64_t p, int64_t q, const F& f) {
  const int64_t H = args.height[g.level], W = args.width[g.level];
  A y_first, y_last, x_first, x_last;
  roi_sample_range(g.y, g.bin_h, g.grid_h, p, H, &y_first, &y_last);
  roi_sample_range(g.x, g.bin_w, g.grid_w, q, W, &x_first, &x_last);
  for (A iy = y_first; iy < y_last; iy += A(1)) {
    int64_t y0, y1;
    A wy;
    if (!roi_sample(roi_position(g.y, g.bin_h, g.grid_h, p, iy), H, &y0, &y1, &wy)) continue;
    for (A ix = x_first; ix < x_last; ix += A(1)) {
      int64_t x0, x1;
      A wx;
      if (!roi_sample(roi_position(g.x, g.bin_w, g.grid_w, q, ix), W, &x0, &x1, &wx)) continue;
      f(y0 * W + x0, (A(1) - wy) * (A(1) - wx) / g.count);
      f(y0 * W + x1, (A(1) - wy) * wx / g.count);
      f(y1 * W + x0, wy * (A(1) - wx) / g.count);
      f(y1 * W + x1, wy * wx / g.count);
    }
  }
}

template <class T>
__global__ void forward_kernel(RoiAlignArgs args) {
  using A = acc_t<T>;
  const int64_t Q = args.pooled_width, P = args.pooled_height, C = args.channels;
  DETC_GRID_STRIDE(at, args.num_rois * C * P * Q) {
    const int64_t q = at % Q, p = at / Q % P, c = at / (Q * P) % C, roi = at / (Q * P * C);
    const RoiGeometry<A> g = roi_geometry<A>(args, roi);
    A sum = 0;
    if (g.usable) {
      const T* plane = static_cast<const T*>(args.features[g.level]) +
                       (g.image * C + c) * args.height[g.level] * args.width[g.level];
      for_taps(args, g, p, q, [&](int64_t offset, A weight) { sum += weight * static_cast<A>(load(plane + offset)); });
    }
    store(static_cast<T*>(args.output) + at, sum);
  }
}

template <class T>
__global__ void backward_kernel(RoiAlignArgs args, FixedPoint sums) {
  using A = acc_t<T>;
  const int64_t Q = args.pooled_width, P = args.pooled_height, C = args.channels;
  bool finite;
  const A scale = static_cast<A>(ldexp(1.0, fixed_point_exponent(sums, 1, &finite)));
  if (!finite) return;
  DETC_GRID_STRIDE(at, args.num_rois * C * P * Q) {
    const int64_t q = at % Q, p = at / Q % P, c = at / (Q * P) % C, roi = at / (Q * P * C);
    const RoiGeometry<A> g = roi_geometry<A>(args, roi);
    if (!g.usable) continue;
    int64_t start = 0;
    for (int64_t l = 0; l < g.level; ++l) start += args.batch * C * args.height[l] * args.width[l];
    start += (g.image * C + c) * args.height[g.level] * args.width[g.level];
    const A grad = load(static_cast<const T*>(args.grad) + at);
    for_taps(args, g, p, q, [&](int64_t offset, A weight) {
      if (weight != A(0)) fixed_point_add(sums, start + offset, grad * weight, scale);
    });
  }
}

int64_t elements(const RoiAlignArgs& args) {
  int64_t n = 0;
  for (int64_t l = 0; l < args.num_levels; ++l) n += args.batch * args.channels * args.height[l] * args.width[l];
  return n;
}

template <class T>
void backward(const RoiAlignArgs& args, void* workspace, void* stream) {
  const int64_t outputs = args.num_rois * args.channels * args.pooled_height * args.pooled_width;
  // The weights that one bin gives one pixel add up to at most 1, so a pixel's sum is bounded by the number of bins of
  // its image.
  const int64_t bins = args.num_rois * args.pooled_height * args.pooled_width;
  FixedPoint sums = fixed_point_begin(workspace, elements(args), bins, stream);
  fixed_point_bound(sums, 0, static_cast<const T*>(args.grad), outputs, stream);
  if (outputs > 0) DETC_LAUNCH(backward_kernel<T>, blocks_for(outputs), kThreads, stream, args, sums);
  for (int64_t l = 0; l < args.num_levels; ++l) {
    sums.n = args.batch * args.channels * args.height[l] * args.width[l];
    if (sums.n == 0) continue;
    fixed_point_finish(sums, 1, static_cast<T*>(args.grad_features[l]), stream);
    sums.sums += sums.n;
  }
}

}  // namespace

void roi_align_forward_cuda(const RoiAlignArgs& args, void* stream) {
  const int64_t outputs = args.num_rois * args.channels * args.pooled_height * args.pooled_width;
  DETC_DISPATCH_FLOATING(args.dtype, T, DETC_LAUNCH(forward_kernel<T>, blocks_for(outputs), kThreads, stream, args);)
}

int64_t roi_align_backward_cuda_workspace(const RoiAlignArgs& args) { return fixed_point_bytes(elements(args)); }

void roi_align_backward_cuda(const RoiAlignArgs& args, void* workspace, void* stream) {
  DETC_DISPATCH_FLOATING(args.dtype, T, backward<T>(args, workspace, stream);)
}

}  // namespace detc
