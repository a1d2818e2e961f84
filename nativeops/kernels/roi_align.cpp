// CPU RoIAlign. Work is split by image and channel block, with every roi of the image inside: a block's planes stay in
// cache, and the backward adds in the order of the rois whatever the number of threads.
#include "roi_align.h"

#include <cstring>
#include <vector>

#include "parallel.h"
#include "roi_tables.h"
#include "simd.h"

namespace detc {
namespace {

constexpr int64_t kChannelBlock = 8;

template <class A>
struct eight {
  typedef A type __attribute__((vector_size(kQLanes * sizeof(A))));
};
template <class A>
using Eight = typename eight<A>::type;

template <class A>
std::vector<RoiTable<A>> make_tables(const RoiAlignArgs& args, bool backward) {
  std::vector<RoiTable<A>> tables(args.num_rois);
  parallel_for(args.num_rois, 128, [&](int64_t from, int64_t to) {
    for (int64_t r = from; r < to; ++r) tables[r] = make_roi_table<A>(args, r, kLanes<A>, backward);
  });
  return tables;
}

// Rois by image, each in order. (One image's rois are neighbours when the rois are batched, anywhere when they are
// listed.)
template <class A>
std::vector<std::vector<int64_t>> by_image(const RoiAlignArgs& args, const std::vector<RoiTable<A>>& tables) {
  std::vector<std::vector<int64_t>> rois(args.batch);
  for (int64_t r = 0; r < args.num_rois; ++r)
    if (tables[r].usable) rois[tables[r].image].push_back(r);
  return rois;
}

template <class T, class A>
vec<A> load_vector(const T* p) {
  if constexpr (std::is_same_v<T, A>) {
    return vload(p);
  } else {
    A lanes[kLanes<A>];
    for (int i = 0; i < kLanes<A>; ++i) lanes[i] = load(p + i);
    return vload(lanes);
  }
}

template <class T, class A>
vec<A> load_part(const T* p, int64_t count) {
  A lanes[kLanes<A>] = {};
  for (int64_t i = 0; i < count; ++i) lanes[i] = load(p + i);
  return vload(lanes);
}

// out[p][q] of N rows p at once: N independent chains of multiply-adds over the window's columns.
template <int N, class A>
void columns(const A* rows, int64_t row_stride, const A* by_column, int64_t x_count, int64_t q_padded, int64_t Q,
             A* out) {
  for (int64_t q = 0; q < q_padded; q += kQLanes) {
    Eight<A> sum[N] = {};
    for (int64_t x = 0; x < x_count; ++x) {
      Eight<A> weights;
      std::memcpy(&weights, by_column + x * q_padded + q, sizeof(weights));
      for (int p = 0; p < N; ++p) sum[p] += rows[p * row_stride + x] * weights;
    }
    const int64_t here = Q - q < kQLanes ? Q - q : kQLanes;
    for (int p = 0; p < N; ++p) {
      A lanes[kQLanes];
      std::memcpy(lanes, &sum[p], sizeof(lanes));
      for (int64_t i = 0; i < here; ++i) out[p * Q + q + i] = lanes[i];
    }
  }
}

// One channel of one roi. `rows` is scratch for P x x_padded.
template <class T, class A>
void forward_plane(const RoiAlignArgs& args, const RoiTable<A>& table, const T* plane, const T* end_of_map, A* rows,
                   A* sums, T* out) {
  constexpr int64_t L = kLanes<A>;
  const int64_t P = args.pooled_height, Q = args.pooled_width, W = args.width[table.level];
  for (int64_t p = 0; p < P; ++p) {
    const A* weights = table.y_weights.data() + table.y_offset[p];
    const int64_t y_begin = table.y_begin[p], y_end = table.y_end[p];
    for (int64_t x = 0; x < table.x_padded; x += L) {
      vec<A> sum{};
      const T* at = plane + y_begin * W + table.x_begin + x;
      for (int64_t y = y_begin; y < y_end; ++y, at += W) {
        // A vector may run over the end of its row (what it finds there is not used), not over the end of the tensor.
        const int64_t room = end_of_map - at;
        sum += weights[y - y_begin] * (room >= L ? load_vector<T, A>(at) : load_part<T, A>(at, room));
      }
      vstore(rows + p * table.x_padded + x, sum);
    }
  }
  const int64_t q_padded = (Q + kQLanes - 1) / kQLanes * kQLanes;
  int64_t p = 0;
  for (; p + 7 <= P; p += 7)
    columns<7>(rows + p * table.x_padded, table.x_padded, table.by_column.data(), table.x_count, q_padded, Q,
               sums + p * Q);
  for (; p < P; ++p)
    columns<1>(rows + p * table.x_padded, table.x_padded, table.by_column.data(), table.x_count, q_padded, Q,
               sums + p * Q);
  for (int64_t i = 0; i < P * Q; ++i) store(out + i, sums[i]);
}

template <class T>
void forward(const RoiAlignArgs& args) {
  using A = acc_t<T>;
  const auto tables = make_tables<A>(args, false);
  const auto rois = by_image(args, tables);
  const int64_t C = args.channels, PQ = args.pooled_height * args.pooled_width;
  T* output = static_cast<T*>(args.output);
  parallel_for(args.num_rois, 64, [&](int64_t from, int64_t to) {
    for (int64_t r = from; r < to; ++r)
      if (!tables[r].usable) std::memset(static_cast<void*>(output + r * C * PQ), 0, C * PQ * sizeof(T));
  });
  int64_t widest = 0;
  for (const auto& table : tables) widest = table.x_padded > widest ? table.x_padded : widest;
  const int64_t blocks = (C + kChannelBlock - 1) / kChannelBlock;
  parallel_for(args.batch * blocks, 1, [&](int64_t from, int64_t to) {
    std::vector<A> rows(args.pooled_height * widest), sums(PQ);
    for (int64_t unit = from; unit < to; ++unit) {
      const int64_t image = unit / blocks, c_begin = unit % blocks * kChannelBlock;
      const int64_t c_end = c_begin + kChannelBlock < C ? c_begin + kChannelBlock : C;
      for (const int64_t r : rois[image]) {
        const RoiTable<A>& table = tables[r];
        const int64_t plane = args.height[table.level] * args.width[table.level];
        const T* map = static_cast<const T*>(args.features[table.level]);
        for (int64_t c = c_begin; c < c_end; ++c)
          forward_plane<T, A>(args, table, map + (image * C + c) * plane, map + args.batch * C * plane, rows.data(),
                              sums.data(), output + (r * C + c) * PQ);
      }
    }
  });
}

// Adds one channel of one roi's gradient to its plane. `rows` is scratch for x_padded.
template <class T, class A>
void backward_plane(const RoiAlignArgs& args, const RoiTable<A>& table, const T* grad, A* rows, A* plane) {
  constexpr int64_t L = kLanes<A>;
  const int64_t P = args.pooled_height, Q = args.pooled_width, W = args.width[table.level];
  for (int64_t p = 0; p < P; ++p) {
    if (table.y_begin[p] == table.y_end[p]) continue;
    for (int64_t x = 0; x < table.x_padded; x += L) {
      vec<A> sum{};
      for (int64_t q = 0; q < Q; ++q)
        sum += load(grad + p * Q + q) * vload(table.by_bin.data() + q * table.x_padded + x);
      vstore(rows + x, sum);
    }
    const A* weights = table.y_weights.data() + table.y_offset[p];
    for (int64_t y = table.y_begin[p]; y < table.y_end[p]; ++y) {
      const A weight = weights[y - table.y_begin[p]];
      A* row = plane + y * W + table.x_begin;
      int64_t x = 0;
      for (; x + L <= table.x_count; x += L) vstore(row + x, vload(row + x) + weight * vload(rows + x));
      if (x == table.x_count) continue;
      if (x + L <= args.height[table.level] * W - y * W - table.x_begin) {
        vstore(row + x, vload(row + x) + weight * vload(rows + x));  // past the window it adds zero, within this plane
      } else {
        for (; x < table.x_count; ++x) row[x] += weight * rows[x];
      }
    }
  }
}

template <class T>
void backward(const RoiAlignArgs& args) {
  using A = acc_t<T>;
  const auto tables = make_tables<A>(args, true);
  const auto rois = by_image(args, tables);
  const int64_t C = args.channels, PQ = args.pooled_height * args.pooled_width;
  const T* grad = static_cast<const T*>(args.grad);
  int64_t widest = 0, largest = 0;
  for (const auto& table : tables) widest = table.x_padded > widest ? table.x_padded : widest;
  for (int64_t l = 0; l < args.num_levels; ++l) largest = std::max(largest, args.height[l] * args.width[l]);
  const int64_t blocks = (C + kChannelBlock - 1) / kChannelBlock;
  parallel_for(args.batch * blocks, 1, [&](int64_t from, int64_t to) {
    std::vector<A> rows(widest), wide;
    for (int64_t unit = from; unit < to; ++unit) {
      const int64_t image = unit / blocks, c_begin = unit % blocks * kChannelBlock;
      const int64_t channels = (c_begin + kChannelBlock < C ? c_begin + kChannelBlock : C) - c_begin;
      for (int64_t level = 0; level < args.num_levels; ++level) {
        const int64_t plane = args.height[level] * args.width[level];
        if (plane == 0) continue;
        T* out = static_cast<T*>(args.grad_features[level]) + (image * C + c_begin) * plane;
        A* sums;
        if constexpr (std::is_same_v<T, A>) {
          sums = out;
          std::memset(out, 0, channels * plane * sizeof(T));
        } else {
          wide.assign(channels * plane, A(0));  // sums of 16-bit gradients are kept in float
          sums = wide.data();
        }
        for (const int64_t r : rois[image]) {
          if (tables[r].level != level) continue;
          for (int64_t c = 0; c < channels; ++c)
            backward_plane<T, A>(args, tables[r], grad + (r * C + c_begin + c) * PQ, rows.data(), sums + c * plane);
        }
        if constexpr (!std::is_same_v<T, A>)
          for (int64_t i = 0; i < channels * plane; ++i) store(out + i, sums[i]);
      }
    }
  });
}

}  // namespace

void roi_align_forward_cpu(const RoiAlignArgs& args) { DETC_DISPATCH_FLOATING(args.dtype, T, forward<T>(args);) }
void roi_align_backward_cpu(const RoiAlignArgs& args) { DETC_DISPATCH_FLOATING(args.dtype, T, backward<T>(args);) }

}  // namespace detc
