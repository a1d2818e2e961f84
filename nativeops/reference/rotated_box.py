"""Overlap of rotated boxes in pure torch, by another road than the kernel's, so that each checks the other.

The corners of the common area of two rectangles are corners of one that lie in the other, and crossings of
their sides. Sorted by angle around their mean these candidates give the area. Boxes are (cx, cy, w, h, angle
in radians).
"""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK = 1 << 18  # pairs at a time: a pair has 24 candidates


def pairwise_rotated_iou(a_N5: Tensor, b_M5: Tensor) -> Tensor:
    """IoU of every pair: ``[N, M]``, in the dtype of the boxes."""
    N, M = len(a_N5), len(b_M5)
    rows = [
        aligned_rotated_iou(part.repeat_interleave(M, 0), b_M5.repeat(len(part), 1))
        for part in a_N5.split(max(1, _CHUNK // max(M, 1)))
    ]
    return torch.cat(rows).reshape(N, M) if rows else a_N5.new_zeros(N, M)


def aligned_rotated_iou(a_P5: Tensor, b_P5: Tensor) -> Tensor:
    """IoU of P pairs: ``[P]``; 0 where a box has no area or a number is not finite."""
    a, b = _in_order(a_P5.double(), b_P5.double())
    good = _sound(a) & _sound(b)
    square = a.new_tensor([0.0, 0.0, 1.0, 1.0, 0.0])
    a, b = a.where(good[:, None], square), b.where(good[:, None], square)
    a, b = (
        a - torch.cat((b[:, :2], torch.zeros_like(b[:, 2:])), 1),
        b * b.new_tensor([0.0, 0.0, 1.0, 1.0, 1.0]),
    )
    corners_a, corners_b = _corners(a), _corners(b)
    crossings, crossed = _crossings(corners_a, corners_b)
    points = torch.cat((corners_a, corners_b, crossings), 1)
    is_corner = torch.cat((_inside(corners_a, b), _inside(corners_b, a), crossed), 1)
    inter = _area(points, is_corner)
    area_a, area_b = a[:, 2] * a[:, 3], b[:, 2] * b[:, 3]
    return torch.where(good, (inter / (area_a + area_b - inter)).clamp(0, 1), 0.0).to(a_P5.dtype)


def _in_order(a_P5: Tensor, b_P5: Tensor) -> tuple[Tensor, Tensor]:
    """Each pair with the lexically smaller box first, so that the overlap is symmetric to the last bit, as the kernel's
    is: soft suppression makes ties of overlaps with each other."""
    swap = torch.zeros_like(a_P5[:, 0], dtype=torch.bool)
    decided = swap
    for a, b in zip(a_P5.unbind(1), b_P5.unbind(1), strict=True):
        swap = swap | (~decided & (a > b))
        decided = decided | (a != b)
    return b_P5.where(swap[:, None], a_P5), a_P5.where(swap[:, None], b_P5)


def _sound(boxes_P5: Tensor) -> Tensor:
    """Boxes with an area, and with angles that still mean something."""
    sides, angle = boxes_P5[:, 2:4], boxes_P5[:, 4]
    return boxes_P5.isfinite().all(1) & (sides > 0).all(1) & (sides.prod(1) < 1e300) & (angle.abs() < 1e15)


def _corners(boxes_P5: Tensor) -> Tensor:
    x, y, w, h, angle = boxes_P5.unbind(1)
    u = torch.stack((w * angle.cos(), w * angle.sin()), -1) / 2
    v = torch.stack((-h * angle.sin(), h * angle.cos()), -1) / 2
    return torch.stack((x, y), -1)[:, None] + torch.stack((u + v, v - u, -u - v, u - v), 1)


def _inside(points_PK2: Tensor, boxes_P5: Tensor) -> Tensor:
    x, y, w, h, angle = boxes_P5[:, None].unbind(2)
    dx, dy = points_PK2[..., 0] - x, points_PK2[..., 1] - y
    along, across = dx * angle.cos() + dy * angle.sin(), dy * angle.cos() - dx * angle.sin()
    slack = 1e-12 * (w + h)
    return (along.abs() <= w / 2 + slack) & (across.abs() <= h / 2 + slack)


def _crossings(a_P42: Tensor, b_P42: Tensor) -> tuple[Tensor, Tensor]:
    """Where the 16 pairs of sides cross ``[P, 16, 2]`` and whether they do ``[P, 16]``."""
    a0, b0 = a_P42[:, :, None], b_P42[:, None]
    a1, b1 = (a_P42.roll(-1, 1) - a_P42)[:, :, None], (b_P42.roll(-1, 1) - b_P42)[:, None]
    det = a1[..., 0] * b1[..., 1] - a1[..., 1] * b1[..., 0]
    parallel = det.abs() < 1e-14 * (a1.norm(dim=-1) * b1.norm(dim=-1))
    det, gap = det.where(~parallel, 1.0), b0 - a0
    s = (gap[..., 0] * b1[..., 1] - gap[..., 1] * b1[..., 0]) / det
    t = (gap[..., 0] * a1[..., 1] - gap[..., 1] * a1[..., 0]) / det
    crosses = ~parallel & (s >= 0) & (s <= 1) & (t >= 0) & (t <= 1)
    at = (a0 + s[..., None] * a1).where(crosses[..., None], 0.0)
    return at.flatten(1, 2), crosses.flatten(1)


def _area(points_PK2: Tensor, used_PK: Tensor) -> Tensor:
    """Area of the convex polygon whose corners are the used points, in any order and with repetitions."""
    weight = used_PK.double()[..., None]
    middle = (points_PK2 * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
    around = points_PK2 - middle
    angle = torch.atan2(around[..., 1], around[..., 0]).where(used_PK, torch.inf)
    order = angle.argsort(1)
    ring = around.gather(1, order[..., None].expand_as(around))
    # Unused points sort last; the first used point stands in for them, where they add nothing.
    kept = used_PK.gather(1, order)
    ring = ring.where(kept[..., None], ring[:, :1])
    after = ring.roll(-1, 1)
    twice = (ring[..., 0] * after[..., 1] - ring[..., 1] * after[..., 0]).sum(1)
    return torch.where(used_PK.sum(1) >= 3, twice.abs() / 2, 0.0)


def rotated_iou(a_N5: Tensor, b_M5: Tensor, aligned: bool) -> Tensor:
    """See ``detc.nativeops.ops.rotated_iou``."""
    return aligned_rotated_iou(a_N5, b_M5) if aligned else pairwise_rotated_iou(a_N5, b_M5)
