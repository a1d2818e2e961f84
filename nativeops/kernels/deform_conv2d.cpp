// Images are turned to channels-last, so that one bilinear tap is a run of channels: sampling then costs a tenth of the product. The
// product runs on blocks of output positions, one kernel tap at a time, so that the columns never leave the cache.
#include "deform_conv2d.h"

#include <algorithm>
#include <vector>

#include "bilinear.h"
#include "gemm.h"
#include "layout.h"
#include "parallel.h"

namespace detc {
namespace {

constexpr int64_t kBlock = 96;  // output positions a block
constexpr int64_t kDepth = 256;  // channels sampled at a time

// A run of channels within one group and one offset group.
struct Chunk {
  int64_t begin, end, group, offset_group;
  int64_t size() const { return end - begin; }
};

std::vector<Chunk> chunks_of(const DeformConv& s, int64_t most) {
  const int64_t per_group = s.channels / s.groups, per_offset = s.channels / s.offset_groups;
  std::vector<Chunk> chunks;
  for (int64_t c = 0; c < s.channels;) {
    const int64_t end = std::min({c + most, (c / per_group + 1) * per_group, (c / per_offset + 1) * per_offset});
    chunks.push_back({c, end, c / per_group, c / per_offset});
    c = end;
  }
  return chunks;
}

template <class T>
struct Tensors {
  const DeformConv& s;
  const T *offset, *mask;

  Bilinear<T> tap(int64_t image, int64_t offset_group, int64_t k, int64_t position) const {
    const int64_t K = s.taps(), P = s.outputs();
    const T* at = offset + ((image * s.offset_groups + offset_group) * 2 * K + 2 * k) * P + position;
    const T y = static_cast<T>(position / s.out_width * s.stride_h - s.pad_h + k / s.kernel_w * s.dilation_h) + at[0];
    const T x = static_cast<T>(position % s.out_width * s.stride_w - s.pad_w + k % s.kernel_w * s.dilation_w) + at[P];
    return bilinear_zeros<T>(y, x, s.height, s.width);
  }
  T modulation(int64_t image, int64_t offset_group, int64_t k, int64_t position) const {
    if (mask == nullptr) return T(1);
    return mask[((image * s.offset_groups + offset_group) * s.taps() + k) * s.outputs() + position];
  }
};

// The samples of one tap at positions [first, first + count): channel run `chunk` of position i goes to row i of `out`.
template <class T>
void sample(
    const Tensors<T>& in, const T* x_last, int64_t image, const Chunk& chunk, int64_t k, int64_t first, int64_t count, T* out,
    int64_t stride) {
  const DeformConv& s = in.s;
  const T* base = x_last + image * s.height * s.width * s.channels + chunk.begin;
  const int64_t n = chunk.size();
  for (int64_t i = 0; i < count; ++i) {
    T* row = out + i * stride;
    const auto tap = in.tap(image, chunk.offset_group, k, first + i);
    if (!tap.inside) {
      std::fill(row, row + n, T(0));
      continue;
    }
    const T m = in.modulation(image, chunk.offset_group, k, first + i);
    const T w0 = tap.weight(0) * m, w1 = tap.weight(1) * m, w2 = tap.weight(2) * m, w3 = tap.weight(3) * m;
    const T *v0 = base + tap.index[0] * s.channels, *v1 = base + tap.index[1] * s.channels;
    const T *v2 = base + tap.index[2] * s.channels, *v3 = base + tap.index[3] * s.channels;
    for (int64_t c = 0; c < n; ++c) row[c] = w0 * v0[c] + w1 * v1[c] + w2 * v2[c] + w3 * v3[c];
  }
}

// [tap][group][panel of out channels][channel of the group][kPanel]
template <class T>
std::unique_ptr<T[]> pack_weight(const DeformConv& s, const T* weight) {
  const int64_t Cg = s.channels / s.groups, Og = s.out_channels / s.groups, K = s.taps(), panels = round_up(Og, kPanel<T>) / kPanel<T>;
  auto packed = scratch<T>(K * s.groups * panels * Cg * kPanel<T>);
  T* to = packed.get();
  parallel_for(K * s.groups * panels, 4, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t panel = i % panels, group = i / panels % s.groups, k = i / panels / s.groups;
      for (int64_t c = 0; c < Cg; ++c)
        for (int64_t j = 0; j < kPanel<T>; ++j) {
          const int64_t o = panel * kPanel<T> + j;
          to[(i * Cg + c) * kPanel<T> + j] = o < Og ? weight[((group * Og + o) * Cg + c) * K + k] : T(0);
        }
    }
  });
  return packed;
}

