// Some output rows of some channels at a time: their inputs are widened once, with zeros around, and a tap is then a product of two lines at a shift.
// What a job sums does not depend on the number of threads, and jobs are added in order.
#include "depthwise_weight_grad.h"

#include <algorithm>

#include "layout.h"
#include "simd.h"

namespace detc {
namespace {

constexpr int64_t kBlock = 64;      // channels of a job, at most
constexpr int64_t kValues = 65536;  // of the output's gradient that a job looks at, about

// sums[k][i] += the sum over the output positions of grad[position][i] * x[position * step + k * shift][i], for K taps of one row.
template <class A, int K>
void row_of_taps(const A* grad, const A* x, int64_t positions, int64_t block, int64_t step, int64_t shift, A* sums) {
  for (int64_t i = 0; i < block; i += kLanes<A>) {
    vec<A> total[K] = {};
    for (int64_t o = 0; o < positions; ++o) {
      const vec<A> g = vload(grad + o * block + i);
      const A* p = x + o * step + i;
      for (int k = 0; k < K; ++k) total[k] += g * vload(p + k * shift);
    }
    for (int k = 0; k < K; ++k) vstore<A>(sums + k * block + i, vload(sums + k * block + i) + total[k]);
  }
}

template <class A>
void row(const A* grad, const A* x, int64_t taps, int64_t positions, int64_t block, int64_t step, int64_t shift, A* sums) {
  while (taps > 0) {  // wide kernels in parts whose sums fit the registers
    const int64_t part = taps >= 7 ? 7 : (taps >= 5 ? 5 : (taps >= 3 ? 3 : 1));
    switch (part) {
      case 7: row_of_taps<A, 7>(grad, x, positions, block, step, shift, sums); break;
      case 5: row_of_taps<A, 5>(grad, x, positions, block, step, shift, sums); break;
      case 3: row_of_taps<A, 3>(grad, x, positions, block, step, shift, sums); break;
      default: row_of_taps<A, 1>(grad, x, positions, block, step, shift, sums);
    }
    taps -= part, x += part * shift, sums += part * block;
  }
}

template <class T>
struct Job {
  using A = acc_t<T>;
  const DepthwiseConv& s;
  int64_t block;           // channels, in whole vectors
  int64_t rows, bands;     // output rows of a job, jobs of an image
  int64_t blocks;
  int64_t line, lines;     // positions of a widened input row, and the rows of a job

  explicit Job(const DepthwiseConv& conv) : s(conv) {
    block = round_up(std::min(s.channels, kBlock), kLanes<A>);
    blocks = (s.channels + block - 1) / block;
    rows = std::clamp<int64_t>(kValues / (s.out_width * block), 1, s.out_height);
    bands = (s.out_height + rows - 1) / rows;
    line = (s.out_width - 1) * s.stride_w + (s.kernel_w - 1) * s.dilation_w + 1;
    lines = (rows - 1) * s.stride_h + (s.kernel_h - 1) * s.dilation_h + 1;
  }
  int64_t taps() const { return s.kernel_h * s.kernel_w; }

  // `count` pixels' channels from `first`, widened to whole vectors.
  void widen(const T* from, int64_t count, int64_t channels, A* to) const {
    for (int64_t i = 0; i < count; ++i, from += s.channels, to += block) {
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) to[c] = load(from + c);
      std::fill(to + channels, to + block, A(0));
    }
  }

  // The input under output rows from `top`: [lines, line, block].
  void widen_input(const T* image, int64_t top, int64_t count, int64_t channels, A* to) const {
    const int64_t left = std::clamp<int64_t>(s.pad_w, 0, line), inside = std::clamp<int64_t>(s.width + s.pad_w, left, line) - left;
    for (int64_t r = 0; r < (count - 1) * s.stride_h + (s.kernel_h - 1) * s.dilation_h + 1; ++r, to += line * block) {
      const int64_t y = top * s.stride_h - s.pad_h + r;
      if (y < 0 || y >= s.height) {
        std::fill(to, to + line * block, A(0));
        continue;
      }
      std::fill(to, to + left * block, A(0));
      widen(image + (y * s.width + left - s.pad_w) * s.channels, inside, channels, to + left * block);
      std::fill(to + (left + inside) * block, to + line * block, A(0));
    }
  }

  // sums [taps, block] of one image's band and one block of channels.
  void run(const T* grad, const T* x, int64_t band, int64_t first, A* input, A* output, A* sums) const {
    const int64_t channels = std::min(block, s.channels - first), top = band * rows, count = std::min(rows, s.out_height - top);
    std::fill(sums, sums + taps() * block, A(0));
    widen_input(x + first, top, count, channels, input);
    for (int64_t r = 0; r < count; ++r) {
      widen(grad + (top + r) * s.out_width * s.channels + first, s.out_width, channels, output);
      for (int64_t ky = 0; ky < s.kernel_h; ++ky)
        row(output, input + (r * s.stride_h + ky * s.dilation_h) * line * block, s.kernel_w, s.out_width, block, s.stride_w * block,
            s.dilation_w * block, sums + ky * s.kernel_w * block);
    }
  }
};

template <class T>
void weight_grad(const DepthwiseConv& s, const T* grad, const T* x, acc_t<T>* out) {
  using A = acc_t<T>;
  const Job<T> job(s);
  const int64_t taps = job.taps(), bands = s.images * job.bands, size = taps * job.block;
  const auto partial = scratch<A>(bands * job.blocks * size);
  A* sums = partial.get();
  parallel_for(bands * job.blocks, 1, [&, sums](int64_t begin, int64_t end) {
    const auto input = scratch<A>(job.lines * job.line * job.block), output = scratch<A>(s.out_width * job.block);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t image = i / job.blocks / job.bands, band = i / job.blocks % job.bands;
      job.run(grad + image * s.out_height * s.out_width * s.channels, x + image * s.height * s.width * s.channels, band, i % job.blocks * job.block,
              input.get(), output.get(), sums + i * size);
    }
  });
  parallel_for(s.channels, grain_for(bands * taps), [&, sums](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const A* own = sums + c / job.block * size + c % job.block;
      for (int64_t t = 0; t < taps; ++t) {
        double total = 0;
        for (int64_t b = 0; b < bands; ++b) total += static_cast<double>(own[b * job.blocks * size + t * job.block]);
        out[c * taps + t] = static_cast<A>(total);
      }
    }
  });
}

}  // namespace

void depthwise_weight_grad_cpu(DType dtype, const DepthwiseConv& s, const void* grad, const void* x, void* out) {
  if (s.images == 0 || s.channels == 0 || s.out_height == 0 || s.out_width == 0) return;
  DETC_DISPATCH_FLOATING(dtype, T, { weight_grad(s, static_cast<const T*>(grad), static_cast<const T*>(x), static_cast<acc_t<T>*>(out)); })
}

}  // namespace detc
