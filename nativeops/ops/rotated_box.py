"""Rotated boxes: overlap, and suppression by it. A box is (cx, cy, w, h, angle in radians)."""

from __future__ import annotations

from torch import Tensor

from detc.nativeops.ops._common import check_device, constant, widest
from detc.nativeops.ops.nms import nms
from detc.nativeops.reference import rotated_box as reference
from detc.nativeops.registry import native_op

_rotated_iou = native_op(
    "rotated_iou(Tensor a, Tensor b, bool aligned) -> Tensor",
    reference=reference.rotated_iou,
    fake=lambda a, b, aligned: a.new_empty(a.shape[:1] if aligned else (a.shape[0], b.shape[0])),
)


def rotated_iou(boxes1: Tensor, boxes2: Tensor, *, aligned: bool = False) -> Tensor:
    """IoU of rotated boxes, every pair ``[N, M]`` or box by box ``[N]``. Computed in float64; not
    differentiable.

    The sense of rotation does not matter as long as it is the same for all. Boxes without area, with a
    negative side or with a number that is not finite have IoU 0.

    Args:
        boxes1: ``[N, 5]`` cx cy w h angle. boxes2: ``[M, 5]``; aligned: ``[N, 5]``.

    Raises:
        ValueError: shapes or devices that do not fit. TypeError: no floating-point numbers.
    """
    if (
        boxes1.dim() != 2
        or boxes2.dim() != 2
        or boxes1.shape[1] != 5
        or boxes2.shape[1] != 5
        or (aligned and len(boxes1) != len(boxes2))
    ):
        raise ValueError(f"boxes must be [N, 5] and [M, 5]: {tuple(boxes1.shape)}, {tuple(boxes2.shape)}")
    check_device("rotated_iou", boxes1, boxes2)
    dtype = widest(boxes1, boxes2)
    return _rotated_iou(constant(boxes1, dtype), constant(boxes2, dtype), aligned)


def rotated_nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """``nms`` for rotated boxes ``[N, 5]``. (``batched_nms`` takes ``[B, N, 5]``.)"""
    if boxes.dim() != 2 or boxes.shape[1] != 5:
        raise ValueError(f"boxes must be [N, 5]: {tuple(boxes.shape)}")
    return nms(boxes, scores, iou_threshold)
