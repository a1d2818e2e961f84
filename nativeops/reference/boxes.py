"""Overlap of boxes in pure torch. Boxes are (x1, y1, x2, y2); arithmetic follows torchvision's order so that
results round alike."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def area(boxes: Tensor) -> Tensor:
    """``(x2 - x1) * (y2 - y1)``: negative for a box inverted along one axis."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def intersection_and_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection and union areas of broadcastable boxes ``[..., 4]``; both ``[...]``."""
    left_top = torch.maximum(a[..., :2], b[..., :2])
    right_bottom = torch.minimum(a[..., 2:], b[..., 2:])
    size = (right_bottom - left_top).clamp(min=0)
    inter = size[..., 0] * size[..., 1]
    return inter, area(a) + area(b) - inter


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of every box of ``a [..., N, 4]`` with every box of ``b [..., M, 4]``: ``[..., N, M]``; NaN for two
    empty boxes."""
    inter, union = intersection_and_union(a[..., :, None, :], b[..., None, :, :])
    return inter / union


def overlap(a: Tensor, b: Tensor, kind: str) -> Tensor:
    """IoU, GIoU, DIoU or CIoU of broadcastable boxes: ``[...]``. Quotients with a denominator that is not
    positive are 0."""
    inter, union = intersection_and_union(a, b)
    iou = _ratio(inter, union)
    if kind == "iou":
        return iou
    outer = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    if kind == "giou":
        hull = outer[..., 0] * outer[..., 1]
        return iou - _ratio(hull - union, hull)
    apart = a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]
    diou = iou - _ratio(apart.square().sum(-1), 4 * outer.square().sum(-1))
    if kind == "diou":
        return diou
    shape = (4 / math.pi**2) * (_angle(b) - _angle(a)).square()
    trade_off = _ratio(shape, 1 - iou + shape).detach()
    return diou - trade_off * shape


def _ratio(x: Tensor, y: Tensor) -> Tensor:
    none = y <= 0
    return torch.where(none, 0.0, x / torch.where(none, 1.0, y))


def _angle(boxes: Tensor) -> Tensor:
    w, h = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    none = (w == 0) & (h == 0)
    return torch.atan2(w, torch.where(none, 1.0, h))