template <class T>
void forward(const DeformConv& s, const T* x, const T* offset, const T* mask, const T* weight, const T* bias, T* out) {
  const Tensors<T> in{s, offset, mask};
  const int64_t Cg = s.channels / s.groups, Og = s.out_channels / s.groups, P = s.outputs(), K = s.taps();
  const int64_t wide = round_up(Og, kPanel<T>), panels = wide / kPanel<T>, blocks = (P + kBlock - 1) / kBlock;
  const auto chunks = chunks_of(s, kDepth);
  const auto x_held = channels_last(x, s.images, s.channels, s.height * s.width);
  const auto weight_held = pack_weight(s, weight);
  const T *x_last = x_held.get(), *packed = weight_held.get();
  parallel_for(s.images * blocks, 1, [&](int64_t begin, int64_t end) {
    const auto columns = scratch<T>(kBlock * kDepth), sums = scratch<T>(s.groups * kBlock * wide);
    for (int64_t job = begin; job < end; ++job) {
      const int64_t image = job / blocks, first = job % blocks * kBlock, count = std::min(kBlock, P - first);
      std::fill(sums.get(), sums.get() + s.groups * kBlock * wide, T(0));
      for (int64_t k = 0; k < K; ++k)
        for (const Chunk& chunk : chunks) {
          sample(in, x_last, image, chunk, k, first, count, columns.get(), kDepth);
          const T* b = packed + ((k * s.groups + chunk.group) * panels * Cg + (chunk.begin - chunk.group * Cg)) * kPanel<T>;
          gemm<T>(
              count, panels, chunk.size(), columns.get(), kDepth, 1, b, Cg * kPanel<T>, sums.get() + chunk.group * kBlock * wide, wide);
        }
      for (int64_t o = 0; o < s.out_channels; ++o) {
        const T* from = sums.get() + o / Og * kBlock * wide + o % Og;
        T* to = out + (image * s.out_channels + o) * P + first;
        const T b = bias ? bias[o] : T(0);
        for (int64_t i = 0; i < count; ++i) to[i] = from[i * wide] + b;
      }
    }
  });
}

// [tap][channel][out channel of the group] with channels innermost in panels, for one chunk: [tap][panel][Og][kPanel].
template <class T>
void pack_transposed(const DeformConv& s, const T* weight, const Chunk& chunk, int64_t panels, T* to) {
  const int64_t Cg = s.channels / s.groups, Og = s.out_channels / s.groups, K = s.taps();
  for (int64_t k = 0; k < K; ++k)
    for (int64_t p = 0; p < panels; ++p)
      for (int64_t o = 0; o < Og; ++o)
        for (int64_t j = 0; j < kPanel<T>; ++j) {
          const int64_t c = chunk.begin + p * kPanel<T> + j;
          const bool real = c < chunk.end;
          *to++ = real ? weight[((chunk.group * Og + o) * Cg + c - chunk.group * Cg) * K + k] : T(0);
        }
}

constexpr int64_t kSlice = 64;  // channels whose gradients one task sums alone

