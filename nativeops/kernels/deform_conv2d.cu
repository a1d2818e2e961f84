#include "bilinear.h"
#include "deform_conv2d.h"
#include "fixed_point.h"
#include "launch.h"

namespace detc {
namespace {

template <class T>
__device__ Bilinear<acc_t<T>> tap_at(const DeformConv& s, const T* offset, int64_t image, int64_t offset_group, int64_t k, int64_t position) {
  using A = acc_t<T>;
  const int64_t K = s.taps(), P = s.outputs();
  const T* at = offset + ((image * s.offset_groups + offset_group) * 2 * K + 2 * k) * P + position;
  const A y = static_cast<A>(position / s.out_width * s.stride_h - s.pad_h + k / s.kernel_w * s.dilation_h) + load(at);
  const A x = static_cast<A>(position % s.out_width * s.stride_w - s.pad_w + k % s.kernel_w * s.dilation_w) + load(at + P);
  return bilinear_zeros<A>(y, x, s.height, s.width);
}

template <class T>
__device__ acc_t<T> modulation(const DeformConv& s, const T* mask, int64_t image, int64_t offset_group, int64_t k, int64_t position) {
  using A = acc_t<T>;
  return mask ? A(load(mask + ((image * s.offset_groups + offset_group) * s.taps() + k) * s.outputs() + position)) : A(1);
}

// One thread a column element: image, channel, tap, position (innermost, so that writes are coalesced).
template <class T>
__global__ void columns_kernel(DeformConv s, const T* x, const T* offset, const T* mask, T* columns) {
  using A = acc_t<T>;
  const int64_t P = s.outputs(), K = s.taps(), per_offset = s.channels / s.offset_groups;
  DETC_GRID_STRIDE(i, s.images * s.channels * K * P) {
    const int64_t position = i % P, k = i / P % K, channel = i / (P * K) % s.channels, image = i / (P * K * s.channels);
    const auto tap = tap_at(s, offset, image, channel / per_offset, k, position);
    A sum = 0;
    if (tap.inside) {
      const T* plane = x + (image * s.channels + channel) * s.height * s.width;
      for (int t = 0; t < 4; ++t) sum += tap.weight(t) * A(load(plane + tap.index[t]));
      sum *= modulation(s, mask, image, channel / per_offset, k, position);
    }
    store(columns + i, sum);
  }
}

template <class T>
__global__ void columns_to_image_kernel(DeformConv s, const T* grad_columns, const T* offset, const T* mask, FixedPoint grad_x, int factors) {
  using A = acc_t<T>;
  const int64_t P = s.outputs(), K = s.taps(), per_offset = s.channels / s.offset_groups;
  bool finite;
  const A scale = static_cast<A>(ldexp(1.0, fixed_point_exponent(grad_x, factors, &finite)));
  if (!finite) return;
  DETC_GRID_STRIDE(i, s.images * s.channels * K * P) {
    const int64_t position = i % P, k = i / P % K, channel = i / (P * K) % s.channels, image = i / (P * K * s.channels);
    const auto tap = tap_at(s, offset, image, channel / per_offset, k, position);
    if (!tap.inside) continue;
    const A g = A(load(grad_columns + i)) * modulation(s, mask, image, channel / per_offset, k, position);
    const int64_t plane = (image * s.channels + channel) * s.height * s.width;
    for (int t = 0; t < 4; ++t)
      if (tap.reads(t)) fixed_point_add(grad_x, plane + tap.index[t], tap.weight(t) * g, scale);
  }
}

// One thread a sampling point (image, offset group, tap, position), which walks the channels of its group.
template <class T>
__global__ void coordinates_kernel(
    DeformConv s, const T* grad_columns, const T* x, const T* offset, const T* mask, T* grad_offset, T* grad_mask) {
  using A = acc_t<T>;
  const int64_t P = s.outputs(), K = s.taps(), G = s.offset_groups, per_offset = s.channels / G;
  DETC_GRID_STRIDE(i, s.images * G * K * P) {
    const int64_t position = i % P, k = i / P % K, group = i / (P * K) % G, image = i / (P * K * G);
    const auto tap = tap_at(s, offset, image, group, k, position);
    A along[4] = {0, 0, 0, 0}, slope_y = 0, slope_x = 0, along_mask = 0;
    if (tap.inside) {
      for (int64_t c = group * per_offset; c < (group + 1) * per_offset; ++c) {
        const A g = load(grad_columns + ((image * s.channels + c) * K + k) * P + position);
        const T* plane = x + (image * s.channels + c) * s.height * s.width;
        for (int t = 0; t < 4; ++t)
          if (tap.reads(t)) along[t] += g * A(load(plane + tap.index[t]));
      }
      const A m = modulation(s, mask, image, group, k, position);
      for (int t = 0; t < 4; ++t) along_mask += tap.weight(t) * along[t];
      slope_y = tap.slope_y(along[0], along[1], along[2], along[3]) * m;
      slope_x = tap.slope_x(along[0], along[1], along[2], along[3]) * m;
    }
    const int64_t at = ((image * G + group) * 2 * K + 2 * k) * P + position;
    store(grad_offset + at, slope_y);
    store(grad_offset + at + P, slope_x);
    if (grad_mask) store(grad_mask + i, along_mask);
  }
}

constexpr int kTile = 64;  // outputs a block and axis; each of its 256 threads makes 4 x 4 of them
constexpr int kStep = 16;  // of the depth, held in shared memory

// out[g,o,p] = sum over d of weight[g,o,d] * columns[g,d,p], a block a tile (o, p) of one group.
template <class T>
__global__ void product_kernel(int64_t groups, int64_t filters, int64_t depth, int64_t positions, const T* weight, const T* columns, T* out) {
  using A = acc_t<T>;
  __shared__ A rows[kStep][kTile + 1], cols[kStep][kTile];
  const int64_t tiles_o = (filters + kTile - 1) / kTile, tiles_p = (positions + kTile - 1) / kTile;
  const int me = static_cast<int>(threadIdx.x), my_o = me / 16, my_p = me % 16;
  for (int64_t tile = blockIdx.x; tile < groups * tiles_o * tiles_p; tile += gridDim.x) {
    const int64_t p0 = tile % tiles_p * kTile, o0 = tile / tiles_p % tiles_o * kTile, group = tile / (tiles_p * tiles_o);
    const T *w = weight + group * filters * depth, *c = columns + group * depth * positions;
    A sums[4][4] = {};
    for (int64_t d0 = 0; d0 < depth; d0 += kStep) {
      for (int i = me; i < kStep * kTile; i += kThreads) {
        const int64_t o = o0 + i / kStep, d = d0 + i % kStep;
        rows[i % kStep][i / kStep] = o < filters && d < depth ? A(load(w + o * depth + d)) : A(0);
        const int64_t p = p0 + i % kTile, e = d0 + i / kTile;
        cols[i / kTile][i % kTile] = p < positions && e < depth ? A(load(c + e * positions + p)) : A(0);
      }
      __syncthreads();
      for (int d = 0; d < kStep; ++d)
        for (int i = 0; i < 4; ++i)
          for (int j = 0; j < 4; ++j) sums[i][j] += rows[d][my_o + 16 * i] * cols[d][my_p + 16 * j];
      __syncthreads();
    }
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 4; ++j) {
        const int64_t o = o0 + my_o + 16 * i, p = p0 + my_p + 16 * j;
        if (o < filters && p < positions) store(out + (group * filters + o) * positions + p, sums[i][j]);
      }
  }
}

template <class T>
__global__ void bias_kernel(DeformConv s, const T* bias, T* out) {
  DETC_GRID_STRIDE(i, s.images * s.out_channels * s.outputs()) {
    store(out + i, load(out + i) + load(bias + i / s.outputs() % s.out_channels));
  }
}

}  // namespace

