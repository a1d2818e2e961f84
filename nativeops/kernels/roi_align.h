// RoIAlign over one feature map or over a pyramid, forward and backward; and RoIPool.
//
// He et al. 2017 (arXiv 1703.06870); the level of a roi is Lin et al. 2017 (arXiv 1612.03144), equation 1, rounded as
// torchvision rounds it.
#pragma once

#include <math.h>
#include <cstdint>

#include "scalar.h"

namespace detc {

inline constexpr int kMaxLevels = 8;

struct RoiAlignArgs {
  DType dtype;  // of features, output and their gradients; coordinates are float64 for f64 and float32 for all others
  int64_t num_levels;
  const void* features[kMaxLevels];  // [B, C, H_l, W_l]; null in the backward
  void* grad_features[kMaxLevels];   // backward only: every element is written
  int64_t height[kMaxLevels], width[kMaxLevels];
  double scale[kMaxLevels];  // 1 / stride
  int64_t batch, channels;
  const void* rois;   // [num_rois, 4], rois_per_image of them an image; or [num_rois, 5] with the image first when
                      // rois_per_image is 0
  const bool* valid;  // [num_rois] or null
  int64_t num_rois, rois_per_image;
  int64_t pooled_height, pooled_width;
  int64_t sampling_ratio;  // 0: ceil(bin size)
  bool aligned;
  double canonical_scale, canonical_level;
  void* output;      // forward: [num_rois, C, P, Q]
  const void* grad;  // backward: the same shape
};

void roi_align_forward_cpu(const RoiAlignArgs& args);
void roi_align_backward_cpu(const RoiAlignArgs& args);

#ifdef DETC_WITH_CUDA
void roi_align_forward_cuda(const RoiAlignArgs& args, void* stream);
int64_t roi_align_backward_cuda_workspace(const RoiAlignArgs& args);
void roi_align_backward_cuda(const RoiAlignArgs& args, void* workspace, void* stream);
#endif

// Where a roi samples. Plain arithmetic in A, each step rounded, so that every host and torchvision agree on the sample
// positions.
template <class A>
struct RoiGeometry {
  bool usable;  // false: the output is zero and there is no gradient
  int64_t image, level;
  A y, x;            // start in feature coordinates
  A bin_h, bin_w;    // may be negative when aligned
  A grid_h, grid_w;  // samples a bin, a whole number; <= 0: none
  A count;           // what the sum is divided by
};

template <class A>
DETC_HD RoiGeometry<A> roi_geometry(const RoiAlignArgs& args, int64_t roi) {
  RoiGeometry<A> g;
  const bool listed = args.rois_per_image == 0;
  const A* box = static_cast<const A*>(args.rois) + roi * (listed ? 5 : 4);
  g.usable = args.valid == nullptr || args.valid[roi];
  g.image = listed ? -1 : roi / args.rois_per_image;
  g.level = 0;
  if (listed) {
    if (*box >= A(0) && *box < static_cast<A>(args.batch)) g.image = static_cast<int64_t>(*box);
    ++box;
  }
  const A x1 = box[0], y1 = box[1], x2 = box[2], y2 = box[3];
  g.usable = g.usable && g.image >= 0 && isfinite(x1) && isfinite(y1) && isfinite(x2) && isfinite(y2);
  if (!g.usable) return g;
  if (args.num_levels > 1) {
    const A size = sqrt((x2 - x1) * (y2 - y1));
    const A lowest = static_cast<A>(round(-log2(args.scale[0])));
    const A level = floor(static_cast<A>(args.canonical_level) + log2(size / static_cast<A>(args.canonical_scale)) +
                          static_cast<A>(1e-6)) -
                    lowest;
    const A highest = static_cast<A>(args.num_levels - 1);
    g.level = level >= highest ? args.num_levels - 1
                               : (level > A(0) ? static_cast<int64_t>(level) : 0);  // NaN (an inverted box): 0
  }
  g.usable = args.height[g.level] > 0 && args.width[g.level] > 0;
  if (!g.usable) return g;
  const A scale = static_cast<A>(args.scale[g.level]), offset = args.aligned ? A(0.5) : A(0);
  g.x = x1 * scale - offset;
  g.y = y1 * scale - offset;
  A w = (x2 * scale - offset) - g.x, h = (y2 * scale - offset) - g.y;
  if (!args.aligned) {
    w = w > A(1) ? w : A(1);
    h = h > A(1) ? h : A(1);
  }
  const A P = static_cast<A>(args.pooled_height), Q = static_cast<A>(args.pooled_width);
  g.bin_h = h / P;
  g.bin_w = w / Q;
  g.grid_h = args.sampling_ratio > 0 ? static_cast<A>(args.sampling_ratio) : ceil(h / P);
  g.grid_w = args.sampling_ratio > 0 ? static_cast<A>(args.sampling_ratio) : ceil(w / Q);
  const A count = g.grid_h * g.grid_w;
  g.count = count > A(1) ? count : A(1);
  return g;
}

// One axis of one sample: two pixels and their weights. False: outside, the sample is zero.
template <class A>
DETC_HD bool roi_sample(A at, int64_t size, int64_t* low, int64_t* high, A* weight_high) {
  if (!(at >= A(-1) && at <= static_cast<A>(size))) return false;  // NaN too: a roi as large as floats go has such samples
  if (at <= A(0)) at = A(0);
  *low = static_cast<int64_t>(at);
  if (*low >= size - 1) {
    *low = *high = size - 1;
    *weight_high = A(0);
    return true;
  }
  *high = *low + 1;
  *weight_high = at - static_cast<A>(*low);
  return true;
}

template <class A>
DETC_HD A roi_position(A start, A bin, A grid, int64_t bin_index, A sample) {
  return start + static_cast<A>(bin_index) * bin + (sample + A(0.5)) * bin / grid;
}

// The samples [first, last) of a bin that can lie in the map: a roi many times the map has billions that do not.
template <class A>
DETC_HD void roi_sample_range(A start, A bin, A grid, int64_t bin_index, int64_t size, A* first, A* last) {
  *first = A(0);
  *last = grid;
  if (grid <= A(64) || !(bin > A(0))) return;
  const A from = start + static_cast<A>(bin_index) * bin, step = bin / grid;
  const A lower = floor((A(-1) - from) / step) - A(2), upper = ceil((static_cast<A>(size) - from) / step) + A(2);
  if (lower > *first) *first = lower;
  if (upper < *last) *last = upper;
  // Beyond float's whole numbers "the next sample" means nothing: such a roi has no sample worth taking.
  if (*last - *first > static_cast<A>(4 * (size + 8)) || *last > A(8e6)) *last = *first;
}

}  // namespace detc