// grad_x of one image and one chunk of channels, and that chunk's share of the gradients of offset and mask.
template <class T>
void backward_slice(
    const Tensors<T>& in, const T* grad_last, const T* x_last, const T* weight, int64_t image, const Chunk& chunk, T* grad_x,
    T* grad_offset, T* grad_mask) {
  const DeformConv& s = in.s;
  const int64_t P = s.outputs(), K = s.taps(), Og = s.out_channels / s.groups, n = chunk.size(), pixels = s.height * s.width;
  const int64_t wide = round_up(n, kPanel<T>), panels = wide / kPanel<T>;
  const auto packed = scratch<T>(K * panels * Og * kPanel<T>), grad_columns = scratch<T>(kBlock * wide), sums = scratch<T>(pixels * n);
  pack_transposed(s, weight, chunk, panels, packed.get());
  std::fill(sums.get(), sums.get() + pixels * n, T(0));
  const T* x_base = x_last + image * pixels * s.channels + chunk.begin;
  for (int64_t first = 0; first < P; first += kBlock) {
    const int64_t count = std::min(kBlock, P - first);
    const T* g = grad_last + (image * P + first) * s.out_channels + chunk.group * Og;
    for (int64_t k = 0; k < K; ++k) {
      std::fill(grad_columns.get(), grad_columns.get() + count * wide, T(0));
      gemm<T>(count, panels, Og, g, s.out_channels, 1, packed.get() + k * panels * Og * kPanel<T>, Og * kPanel<T>, grad_columns.get(), wide);
      for (int64_t i = 0; i < count; ++i) {
        const T* row = grad_columns.get() + i * wide;
        const auto tap = in.tap(image, chunk.offset_group, k, first + i);
        const T m = in.modulation(image, chunk.offset_group, k, first + i);
        T along[4] = {0, 0, 0, 0}, along_mask = 0, slope_y = 0, slope_x = 0;
        if (tap.inside) {
          for (int t = 0; t < 4; ++t) {
            if (!tap.reads(t)) continue;
            along[t] = dot(row, x_base + tap.index[t] * s.channels, n);
            const T w = tap.weight(t), scale = w * m;
            along_mask += w * along[t];
            T* to = sums.get() + tap.index[t] * n;
            for (int64_t c = 0; c < n; ++c) to[c] += scale * row[c];
          }
          slope_y = tap.slope_y(along[0], along[1], along[2], along[3]) * m;
          slope_x = tap.slope_x(along[0], along[1], along[2], along[3]) * m;
        }
        grad_offset[2 * k * P + first + i] = slope_y;
        grad_offset[(2 * k + 1) * P + first + i] = slope_x;
        if (grad_mask) grad_mask[k * P + first + i] = along_mask;
      }
    }
  }
  transpose(pixels, n, sums.get(), n, grad_x + (image * s.channels + chunk.begin) * pixels, pixels);
}

// grad_weight of one tap and one chunk of input channels, over all images.
template <class T>
void backward_weight(const Tensors<T>& in, const T* grad_last, const T* x_last, int64_t k, const Chunk& chunk, T* grad_weight) {
  const DeformConv& s = in.s;
  const int64_t P = s.outputs(), K = s.taps(), Og = s.out_channels / s.groups, Cg = s.channels / s.groups, n = chunk.size();
  const int64_t wide = round_up(n, kPanel<T>), panels = wide / kPanel<T>, tiles = round_up(Og, kTileRows) / kTileRows;
  const auto columns = scratch<T>(kBlock * wide), packed = scratch<T>(kBlock * wide), grads = scratch<T>(tiles * kBlock * kTileRows);
  const auto sums = scratch<T>(tiles * kTileRows * wide);
  std::fill(sums.get(), sums.get() + tiles * kTileRows * wide, T(0));
  std::fill(columns.get(), columns.get() + kBlock * wide, T(0));
  for (int64_t image = 0; image < s.images; ++image)
    for (int64_t first = 0; first < P; first += kBlock) {
      const int64_t count = std::min(kBlock, P - first);
      sample(in, x_last, image, chunk, k, first, count, columns.get(), wide);
      for (int64_t p = 0; p < panels; ++p)
        for (int64_t i = 0; i < count; ++i)
          std::copy_n(columns.get() + i * wide + p * kPanel<T>, kPanel<T>, packed.get() + (p * kBlock + i) * kPanel<T>);
      const T* g = grad_last + (image * P + first) * s.out_channels + chunk.group * Og;
      for (int64_t t = 0; t < tiles; ++t)
        for (int64_t i = 0; i < count; ++i)
          for (int64_t m = 0; m < kTileRows; ++m) {
            const int64_t o = t * kTileRows + m;
            grads[(t * kBlock + i) * kTileRows + m] = o < Og ? g[i * s.out_channels + o] : T(0);
          }
      for (int64_t t = 0; t < tiles; ++t)
        gemm<T>(
            kTileRows, panels, count, grads.get() + t * kBlock * kTileRows, 1, kTileRows, packed.get(), kBlock * kPanel<T>,
            sums.get() + t * kTileRows * wide, wide);
    }
  for (int64_t o = 0; o < Og; ++o)
    for (int64_t c = 0; c < n; ++c)
      grad_weight[((chunk.group * Og + o) * Cg + chunk.begin - chunk.group * Cg + c) * K + k] = sums[o * wide + c];
}