void deform_columns_cuda(
    DType dtype, const DeformConv& s, const void* x, const void* offset, const void* mask, void* columns, void* stream) {
  const int64_t n = s.images * s.channels * s.taps() * s.outputs();
  if (n == 0) return;
  DETC_DISPATCH_FLOATING(dtype, T, {
    DETC_LAUNCH(
        columns_kernel<T>, blocks_for(n), kThreads, stream, s, static_cast<const T*>(x), static_cast<const T*>(offset),
        static_cast<const T*>(mask), static_cast<T*>(columns));
  });
}

void deform_bias_cuda(DType dtype, const DeformConv& s, const void* bias, void* out, void* stream) {
  const int64_t n = s.images * s.out_channels * s.outputs();
  if (n == 0) return;
  DETC_DISPATCH_FLOATING(dtype, T, {
    DETC_LAUNCH(bias_kernel<T>, blocks_for(n), kThreads, stream, s, static_cast<const T*>(bias), static_cast<T*>(out));
  });
}

int64_t deform_conv2d_workspace(DType dtype, const DeformConv& s) {
  return s.channels * s.taps() * s.outputs() * size_of(dtype);
}

void deform_conv2d_cuda(
    DType dtype, const DeformConv& s, const void* x, const void* offset, const void* mask, const void* weight, const void* bias, void* out,
    void* workspace, void* stream) {
  DeformConv one = s;
  one.images = 1;
  const int64_t filters = s.out_channels / s.groups, depth = s.channels / s.groups * s.taps(), P = s.outputs();
  const int64_t tiles = s.groups * ((filters + kTile - 1) / kTile) * ((P + kTile - 1) / kTile);
  if (tiles == 0) return;
  DETC_DISPATCH_FLOATING(dtype, T, {
    for (int64_t image = 0; image < s.images; ++image) {
      const T* pixels = static_cast<const T*>(x) + image * s.channels * s.height * s.width;
      const T* shifts = static_cast<const T*>(offset) + image * s.offset_groups * 2 * s.taps() * P;
      const T* factors = mask ? static_cast<const T*>(mask) + image * s.offset_groups * s.taps() * P : nullptr;
      deform_columns_cuda(dtype, one, pixels, shifts, factors, workspace, stream);
      DETC_LAUNCH(
          product_kernel<T>, tiles < 65535 ? tiles : 65535, kThreads, stream, s.groups, filters, depth, P, static_cast<const T*>(weight),
          static_cast<const T*>(workspace), static_cast<T*>(out) + image * s.out_channels * P);
    }
  });
  if (bias) deform_bias_cuda(dtype, s, bias, out, stream);
}

