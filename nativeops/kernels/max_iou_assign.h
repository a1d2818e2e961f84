// Assignment of boxes to truths by largest IoU, without the matrix of all overlaps.
//
// Ren et al. 2015 (arXiv 1506.01497), section 3.1.2; `low_quality` as in MMDetection (truth) or torchvision (own).
#pragma once

#include <cstdint>

#include "box_iou.h"
#include "scalar.h"

namespace detc {

enum class LowQuality : int32_t { none = 0, truth = 1, own = 2 };

struct MaxIouAssignArgs {
  DType dtype;         // of boxes, truths and iou
  const void* boxes;   // [B or 1, N, 4]
  bool shared_boxes;   // one set of boxes for all images
  const void* truths;  // [B, G, 4]
  const bool* valid;   // [B, G]
  int64_t batch, n, g;
  double positive, negative, min_positive;
  LowQuality low_quality;
  int64_t* index;  // [B, N]: the truth, or -1 background, or -2 ignored
  void* iou;       // [B, N]: with the truth overlapped most, ties to the first; 0 without truths
};

void max_iou_assign_cpu(const MaxIouAssignArgs& args);

#ifdef DETC_WITH_CUDA
int64_t max_iou_assign_cuda_workspace(const MaxIouAssignArgs& args);
void max_iou_assign_cuda(const MaxIouAssignArgs& args, void* workspace, void* stream);
#endif

// Overlap for the assignment: a box with a NaN coordinate overlaps nothing.
template <class A>
DETC_HD A assign_overlap(const OverlapBox<A>& box, const OverlapBox<A>& truth) {
  const A iou = box_overlap<IouKind::iou>(box, truth);
  return iou > A(0) ? iou : A(0);
}

// What a box becomes, given its best truth and, of the truths whose best overlap it is, the last one (-1: none).
// The thresholds are rounded to the type of the overlap, as torch compares.
template <class A>
DETC_HD int64_t assigned_index(A best, int64_t own, int64_t last_claim, bool has_truth, const MaxIouAssignArgs& args) {
  const A positive = static_cast<A>(args.positive), negative = static_cast<A>(args.negative);
  const LowQuality low_quality = args.low_quality;
  if (!has_truth) return -1;
  if (last_claim >= 0 && low_quality == LowQuality::truth) return last_claim;
  if (last_claim >= 0 && low_quality == LowQuality::own) return own;
  if (best >= positive) return own;
  return best >= negative ? -2 : -1;
}

}  // namespace detc