template <class T>
void backward(
    const DeformConv& s, const T* grad_out, const T* x, const T* offset, const T* mask, const T* weight, T* grad_x, T* grad_offset,
    T* grad_mask, T* grad_weight) {
  const Tensors<T> in{s, offset, mask};
  const int64_t P = s.outputs(), K = s.taps();
  const auto chunks = chunks_of(s, kSlice);
  const int64_t slices = static_cast<int64_t>(chunks.size());
  const auto x_held = channels_last(x, s.images, s.channels, s.height * s.width);
  const auto grad_held = channels_last(grad_out, s.images, s.out_channels, P);
  const T *x_last = x_held.get(), *grad_last = grad_held.get();
  // Each slice writes its own share of the offsets' gradients; the shares are then added in the order of the slices.
  const auto share_offset = scratch<T>(s.images * slices * 2 * K * P), share_mask = scratch<T>(mask ? s.images * slices * K * P : 0);
  parallel_for(s.images * slices, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      backward_slice(
          in, grad_last, x_last, weight, i / slices, chunks[i % slices], grad_x, share_offset.get() + i * 2 * K * P,
          mask ? share_mask.get() + i * K * P : nullptr);
  });
  const auto add_up = [&](const T* shares, T* total, int64_t n) {
    parallel_for(s.images * s.offset_groups, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        std::fill(total + i * n, total + (i + 1) * n, T(0));
        for (int64_t slice = 0; slice < slices; ++slice) {
          if (chunks[slice].offset_group != i % s.offset_groups) continue;
          const T* share = shares + (i / s.offset_groups * slices + slice) * n;
          for (int64_t j = 0; j < n; ++j) total[i * n + j] += share[j];
        }
      }
    });
  };
  add_up(share_offset.get(), grad_offset, 2 * K * P);
  if (mask) add_up(share_mask.get(), grad_mask, K * P);
  parallel_for(K * slices, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) backward_weight(in, grad_last, x_last, i / slices, chunks[i % slices], grad_weight);
  });
}

}  // namespace

void deform_conv2d_cpu(
    DType dtype, const DeformConv& conv, const void* x, const void* offset, const void* mask, const void* weight, const void* bias,
    void* out) {
  if (conv.images * conv.out_channels * conv.outputs() == 0) return;
  DETC_DISPATCH_WIDE(dtype, T, {
    forward(
        conv, static_cast<const T*>(x), static_cast<const T*>(offset), static_cast<const T*>(mask), static_cast<const T*>(weight),
        static_cast<const T*>(bias), static_cast<T*>(out));
  });
}

void deform_conv2d_backward_cpu(
    DType dtype, const DeformConv& conv, const void* grad_out, const void* x, const void* offset, const void* mask, const void* weight,
    void* grad_x, void* grad_offset, void* grad_mask, void* grad_weight) {
  DETC_DISPATCH_WIDE(dtype, T, {
    backward(
        conv, static_cast<const T*>(grad_out), static_cast<const T*>(x), static_cast<const T*>(offset), static_cast<const T*>(mask),
        static_cast<const T*>(weight), static_cast<T*>(grad_x), static_cast<T*>(grad_offset), static_cast<T*>(grad_mask),
        static_cast<T*>(grad_weight));
  });
}

}  // namespace detc
