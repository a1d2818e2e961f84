"""Overlap of boxes in pure torch. Boxes are (x1, y1, x2, y2); arithmetic follows torchvision's order so that results round alike."""

from __future__ import annotations

import torch
from torch import Tensor


def intersection_and_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection and union areas of broadcastable boxes ``[..., 4]``; both ``[...]``."""
    left_top = torch.maximum(a[..., :2], b[..., :2])
    right_bottom = torch.minimum(a[..., 2:], b[..., 2:])
    size = (right_bottom - left_top).clamp(min=0)
    inter = size[..., 0] * size[..., 1]
    return inter, area(a) + area(b) - inter


def area(boxes: Tensor) -> Tensor:
    """``(x2 - x1) * (y2 - y1)``: negative for a box inverted along one axis."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of every box of ``a [..., N, 4]`` with every box of ``b [..., M, 4]``: ``[..., N, M]``; NaN for two empty boxes."""
    inter, union = intersection_and_union(a[..., :, None, :], b[..., None, :, :])
    return inter / union
