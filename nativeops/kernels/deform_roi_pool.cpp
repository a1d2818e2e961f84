#include "deform_roi_pool.h"

#include "layout.h"
#include "simd.h"

namespace detc {
namespace {

constexpr int64_t kSlice = 64;  // channels whose gradients one job sums alone

template <class T>
RoiBins<T> bins_of(const DeformRoiPool& s, const T* rois, int64_t n) {
  const T* r = rois + n * 5;
  return RoiBins<T>(s, {r[0], r[1], r[2], r[3], r[4]});
}

// Shift of a bin in units of the roi's size; axis 0 is x.
template <class T>
T shift(const DeformRoiPool& s, const T* offset, int64_t n, int64_t axis, int64_t bin) {
  return offset ? static_cast<T>(s.gamma) * offset[(n * 2 + axis) * s.bins() + bin] : T(0);
}

template <class T>
void forward(const DeformRoiPool& s, const T* x, const T* rois, const T* offset, T* out) {
  const int64_t C = s.channels, pixels = s.height * s.width, bins = s.bins();
  const auto x_held = channels_last(x, s.images, C, pixels);
  const T* x_last = x_held.get();
  parallel_for(s.rois, grain_for(bins * C), [=, &s](int64_t begin, int64_t end) {
    const auto sums = scratch<T>(bins * C);
    for (int64_t n = begin; n < end; ++n) {
      std::fill_n(sums.get(), bins * C, T(0));
      const auto roi = bins_of(s, rois, n);
      for (int64_t bin = 0; roi.valid && bin < bins; ++bin) {
        T* sum = sums.get() + bin * C;
        const T dx = shift(s, offset, n, 0, bin), dy = shift(s, offset, n, 1, bin);
        for (int64_t i = 0; i < roi.count_h; ++i)
          for (int64_t j = 0; j < roi.count_w; ++j) {
            const RoiSample<T> at(roi.y(bin / s.bins_w, i, dy), roi.x(bin % s.bins_w, j, dx), s.height, s.width);
            if (!at.inside) continue;
            const T w0 = at.tap.weight(0), w1 = at.tap.weight(1), w2 = at.tap.weight(2), w3 = at.tap.weight(3);
            const T* base = x_last + roi.image * pixels * C;
            const T *v0 = base + at.tap.index[0] * C, *v1 = base + at.tap.index[1] * C;
            const T *v2 = base + at.tap.index[2] * C, *v3 = base + at.tap.index[3] * C;
            for (int64_t c = 0; c < C; ++c) sum[c] += w0 * v0[c] + w1 * v1[c] + w2 * v2[c] + w3 * v3[c];
          }
        const T samples = roi.samples();
        for (int64_t c = 0; c < C; ++c) sum[c] /= samples;
      }
      transpose(bins, C, sums.get(), C, out + n * C * bins, bins);
    }
  });
}

// The gradients of one image's channels [first, last), which nobody else writes, and their share of the offsets' gradients.
template <class T>
void backward_slice(
    const DeformRoiPool& s, const T* grad_last, const T* x_last, const T* rois, const T* offset, int64_t image, int64_t first,
    int64_t last, T* grad_x, T* share) {
  const int64_t C = s.channels, pixels = s.height * s.width, bins = s.bins(), width = last - first;
  const auto sums = scratch<T>(pixels * width), scaled = scratch<T>(width);
  std::fill_n(sums.get(), pixels * width, T(0));
  const T* base = x_last + image * pixels * C + first;
  for (int64_t n = 0; n < s.rois; ++n) {
    const auto roi = bins_of(s, rois, n);
    if (!roi.valid || roi.image != image) continue;
    for (int64_t bin = 0; bin < bins; ++bin) {
      const T* g = grad_last + (n * bins + bin) * C + first;
      const T samples = roi.samples();
      for (int64_t c = 0; c < width; ++c) scaled[c] = g[c] / samples;
      const T dx = shift(s, offset, n, 0, bin), dy = shift(s, offset, n, 1, bin);
      T slope_x = 0, slope_y = 0;
      for (int64_t i = 0; i < roi.count_h; ++i)
        for (int64_t j = 0; j < roi.count_w; ++j) {
          const RoiSample<T> at(roi.y(bin / s.bins_w, i, dy), roi.x(bin % s.bins_w, j, dx), s.height, s.width);
          if (!at.inside) continue;
          T along[4] = {0, 0, 0, 0};
          for (int t = 0; t < 4; ++t) {
            if (!at.tap.reads(t)) continue;
            if (offset) along[t] = dot(scaled.get(), base + at.tap.index[t] * C, width);
            T* to = sums.get() + at.tap.index[t] * width;
            const T w = at.tap.weight(t);
            for (int64_t c = 0; c < width; ++c) to[c] += w * scaled[c];
          }
          if (at.slopes_x) slope_x += at.tap.slope_x(along[0], along[1], along[2], along[3]);
          if (at.slopes_y) slope_y += at.tap.slope_y(along[0], along[1], along[2], along[3]);
        }
      if (!offset) continue;
      share[n * 2 * bins + bin] = static_cast<T>(s.gamma) * roi.width * slope_x;
      share[(n * 2 + 1) * bins + bin] = static_cast<T>(s.gamma) * roi.height * slope_y;
    }
  }
  transpose(pixels, width, sums.get(), width, grad_x + (image * C + first) * pixels, pixels);
}

template <class T>
void backward(const DeformRoiPool& s, const T* grad_out, const T* x, const T* rois, const T* offset, T* grad_x, T* grad_offset) {
  const int64_t slices = (s.channels + kSlice - 1) / kSlice, shares = s.rois * 2 * s.bins();
  const auto x_held = channels_last(x, s.images, s.channels, s.height * s.width);
  const auto grad_held = channels_last(grad_out, s.rois, s.channels, s.bins());
  const auto share_held = scratch<T>(offset ? slices * shares : 0);
  const T *x_last = x_held.get(), *grad_last = grad_held.get();
  T* share = share_held.get();
  if (offset) std::fill_n(share, slices * shares, T(0));
  parallel_for(s.images * slices, 1, [=, &s](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t slice = i % slices, first = slice * kSlice, last = std::min(first + kSlice, s.channels);
      backward_slice(s, grad_last, x_last, rois, offset, i / slices, first, last, grad_x, share + (offset ? slice * shares : 0));
    }
  });
  if (!offset) return;
  std::fill_n(grad_offset, shares, T(0));
  for (int64_t slice = 0; slice < slices; ++slice)
    for (int64_t i = 0; i < shares; ++i) grad_offset[i] += share[slice * shares + i];
}

}  // namespace

void deform_roi_pool_cpu(DType dtype, const DeformRoiPool& s, const void* x, const void* rois, const void* offset, void* out) {
  DETC_DISPATCH_WIDE(dtype, T, {
    forward(s, static_cast<const T*>(x), static_cast<const T*>(rois), static_cast<const T*>(offset), static_cast<T*>(out));
  });
}

void deform_roi_pool_backward_cpu(
    DType dtype, const DeformRoiPool& s, const void* grad_out, const void* x, const void* rois, const void* offset, void* grad_x,
    void* grad_offset) {
  DETC_DISPATCH_WIDE(dtype, T, {
    backward(
        s, static_cast<const T*>(grad_out), static_cast<const T*>(x), static_cast<const T*>(rois), static_cast<const T*>(offset),
        static_cast<T*>(grad_x), static_cast<T*>(grad_offset));
  });
}

}  // namespace detc
