"""Overlap losses between aligned boxes.

Shape legend: B images, N points or boxes; boxes are xyxy in pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from detc.compiler.functional.normaliser import normaliser

EPS = 1e-7


def iou_loss(
    boxes_BN4: Tensor,
    target_BN4: Tensor,
    weight_BN: Tensor | None = None,
    norm: Tensor | None = None,
    *,
    kind: str,
    log: bool = False,
    least: float = 1.0,
) -> Tensor:
    """sum(weight (1 - overlap)) / max(norm, least): a scalar.

    Pairs of weight 0 have no influence, whatever their boxes hold. `norm` is the sum of weights by default.
    With `log` the loss is -log overlap. Computed in float32.
    """
    boxes, target = boxes_BN4.float(), target_BN4.float()
    if weight_BN is None:
        weight = torch.ones_like(boxes[..., 0])
    else:
        weight = weight_BN.float()
        unit = boxes.new_tensor([0.0, 0.0, 1.0, 1.0])
        off = (weight == 0)[..., None]
        boxes, target = torch.where(off, unit, boxes), torch.where(off, unit, target)
    overlap = aligned_overlap(boxes, target, kind)
    loss = -overlap.clamp(min=1e-6).log() if log else 1 - overlap
    total = weight.sum() if norm is None else norm
    return (loss * weight).sum() / normaliser(total, least)


def aligned_overlap(boxes: Tensor, target: Tensor, kind: str) -> Tensor:
    """The overlap [...] of each pair of boxes [..., 4]; `kind` is "iou", "giou", "diou" or "ciou".

    GIoU: Rezatofighi et al., 2019. DIoU and CIoU: Zheng et al., 2020.
    """
    low, high = torch.maximum(boxes[..., :2], target[..., :2]), torch.minimum(boxes[..., 2:], target[..., 2:])
    size_a, size_b = boxes[..., 2:] - boxes[..., :2], target[..., 2:] - target[..., :2]
    overlap = (high - low).clamp(min=0).prod(-1)
    union = size_a.prod(-1) + size_b.prod(-1) - overlap
    iou = overlap / union.clamp(min=EPS)
    if kind == "iou":
        return iou
    outer = torch.maximum(boxes[..., 2:], target[..., 2:]) - torch.minimum(boxes[..., :2], target[..., :2])
    if kind == "giou":
        hull = outer.prod(-1).clamp(min=EPS)
        return iou - (hull - union) / hull
    apart = (boxes[..., :2] + boxes[..., 2:] - target[..., :2] - target[..., 2:]) / 2
    distance = apart.square().sum(-1) / outer.square().sum(-1).clamp(min=EPS)
    if kind == "diou":
        return iou - distance
    angle_a = torch.atan(size_a[..., 0] / size_a[..., 1].clamp(min=EPS))
    angle_b = torch.atan(size_b[..., 0] / size_b[..., 1].clamp(min=EPS))
    shape = (4 / math.pi**2) * (angle_b - angle_a).square()
    trade_off = (shape / (1 - iou + shape).clamp(min=EPS)).detach()
    return iou - distance - trade_off * shape
