"""Bilinear samples at given points in plain torch (PointRend, Kirillov et al. 2020).

Shape legend: B images, C channels, P points.
"""

from __future__ import annotations

import torch

from .deform_conv2d import bilinear_zeros


def point_sample(x_BCHW: torch.Tensor, points_BP2: torch.Tensor, align_corners: bool = False) -> torch.Tensor:
    """Samples ``[B, C, P]`` of a feature map at (x, y) points in [0, 1]; outside reads zero.

    Args:
        x_BCHW: feature map or mask logits.
        points_BP2: normalised (x, y): 0 is the left edge, 1 the right edge (``align_corners=False``), or the
            centres of the first and last pixel (``align_corners=True``).

    Equals ``grid_sample(x, 2 * points - 1, padding_mode="zeros")``; NaN points read zero.
    """
    H, W = x_BCHW.shape[2:]
    if align_corners:
        x, y = points_BP2[..., 0] * (W - 1), points_BP2[..., 1] * (H - 1)
    else:
        x, y = points_BP2[..., 0] * W - 0.5, points_BP2[..., 1] * H - 0.5
    return bilinear_zeros(x_BCHW, y, x)