int64_t deform_columns_backward_workspace(const DeformConv& s) {
  return fixed_point_bytes(s.images * s.channels * s.height * s.width);
}

void deform_columns_backward_cuda(
    DType dtype, const DeformConv& s, const void* grad_columns, const void* x, const void* offset, const void* mask, void* grad_x,
    void* grad_offset, void* grad_mask, void* workspace, void* stream) {
  const int64_t pixels = s.images * s.channels * s.height * s.width, points = s.images * s.offset_groups * s.taps() * s.outputs();
  const int64_t n = s.images * s.channels * s.taps() * s.outputs();
  DETC_DISPATCH_FLOATING(dtype, T, {
    // Every sampling point of a channel may meet in one pixel.
    const FixedPoint sums = fixed_point_begin(workspace, pixels, s.taps() * s.outputs(), stream);
    fixed_point_bound(sums, 0, static_cast<const T*>(grad_columns), n, stream);
    if (mask) fixed_point_bound(sums, 1, static_cast<const T*>(mask), points, stream);
    const int factors = mask ? 2 : 1;
    if (n > 0) {
      DETC_LAUNCH(
          columns_to_image_kernel<T>, blocks_for(n), kThreads, stream, s, static_cast<const T*>(grad_columns), static_cast<const T*>(offset),
          static_cast<const T*>(mask), sums, factors);
      DETC_LAUNCH(
          coordinates_kernel<T>, blocks_for(points), kThreads, stream, s, static_cast<const T*>(grad_columns), static_cast<const T*>(x),
          static_cast<const T*>(offset), static_cast<const T*>(mask), static_cast<T*>(grad_offset), static_cast<T*>(grad_mask));
    }
    if (pixels > 0) fixed_point_finish(sums, factors, static_cast<T*>(grad_x), stream);
  });
}

}  // namespace detc
