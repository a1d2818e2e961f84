// detc-flags: -ffp-contract=off
// Sample positions must round as torchvision's do (a sample just outside the map counts zero), hence a file of its own
// without contraction.
#include "roi_tables.h"

#include <algorithm>

namespace detc {
namespace {

// Summed weights of every bin along one axis, each over its own range of pixels.
template <class A>
struct Axis {
  std::vector<int64_t> begin, end, offset;
  std::vector<A> weights;
};

template <class A>
Axis<A> make_axis(A start, A bin, A grid, int64_t bins, int64_t size) {
  Axis<A> axis;
  axis.begin.assign(bins, 0);
  axis.end.assign(bins, 0);
  axis.offset.assign(bins, 0);
  for (int64_t p = 0; p < bins; ++p) {
    A first, last;
    roi_sample_range(start, bin, grid, p, size, &first, &last);
    int64_t low, high, least = size, most = -1;
    A weight;
    for (A i = first; i < last; i += A(1)) {
      if (!roi_sample(roi_position(start, bin, grid, p, i), size, &low, &high, &weight)) continue;
      least = std::min(least, low);
      most = std::max(most, high);
    }
    axis.offset[p] = static_cast<int64_t>(axis.weights.size());
    if (most < 0) continue;
    axis.begin[p] = least;
    axis.end[p] = most + 1;
    axis.weights.resize(axis.weights.size() + (most + 1 - least), A(0));
    A* out = axis.weights.data() + axis.offset[p] - least;
    for (A i = first; i < last; i += A(1)) {
      if (!roi_sample(roi_position(start, bin, grid, p, i), size, &low, &high, &weight)) continue;
      out[low] += A(1) - weight;
      out[high] += weight;
    }
  }
  return axis;
}

}  // namespace

template <class A>
RoiTable<A> make_roi_table(const RoiAlignArgs& args, int64_t roi, int64_t lanes, bool backward) {
  RoiTable<A> table;
  const RoiGeometry<A> g = roi_geometry<A>(args, roi);
  table.usable = g.usable;
  if (!g.usable) return table;
  table.image = g.image;
  table.level = g.level;
  const int64_t P = args.pooled_height, Q = args.pooled_width, H = args.height[g.level], W = args.width[g.level];
  Axis<A> y = make_axis(g.y, g.bin_h, g.grid_h, P, H), x = make_axis(g.x, g.bin_w, g.grid_w, Q, W);
  for (A& w : y.weights) w /= g.count;

  int64_t x_end = 0;
  table.x_begin = W;
  for (int64_t q = 0; q < Q; ++q) {
    if (x.begin[q] == x.end[q]) continue;
    table.x_begin = std::min(table.x_begin, x.begin[q]);
    x_end = std::max(x_end, x.end[q]);
  }
  table.x_count = std::max<int64_t>(0, x_end - table.x_begin);
  table.x_padded = (table.x_count + lanes - 1) / lanes * lanes;
  const int64_t q_padded = (Q + kQLanes - 1) / kQLanes * kQLanes;
  if (backward)
    table.by_bin.assign(Q * table.x_padded, A(0));
  else
    table.by_column.assign(table.x_count * q_padded, A(0));
  for (int64_t q = 0; q < Q; ++q)
    for (int64_t at = x.begin[q]; at < x.end[q]; ++at) {
      const A weight = x.weights[x.offset[q] + at - x.begin[q]];
      const int64_t column = at - table.x_begin;
      if (backward)
        table.by_bin[q * table.x_padded + column] = weight;
      else
        table.by_column[column * q_padded + q] = weight;
    }
  table.y_begin = std::move(y.begin);
  table.y_end = std::move(y.end);
  table.y_offset = std::move(y.offset);
  table.y_weights = std::move(y.weights);
  return table;
}

template RoiTable<float> make_roi_table<float>(const RoiAlignArgs&, int64_t, int64_t, bool);
template RoiTable<double> make_roi_table<double>(const RoiAlignArgs&, int64_t, int64_t, bool);

}  // namespace detc
