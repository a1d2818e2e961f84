// Scratch memory, and turning images from channels-first to channels-last, where a pixel's channels are one run.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>

#include "parallel.h"

namespace detc {

// Grain of a parallel_for whose items take about `work` elementary steps each: a thread is worth waking for tens of microseconds.
inline int64_t grain_for(int64_t work) {
  constexpr int64_t kWorth = 65536;
  return work >= kWorth ? 1 : kWorth / std::max<int64_t>(work, 1);
}

// Not initialised, unlike std::vector's.
template <class T>
std::unique_ptr<T[]> scratch(int64_t n) {
  return std::unique_ptr<T[]>(new T[static_cast<size_t>(n > 0 ? n : 1)]);
}

// to[j][i] = from[i][j] for i < rows, j < cols; row strides given. Blocked so that both sides stay in the cache.
template <class T>
void transpose(int64_t rows, int64_t cols, const T* from, int64_t from_stride, T* to, int64_t to_stride) {
  constexpr int64_t kBlock = 16;
  for (int64_t i0 = 0; i0 < rows; i0 += kBlock)
    for (int64_t j0 = 0; j0 < cols; j0 += kBlock) {
      const int64_t i1 = i0 + kBlock < rows ? i0 + kBlock : rows, j1 = j0 + kBlock < cols ? j0 + kBlock : cols;
      for (int64_t i = i0; i < i1; ++i)
        for (int64_t j = j0; j < j1; ++j) to[j * to_stride + i] = from[i * from_stride + j];
    }
}

// An image batch with a pixel's channels in one run: a copy, or the images themselves where they are so already.
template <class T>
class ChannelsLast {
 public:
  explicit ChannelsLast(const T* x) : data_(x) {}
  explicit ChannelsLast(std::unique_ptr<T[]> copy) : copy_(std::move(copy)), data_(copy_.get()) {}
  const T* get() const { return data_; }

 private:
  std::unique_ptr<T[]> copy_;
  const T* data_;
};

// [B, C, HW] to [B, HW, C].
template <class T>
ChannelsLast<T> channels_last(const T* x, int64_t images, int64_t channels, int64_t pixels) {
  if (channels == 1 || pixels == 1) return ChannelsLast<T>(x);
  auto out = scratch<T>(images * channels * pixels);
  T* to = out.get();
  parallel_for(images * pixels, 1024, [=](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t image = begin / pixels, first = begin % pixels, count = std::min(end - begin, pixels - first);
      transpose(channels, count, x + image * channels * pixels + first, pixels, to + begin * channels, channels);
      begin += count;
    }
  });
  return ChannelsLast<T>(std::move(out));
}

}  // namespace detc
