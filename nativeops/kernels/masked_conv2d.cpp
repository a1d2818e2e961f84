#include "masked_conv2d.h"

#include <vector>

#include "gemm.h"
#include "layout.h"

namespace detc {
namespace {

constexpr int64_t kBlock = 96;  // set positions a block

template <class T>
void convolve(const MaskedConv& s, const T* x, const bool* mask, const T* weight, const T* bias, T* out) {
  const int64_t P = s.out_height * s.out_width, K = s.kernel_h * s.kernel_w, C = s.channels, O = s.out_channels;
  const int64_t wide = round_up(O, kPanel<T>), panels = wide / kPanel<T>;
  std::fill_n(out, s.images * O * P, T(0));
  std::vector<int64_t> set;
  for (int64_t i = 0; i < s.images * P; ++i)
    if (mask[i]) set.push_back(i);
  const auto x_held = channels_last(x, s.images, C, s.height * s.width);
  const auto weight_held = scratch<T>(K * panels * C * kPanel<T>);
  const T* x_last = x_held.get();
  T* packed = weight_held.get();
  parallel_for(K * panels, 4, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t c = 0; c < C; ++c)
        for (int64_t j = 0; j < kPanel<T>; ++j) {
          const int64_t o = i % panels * kPanel<T> + j;
          packed[(i * C + c) * kPanel<T> + j] = o < O ? weight[(o * C + c) * K + i / panels] : T(0);
        }
  });
  const int64_t blocks = (static_cast<int64_t>(set.size()) + kBlock - 1) / kBlock;
  parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
    const auto columns = scratch<T>(kBlock * C), sums = scratch<T>(kBlock * wide);
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kBlock, count = std::min(kBlock, static_cast<int64_t>(set.size()) - first);
      std::fill_n(sums.get(), kBlock * wide, T(0));
      for (int64_t k = 0; k < K; ++k) {
        for (int64_t i = 0; i < count; ++i) {
          const int64_t image = set[first + i] / P, position = set[first + i] % P;
          const int64_t y = position / s.out_width * s.stride_h - s.pad_h + k / s.kernel_w;
          const int64_t xx = position % s.out_width * s.stride_w - s.pad_w + k % s.kernel_w;
          T* row = columns.get() + i * C;
          if (y >= 0 && y < s.height && xx >= 0 && xx < s.width)
            std::copy_n(x_last + ((image * s.height + y) * s.width + xx) * C, C, row);
          else
            std::fill_n(row, C, T(0));
        }
        gemm<T>(count, panels, C, columns.get(), C, 1, packed + k * panels * C * kPanel<T>, C * kPanel<T>, sums.get(), wide);
      }
      for (int64_t i = 0; i < count; ++i) {
        T* to = out + set[first + i] / P * O * P + set[first + i] % P;
        for (int64_t o = 0; o < O; ++o) to[o * P] = sums[i * wide + o] + (bias ? bias[o] : T(0));
      }
    }
  });
}

}  // namespace

void masked_conv2d_cpu(
    DType dtype, const MaskedConv& s, const void* x, const bool* mask, const void* weight, const void* bias, void* out) {
  DETC_DISPATCH_WIDE(dtype, T, {
    convolve(s, static_cast<const T*>(x), mask, static_cast<const T*>(weight), static_cast<const T*>(bias), static_cast<T*>(out));
  });
}

}  // namespace detc
