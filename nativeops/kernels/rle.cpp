#include "rle.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "layout.h"
#include "pages.h"

namespace detc {
namespace {

// Calls f(x) for every x where two rows of bits differ; eight at a time where they do not.
template <class F>
void differences(const uint8_t* row, const uint8_t* above, int64_t width, const F& f) {
  int64_t x = 0;
  for (; x + 8 <= width; x += 8) {
    uint64_t a, b;
    std::memcpy(&a, row + x, 8);
    std::memcpy(&b, above + x, 8);
    if (a == b) continue;
    for (int64_t i = x; i < x + 8; ++i)
      if (row[i] != above[i]) f(i);
  }
  for (; x < width; ++x)
    if (row[x] != above[x]) f(x);
}

// Changes are found row by row (the bitmap is row-major) and sorted into their columns by counting.
void encode_one(const Rle& s, const uint8_t* bits, std::vector<int64_t>& slots, std::vector<int32_t>& changes, int32_t* runs, int64_t* length) {
  const int64_t H = s.height, W = s.width;
  std::fill(runs, runs + s.capacity, 0);
  *length = 0;
  if (H * W == 0) return;
  // The first pixel of a column follows the last one of the column before; the first of all follows a zero.
  const auto starts = [&](int64_t x) { return bits[x] != (x > 0 ? bits[(H - 1) * W + x - 1] : 0); };
  slots.assign(static_cast<size_t>(W + 1), 0);
  for (int64_t x = 0; x < W; ++x) slots[x + 1] = starts(x);
  for (int64_t y = 1; y < H; ++y) differences(bits + y * W, bits + (y - 1) * W, W, [&](int64_t x) { ++slots[x + 1]; });
  for (int64_t x = 0; x < W; ++x) slots[x + 1] += slots[x];
  const int64_t total = slots[W];
  changes.resize(static_cast<size_t>(total));
  for (int64_t x = 0; x < W; ++x)
    if (starts(x)) changes[slots[x]++] = static_cast<int32_t>(x * H);
  for (int64_t y = 1; y < H; ++y)
    differences(bits + y * W, bits + (y - 1) * W, W, [&](int64_t x) { changes[slots[x]++] = static_cast<int32_t>(x * H + y); });
  *length = total + 1;
  int32_t before = 0;
  for (int64_t i = 0; i <= total && i < s.capacity; ++i) {
    const int32_t at = i < total ? changes[i] : static_cast<int32_t>(H * W);
    runs[i] = at - before;
    before = at;
  }
}

}  // namespace

void rle_encode_cpu(const Rle& s, const uint8_t* bits, int32_t* runs, int64_t* lengths) {
  parallel_for(s.masks, grain_for(s.height * s.width / 4), [=, &s](int64_t begin, int64_t end) {
    std::vector<int64_t> slots;
    std::vector<int32_t> changes;
    for (int64_t i = begin; i < end; ++i)
      encode_one(s, bits + i * s.height * s.width, slots, changes, runs + i * s.capacity, lengths + i);
  });
}

void rle_decode_cpu(const Rle& s, const int32_t* runs, const int64_t* lengths, uint8_t* bits) {
  const int64_t H = s.height, W = s.width, pixels = H * W;
  prefer_huge_pages(bits, s.masks * pixels);
  parallel_for(s.masks, grain_for(s.height * s.width / 4), [=, &s](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      uint8_t* out = bits + i * pixels;
      std::fill(out, out + pixels, uint8_t{0});
      const int64_t count = std::min(lengths[i], s.capacity);
      int64_t at = 0;
      for (int64_t r = 0; r < count && at < pixels; ++r) {
        const int64_t stop = std::min(pixels, at + std::max<int64_t>(0, runs[i * s.capacity + r]));
        if (r % 2 == 0) {
          at = stop;
          continue;
        }
        while (at < stop) {
          const int64_t x = at / H, y = at % H, n = std::min(stop - at, H - y);
          uint8_t* to = out + y * W + x;
          for (int64_t j = 0; j < n; ++j) to[j * W] = 1;
          at += n;
        }
      }
    }
  });
}

}  // namespace detc
