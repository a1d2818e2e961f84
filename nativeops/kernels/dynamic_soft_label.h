// RTMDet's assignment (Lyu et al. 2022, arXiv 2212.07784): dynamic k by IoU, cost from class, overlap and a soft centre prior. One pass an image;
// no pairwise tensor is ever written.
//
// cost(g, n) = quality focal loss of point n's logits against IoU(g, n) at g's class, summed over classes
//            - iou_weight * log(IoU(g, n) + 1e-7) + 10 ^ (distance of n to g's centre in strides - radius)
// Only points that lie in some valid truth take part. Truth g takes its k points of least cost (ties by index), k = max(1, floor(sum of its `topk`
// largest IoUs)). A point taken by several truths goes to the one of least cost among all valid truths (ties by index).
#pragma once

#include <cstdint>

namespace detc {

struct DynamicSoftLabelArgs {
  const float* points;    // [N, 2] x y
  const float* strides;   // [N]
  const float* logits;    // [B, N, C]
  const float* boxes;     // [B, N, 4] x1 y1 x2 y2
  const float* truth;     // [B, G, 4]
  const int64_t* labels;  // [B, G], in 0..C-1 where valid
  const bool* valid;      // [B, G]
  int64_t batch, num_points, num_classes, num_truth;
  int64_t topk;
  float radius, iou_weight;
  int64_t* out_index;  // [B, N]: the truth, or -1
  float* out_iou;      // [B, N]: IoU with it, or 0
};

void dynamic_soft_label_cpu(const DynamicSoftLabelArgs& args);

}  // namespace detc
