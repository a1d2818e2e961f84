// Non-maximum suppression: batched over images with outputs of fixed capacity, and the plain variable-length form.
//
// A candidate is a pair (box n, class c); its index is n * C + c. Candidates are ordered by score, highest first, ties
// by index. `hard` is greedy suppression (IoU > threshold, strictly), `soft_*` is Bodla et al. 2017 (arXiv 1704.04503),
// `matrix_*` is SOLOv2's (Wang et al. 2020, arXiv 2003.10152).
#pragma once

#include <cstdint>

#include "scalar.h"

namespace detc {

enum class NmsMethod : int32_t { hard = 0, soft_linear = 1, soft_gaussian = 2, matrix_linear = 3, matrix_gaussian = 4 };

struct NmsArgs {
  DType dtype;            // of boxes and scores
  bool rotated;           // boxes are [B, N, 5]: see rotated_box.h
  const void* boxes;      // [B, N, 4] x1 y1 x2 y2
  const void* scores;     // [B, N, C]
  const int64_t* labels;  // [B, N] when C is 1, or null (the class is c)
  int64_t batch, num_boxes, num_classes;
  double score_threshold;  // candidates have score > this (rounded to the type computed in, as torch compares); NaN
                           // never is
  double iou_threshold;
  double sigma;      // soft: exp(-iou^2 / sigma); matrix: exp(-sigma * iou^2)
  double min_score;  // soft and matrix: a decayed score must stay > this
  int64_t pre_topk;  // 0: no limit
  int64_t keep;      // K
  bool class_agnostic;
  NmsMethod method;
  void* out_boxes;      // [B, K, 4], rotated [B, K, 5]
  void* out_scores;     // [B, K]
  int64_t* out_labels;  // [B, K]
  int64_t* out_index;   // [B, K]
  bool* out_valid;      // [B, K]; everything else is zero where it is false
};

void batched_nms_cpu(const NmsArgs& args);

// Indices of the boxes that stay, by score; NaN scores come first, as in torch.sort. `kept` has room for n; returns how
// many were written.
int64_t nms_cpu(DType dtype, bool rotated, const void* boxes, const void* scores, int64_t n, double iou_threshold,
                int64_t* kept);

#ifdef DETC_WITH_CUDA
int64_t batched_nms_cuda_workspace(const NmsArgs& args);  // bytes
void batched_nms_cuda(const NmsArgs& args, void* workspace, int64_t workspace_bytes, void* stream);
// As nms_cpu, on the device; the count goes to *count (device memory).
int64_t nms_cuda_workspace(DType dtype, bool rotated, int64_t n);
void nms_cuda(DType dtype, bool rotated, const void* boxes, const void* scores, int64_t n, double iou_threshold,
              int64_t* kept, int64_t* count, void* workspace, int64_t workspace_bytes, void* stream);
#endif

}  // namespace detc
