// Multi-scale deformable attention (Deformable DETR, eq. 3): out[b,q,m,:] = sum over l,p of weight * bilinear sample.
#pragma once

#include <cstdint>

#include "scalar.h"

namespace detc {

inline constexpr int64_t kMaxAttentionLevels = 16;

struct MsDeformAttn {
  int64_t images, positions, heads, channels, levels, queries, points;
  int64_t height[kMaxAttentionLevels], width[kMaxAttentionLevels], start[kMaxAttentionLevels];  // of each level, in pixels
};

// value [B,S,M,D], locations [B,Q,M,L,P,2] (x, y in [0, 1]), weights [B,Q,M,L,P], out [B,Q,M,D]. CPU: float32 and float64.
void ms_deform_attn_cpu(
    DType dtype, const MsDeformAttn& shape, const void* value, const void* locations, const void* weights, void* out);
// grad_value must be zero on entry; the other gradients are overwritten.
void ms_deform_attn_backward_cpu(
    DType dtype, const MsDeformAttn& shape, const void* grad_out, const void* value, const void* locations, const void* weights,
    void* grad_value, void* grad_locations, void* grad_weights);

// All four dtypes; grad_value is accumulated in `sums` (see fixed_point.h), `positions * images * heads * channels` of them.
void ms_deform_attn_cuda(
    DType dtype, const MsDeformAttn& shape, const void* value, const void* locations, const void* weights, void* out, void* stream);
void ms_deform_attn_backward_cuda(
    DType dtype, const MsDeformAttn& shape, const void* grad_out, const void* value, const void* locations, const void* weights,
    void* grad_value, void* grad_locations, void* grad_weights, void* workspace, void* stream);
int64_t ms_deform_attn_backward_workspace(const MsDeformAttn& shape);

}  // namespace detc
