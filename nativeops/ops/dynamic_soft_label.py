"""``dynamic_soft_label``: RTMDet's assignment of truths to points, without a pairwise tensor on the CPU.

B images, G padded truths, N points of all levels, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detc.nativeops.ops._common import check_bool, check_device, constant
from detc.nativeops.reference import dynamic_soft_label as reference
from detc.nativeops.registry import native_op


def _fake(points: Tensor, strides: Tensor, logits: Tensor, *rest: object) -> tuple[Tensor, Tensor]:
    return logits.new_empty(logits.shape[:2], dtype=torch.int64), logits.new_empty(logits.shape[:2])


_dynamic_soft_label = native_op(
    "dynamic_soft_label(Tensor points, Tensor strides, Tensor logits, Tensor boxes, Tensor truth, "
    "Tensor labels, Tensor valid, int topk, float radius, float iou_weight) -> (Tensor, Tensor)",
    reference=reference.dynamic_soft_label,
    fake=_fake,
)


def dynamic_soft_label(
    points: Tensor,
    strides: Tensor,
    logits: Tensor,
    boxes: Tensor,
    truth: Tensor,
    labels: Tensor,
    valid: Tensor,
    *,
    topk: int = 13,
    radius: float = 3.0,
    iou_weight: float = 3.0,
) -> tuple[Tensor, Tensor]:
    """RTMDet's assignment (arXiv 2212.07784, section 3.3; SimOTA, arXiv 2107.08430, with soft labels).

    No gradient; computed in float32. The cost of a point for a truth is the quality focal loss of its logits
    against the IoU at the truth's class, summed over classes, minus ``iou_weight * log(IoU + 1e-7)``, plus
    ``10 ** (distance to the truth's centre in strides - radius)``. Only points that lie in some valid truth
    take part. A truth takes its k cheapest points, k the sum of its ``topk`` largest IoUs rounded down, at
    least 1. A point that several truths take goes to the truth that is cheapest for it.

    Args:
        points: ``[N, 2]`` x y in pixels. strides: ``[N]`` pixels.
        logits: ``[B, N, C]``. boxes: ``[B, N, 4]`` predictions, x1 y1 x2 y2 in pixels.
        truth: ``[B, G, 4]``. labels: ``[B, G]`` int64, in 0..C-1 where valid. valid: ``[B, G]`` bool.

    Returns:
        ``[B, N]`` int64, the truth of each point or -1, and ``[B, N]`` float32, the IoU of its box with that
        truth or 0.

    Raises:
        ValueError: shapes or devices that do not fit. TypeError: ``valid`` is not bool. RuntimeError: a valid
            truth's label is outside 0..C-1.
    """
    if logits.dim() != 3 or boxes.shape != (*logits.shape[:2], 4):
        raise ValueError(f"logits are [B, N, C] and boxes [B, N, 4]: {_shapes(logits, boxes)}")
    if truth.dim() != 3 or labels.shape != truth.shape[:2] or valid.shape != truth.shape[:2]:
        raise ValueError(f"truth is [B, G, 4], labels and valid [B, G]: {_shapes(truth, labels, valid)}")
    if points.shape != (logits.shape[1], 2) or strides.shape != points.shape[:1] or truth.shape[2] != 4:
        raise ValueError(
            f"points are [N, 2], strides [N] and truth [B, G, 4]: {_shapes(points, strides, truth, logits)}"
        )
    if truth.shape[0] != logits.shape[0]:
        raise ValueError(f"logits and truth are of as many images: {_shapes(logits, truth)}")
    if topk < 1:
        raise ValueError(f"topk must be positive: {topk}")
    check_bool("dynamic_soft_label", "valid", valid)
    check_device("dynamic_soft_label", points, strides, logits, boxes, truth, labels, valid)
    labels = constant(labels, torch.int64)
    floats = [constant(t, torch.float32) for t in (points, strides, logits, boxes, truth)]
    return _dynamic_soft_label(*floats, labels, valid, topk, float(radius), float(iou_weight))


def _shapes(*tensors: Tensor) -> str:
    return ", ".join(str(tuple(t.shape)) for t in tensors)
