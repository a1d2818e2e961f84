// RoIAlign's weights are separable: per roi one table for y and one for x, shared by all channels.
#pragma once

#include <cstdint>
#include <vector>

#include "roi_align.h"

namespace detc {

inline constexpr int64_t kQLanes = 8;  // output columns are handled in blocks of this many

// One roi's summed bilinear weights. Rows: for each bin p the taps [y_begin[p], y_end[p]) with weights from
// y_weights[y_offset[p]], the division by the number of samples included. Columns: a window of the map, dense:
// by_column[x][q] (forward) and by_bin[q][x] (backward), zero-padded.
template <class A>
struct RoiTable {
  bool usable = false;
  int64_t image = 0, level = 0;
  int64_t x_begin = 0, x_count = 0;  // the window; x_count 0: nothing is sampled
  int64_t x_padded = 0;              // row length of by_bin, a multiple of `lanes`
  std::vector<int64_t> y_begin, y_end, y_offset;
  std::vector<A> y_weights, by_column, by_bin;
};

template <class A>
RoiTable<A> make_roi_table(const RoiAlignArgs& args, int64_t roi, int64_t lanes, bool backward);

extern template RoiTable<float> make_roi_table<float>(const RoiAlignArgs&, int64_t, int64_t, bool);
extern template RoiTable<double> make_roi_table<double>(const RoiAlignArgs&, int64_t, int64_t, bool);

}  // namespace detc
