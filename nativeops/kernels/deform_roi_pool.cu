#include "deform_roi_pool.h"
#include "fixed_point.h"
#include "launch.h"

namespace detc {
namespace {

template <class T>
__device__ RoiBins<acc_t<T>> bins_of(const DeformRoiPool& s, const T* rois, int64_t n) {
  using A = acc_t<T>;
  const A roi[5] = {load(rois + n * 5), load(rois + n * 5 + 1), load(rois + n * 5 + 2), load(rois + n * 5 + 3), load(rois + n * 5 + 4)};
  return RoiBins<A>(s, roi);
}

template <class T>
__device__ acc_t<T> shift(const DeformRoiPool& s, const T* offset, int64_t n, int64_t axis, int64_t bin) {
  using A = acc_t<T>;
  return offset ? A(s.gamma) * A(load(offset + (n * 2 + axis) * s.bins() + bin)) : A(0);
}

template <class T>
__global__ void forward_kernel(DeformRoiPool s, const T* x, const T* rois, const T* offset, T* out) {
  using A = acc_t<T>;
  DETC_GRID_STRIDE(item, s.rois * s.channels * s.bins()) {
    const int64_t bin = item % s.bins(), c = item / s.bins() % s.channels, n = item / (s.bins() * s.channels);
    const auto roi = bins_of(s, rois, n);
    A sum = 0;
    if (roi.valid) {
      const A dx = shift(s, offset, n, 0, bin), dy = shift(s, offset, n, 1, bin);
      const T* plane = x + (roi.image * s.channels + c) * s.height * s.width;
      for (int64_t i = 0; i < roi.count_h; ++i)
        for (int64_t j = 0; j < roi.count_w; ++j) {
          const RoiSample<A> at(roi.y(bin / s.bins_w, i, dy), roi.x(bin % s.bins_w, j, dx), s.height, s.width);
          if (!at.inside) continue;
          for (int t = 0; t < 4; ++t) sum += at.tap.weight(t) * A(load(plane + at.tap.index[t]));
        }
      sum /= roi.samples();
    }
    store(out + item, sum);
  }
}

template <class T>
__global__ void source_kernel(DeformRoiPool s, const T* grad_out, const T* rois, const T* offset, FixedPoint grad_x) {
  using A = acc_t<T>;
  bool finite;
  const A scale = static_cast<A>(ldexp(1.0, fixed_point_exponent(grad_x, 1, &finite)));
  if (!finite) return;
  DETC_GRID_STRIDE(item, s.rois * s.channels * s.bins()) {
    const int64_t bin = item % s.bins(), c = item / s.bins() % s.channels, n = item / (s.bins() * s.channels);
    const auto roi = bins_of(s, rois, n);
    if (!roi.valid) continue;
    const A g = A(load(grad_out + item)) / roi.samples();
    const A dx = shift(s, offset, n, 0, bin), dy = shift(s, offset, n, 1, bin);
    const int64_t plane = (roi.image * s.channels + c) * s.height * s.width;
    for (int64_t i = 0; i < roi.count_h; ++i)
      for (int64_t j = 0; j < roi.count_w; ++j) {
        const RoiSample<A> at(roi.y(bin / s.bins_w, i, dy), roi.x(bin % s.bins_w, j, dx), s.height, s.width);
        if (!at.inside) continue;
        for (int t = 0; t < 4; ++t)
          if (at.tap.reads(t)) fixed_point_add(grad_x, plane + at.tap.index[t], g * at.tap.weight(t), scale);
      }
  }
}

// One thread a bin, which walks the channels.
template <class T>
__global__ void offset_kernel(DeformRoiPool s, const T* grad_out, const T* x, const T* rois, const T* offset, T* grad_offset) {
  using A = acc_t<T>;
  DETC_GRID_STRIDE(item, s.rois * s.bins()) {
    const int64_t bin = item % s.bins(), n = item / s.bins();
    const auto roi = bins_of(s, rois, n);
    A slope_x = 0, slope_y = 0;
    if (roi.valid) {
      const A dx = shift(s, offset, n, 0, bin), dy = shift(s, offset, n, 1, bin);
      for (int64_t i = 0; i < roi.count_h; ++i)
        for (int64_t j = 0; j < roi.count_w; ++j) {
          const RoiSample<A> at(roi.y(bin / s.bins_w, i, dy), roi.x(bin % s.bins_w, j, dx), s.height, s.width);
          if (!at.inside) continue;
          A along[4] = {0, 0, 0, 0};
          for (int64_t c = 0; c < s.channels; ++c) {
            const A g = load(grad_out + (n * s.channels + c) * s.bins() + bin);
            const T* plane = x + (roi.image * s.channels + c) * s.height * s.width;
            for (int t = 0; t < 4; ++t)
              if (at.tap.reads(t)) along[t] += g * A(load(plane + at.tap.index[t]));
          }
          if (at.slopes_x) slope_x += at.tap.slope_x(along[0], along[1], along[2], along[3]);
          if (at.slopes_y) slope_y += at.tap.slope_y(along[0], along[1], along[2], along[3]);
        }
      slope_x *= A(s.gamma) * roi.width / roi.samples();
      slope_y *= A(s.gamma) * roi.height / roi.samples();
    }
    store(grad_offset + n * 2 * s.bins() + bin, slope_x);
    store(grad_offset + (n * 2 + 1) * s.bins() + bin, slope_y);
  }
}

}  // namespace

void deform_roi_pool_cuda(
    DType dtype, const DeformRoiPool& s, const void* x, const void* rois, const void* offset, void* out, void* stream) {
  const int64_t n = s.rois * s.channels * s.bins();
  if (n == 0) return;
  DETC_DISPATCH_FLOATING(dtype, T, {
    DETC_LAUNCH(
        forward_kernel<T>, blocks_for(n), kThreads, stream, s, static_cast<const T*>(x), static_cast<const T*>(rois),
        static_cast<const T*>(offset), static_cast<T*>(out));
  });
}

int64_t deform_roi_pool_backward_workspace(const DeformRoiPool& s) {
  return fixed_point_bytes(s.images * s.channels * s.height * s.width);
}

void deform_roi_pool_backward_cuda(
    DType dtype, const DeformRoiPool& s, const void* grad_out, const void* x, const void* rois, const void* offset, void* grad_x,
    void* grad_offset, void* workspace, void* stream) {
  const int64_t pixels = s.images * s.channels * s.height * s.width, n = s.rois * s.channels * s.bins();
  DETC_DISPATCH_FLOATING(dtype, T, {
    // The weights of a bin's samples add up to one, so rois * bins contributions of the bound's size meet at most.
    const FixedPoint sums = fixed_point_begin(workspace, pixels, s.rois * s.bins(), stream);
    fixed_point_bound(sums, 0, static_cast<const T*>(grad_out), n, stream);
    if (n > 0)
      DETC_LAUNCH(
          source_kernel<T>, blocks_for(n), kThreads, stream, s, static_cast<const T*>(grad_out), static_cast<const T*>(rois),
          static_cast<const T*>(offset), sums);
    if (pixels > 0) fixed_point_finish(sums, 1, static_cast<T*>(grad_x), stream);
    if (offset && s.rois * s.bins() > 0)
      DETC_LAUNCH(
          offset_kernel<T>, blocks_for(s.rois * s.bins()), kThreads, stream, s, static_cast<const T*>(grad_out), static_cast<const T*>(x),
          static_cast<const T*>(rois), static_cast<const T*>(offset), static_cast<T*>(grad_offset));
  });
}

}  // namespace detc
