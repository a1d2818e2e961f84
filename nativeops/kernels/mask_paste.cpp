// detc-flags: -ffp-contract=off
// Between two neighbouring mask cells a row is linear, so a run of pixels is all set, all unset or (at the object's outline) mixed: only
// mixed runs look at their pixels, the others are filled.
#include "mask_paste.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "layout.h"
#include "pages.h"
#include "simd.h"

namespace detc {
namespace {

constexpr double kLarge = 1e30;

// The pixels [first, last) whose centres lie in [low, high), and for each the cell below it (-1 .. cells - 1) and the distance to it.
template <class T>
struct Axis {
  int64_t first = 0, last = 0;
  std::vector<int32_t> cell;
  std::vector<T> rest;

  void place(T low, T high, int64_t pixels, int64_t cells) {
    first = last = 0;
    cell.clear();
    rest.clear();
    const T extent = high - low;
    const T scale = T(cells) / extent;
    // Written so that NaN fails; a box too thin for its scale to be finite has no pixel either.
    if (!(extent > T(0) && extent < std::numeric_limits<T>::infinity() && scale < std::numeric_limits<T>::infinity()) || cells == 0) return;
    // The tests below decide; these bounds only have to hold every pixel that may pass, and to fit an integer.
    const T from = std::clamp(low - T(2), T(0), T(pixels)), to = std::clamp(high + T(2), T(0), T(pixels));
    first = static_cast<int64_t>(from), last = std::min(pixels, static_cast<int64_t>(to) + 1);
    while (first < last && !(T(first) + T(0.5) >= low)) ++first;
    while (last > first && !(T(last - 1) + T(0.5) < high)) --last;
    for (int64_t p = first; p < last; ++p) {
      const T at = (T(p) + T(0.5) - low) * scale - T(0.5);
      const T below = std::clamp(std::floor(at), T(-1), T(cells - 1));
      cell.push_back(static_cast<int32_t>(below));
      rest.push_back(std::clamp(at - below, T(0), T(1)));
    }
  }
};

template <class T>
T finite(T v) {
  if (std::isnan(v)) return T(0);
  return std::clamp(v, T(-kLarge), T(kLarge));
}

template <class T>
void paste_one(const MaskPaste& s, const T* mask, const T* box, Axis<T>& rows, Axis<T>& cols, std::vector<T>& line, uint8_t* out) {
  const int64_t H = s.height, W = s.width, k = s.mask_width;
  cols.place(box[0], box[2], W, k);
  rows.place(box[1], box[3], H, s.mask_height);
  if (rows.first >= rows.last || cols.first >= cols.last) {
    std::memset(out, 0, static_cast<size_t>(H * W));
    return;
  }
  // One row of cells with a zero on both sides: line[c + 1] is cell c.
  line.assign(static_cast<size_t>(k + 2), T(0));
  const T threshold = static_cast<T>(s.threshold);
  std::memset(out, 0, static_cast<size_t>(rows.first * W));
  for (int64_t y = rows.first; y < rows.last; ++y) {
    uint8_t* row = out + y * W;
    const int64_t cell = rows.cell[y - rows.first];
    const T d = rows.rest[y - rows.first];
    const T* upper = mask + cell * k;
    for (int64_t c = 0; c < k; ++c) {
      const T a = cell >= 0 ? finite(upper[c]) : T(0), b = cell + 1 < s.mask_height ? finite(upper[k + c]) : T(0);
      line[c + 1] = a * (1 - d) + b * d;
    }
    std::memset(row, 0, static_cast<size_t>(cols.first));
    int64_t x = cols.first;
    while (x < cols.last) {
      const int32_t left = cols.cell[x - cols.first];
      int64_t end = x + 1;
      while (end < cols.last && cols.cell[end - cols.first] == left) ++end;
      const T a = line[left + 1], b = line[left + 2];
      if (a >= threshold && b >= threshold) {
        std::memset(row + x, 1, static_cast<size_t>(end - x));
      } else if (a < threshold && b < threshold) {
        std::memset(row + x, 0, static_cast<size_t>(end - x));
      } else {
        const T* rest = cols.rest.data() - cols.first;
        for (int64_t i = x; i < end; ++i) row[i] = a * (1 - rest[i]) + b * rest[i] >= threshold;
      }
      x = end;
    }
    std::memset(row + cols.last, 0, static_cast<size_t>(W - cols.last));
  }
  std::memset(out + rows.last * W, 0, static_cast<size_t>((H - rows.last) * W));
}

template <class T>
void paste(const MaskPaste& s, const T* masks, const T* boxes, uint8_t* out) {
  parallel_for(s.masks, grain_for(s.height * s.width / 8), [=, &s](int64_t begin, int64_t end) {
    Axis<T> rows, cols;
    std::vector<T> line;
    for (int64_t i = begin; i < end; ++i)
      paste_one(s, masks + i * s.mask_height * s.mask_width, boxes + i * 4, rows, cols, line, out + i * s.height * s.width);
  });
}

}  // namespace

void mask_paste_cpu(DType dtype, const MaskPaste& s, const void* masks, const void* boxes, uint8_t* out) {
  if (s.masks * s.height * s.width == 0) return;
  prefer_huge_pages(out, s.masks * s.height * s.width);
  DETC_DISPATCH_WIDE(dtype, T, { paste(s, static_cast<const T*>(masks), static_cast<const T*>(boxes), out); });
}

}  // namespace detc
