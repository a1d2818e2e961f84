"""Multi-scale deformable attention in plain torch (Zhu et al., "Deformable DETR", 2021, eq. 3).

Shape legend: B images, S = sum of H_l*W_l over L levels, Q queries, M heads, D channels a head, P points a
level.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional


def level_sizes(spatial_shapes: Sequence[int]) -> list[tuple[int, int]]:
    """Pair up the flat list ``[H_0, W_0, H_1, W_1, …]``.

    Raises:
        ValueError: the list has an odd length or a negative entry.
    """
    if len(spatial_shapes) % 2 or any(size < 0 for size in spatial_shapes):
        raise ValueError(f"spatial_shapes must be H, W pairs >= 0, got {list(spatial_shapes)}")
    return list(zip(spatial_shapes[::2], spatial_shapes[1::2], strict=True))


def ms_deform_attn(
    value_BSMD: torch.Tensor,
    spatial_shapes: Sequence[int],
    locations_BQMLP2: torch.Tensor,
    weights_BQMLP: torch.Tensor,
) -> torch.Tensor:
    """Weighted sum of bilinear samples of every level around each query: ``[B, Q, M*D]``.

    Args:
        value_BSMD: projected features of all levels, flattened row-major and concatenated.
        spatial_shapes: ``H_0, W_0, H_1, W_1, …`` (flat, Python ints: shapes are static in a compiled graph).
        locations_BQMLP2: (x, y) in units of the level's size: 0 is the left edge of the first pixel, 1 the
            right edge of the last. Samples outside read zero.
        weights_BQMLP: attention weights, normally a softmax over L*P.

    The sampling is ``grid_sample(align_corners=False, padding_mode="zeros")`` of each level; NaN locations
    read zero, as in the kernels.
    """
    sizes = level_sizes(spatial_shapes)
    B, _, M, D = value_BSMD.shape
    Q, P = locations_BQMLP2.shape[1], locations_BQMLP2.shape[4]
    if 0 in (B, M, D, Q, P) or not sizes:
        return value_BSMD.new_zeros((B, Q, M * D))
    levels = value_BSMD.split([height * width for height, width in sizes], dim=1)
    # A far-away finite point is outside every level, where the sample and its gradients are zero.
    grids = torch.nan_to_num(2 * locations_BQMLP2 - 1, nan=-1e4, posinf=1e4, neginf=-1e4).clamp(-1e4, 1e4)
    samples = []
    for index, ((height, width), level_BsMD) in enumerate(zip(sizes, levels, strict=True)):
        if height == 0 or width == 0:
            samples.append(value_BSMD.new_zeros((B * M, D, Q, P)))
            continue
        image = level_BsMD.permute(0, 2, 3, 1).reshape(B * M, D, height, width)
        grid = grids[:, :, :, index].transpose(1, 2).reshape(B * M, Q, P, 2)
        samples.append(
            functional.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        )
    sampled = torch.stack(samples, dim=-2).reshape(B * M, D, Q, -1)
    weights = weights_BQMLP.transpose(1, 2).reshape(B * M, 1, Q, -1)
    return (sampled * weights).sum(-1).reshape(B, M * D, Q).transpose(1, 2)
