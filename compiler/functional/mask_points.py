"""Masks at points instead of on grids (Kirillov et al., PointRend, CVPR 2020).

Shape legend: B images, N masks, G truths, P points; points are (x, y) in fractions of the mask.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detc.nativeops import ops


def draw_points(shape: tuple[Any, ...], device: torch.device) -> Tensor:
    """Uniform points [*shape, 2] from torch's global generator."""
    return torch.rand(*shape, 2, device=device)


def random_points(image: dict[str, Tensor], *, count: int) -> Tensor:
    """`RandomPoints`: [B, count, 2]."""
    pixels_BCHW = image["pixels"]
    return draw_points((pixels_BCHW.shape[0], count), pixels_BCHW.device)


def uncertain_points(masks_BNHW: Tensor, *, count: int, oversample: float, importance: float) -> Tensor:
    """`UncertainPoints`: [B, N, count, 2], the uncertain ones first.

    Args:
        masks_BNHW: logits; the nearer to zero, the less certain.
    """
    logits_BNHW = masks_BNHW.detach()
    rows = logits_BNHW.shape[:2]
    drawn = int(count * oversample)
    kept = int(importance * count)
    points_BND2 = draw_points((*rows, drawn), logits_BNHW.device)
    certain_BND = at_points(logits_BNHW, points_BND2).abs()
    index_BNK = certain_BND.topk(kept, dim=-1, largest=False).indices
    uncertain_BNK2 = points_BND2.gather(2, index_BNK[..., None].expand(-1, -1, -1, 2))
    return torch.cat((uncertain_BNK2, draw_points((*rows, count - kept), logits_BNHW.device)), 2)


def at_points(masks_BNHW: Tensor, points: Tensor) -> Tensor:
    """`PointSample`: float32 [B, N, P].

    Args:
        masks_BNHW: bool, or numbers of any type.
        points: [B, P, 2], or [B, N, P, 2] with points of their own for each mask.
    """
    masks_BNHW = masks_BNHW.float()
    if points.dim() == 3:
        return ops.point_sample(masks_BNHW, points)
    single_M1HW = masks_BNHW.flatten(0, 1)[:, None]
    return ops.point_sample(single_M1HW, points.flatten(0, 1)).view(points.shape[:3])


def take_masks(masks_BNHW: Tensor, match: dict[str, Tensor]) -> Tensor:
    """`TakeMasks`: [B, G, H, W].

    Args:
        match: `row` [B, G] int64, the mask of each truth; negative ones take the first.
    """
    index_BG = match["row"].clamp(min=0)
    image_B1 = torch.arange(index_BG.shape[0], device=index_BG.device)[:, None]
    return masks_BNHW[image_B1, index_BG]
