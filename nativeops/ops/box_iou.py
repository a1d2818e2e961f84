"""``box_iou`` in its four kinds, and ``max_iou_assign``, which never makes the matrix.

B images, N and M boxes, G truths.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detc.nativeops.ops._common import check_bool, check_device, constant, widest
from detc.nativeops.reference import box_iou as reference
from detc.nativeops.registry import native_op

KINDS = ("iou", "giou", "diou", "ciou")
LOW_QUALITY = ("none", "truth", "own")


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    a, b, *ctx.options = inputs
    ctx.save_for_backward(a, b)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    grad_a, grad_b = _box_iou_backward(grad, *ctx.saved_tensors, *ctx.options)
    return grad_a, grad_b, None, None


_box_iou = native_op(
    "box_iou(Tensor a, Tensor b, str kind, bool aligned) -> Tensor",
    reference=reference.box_iou,
    fake=lambda a, b, kind, aligned: a.new_empty(a.shape[:2] if aligned else (*a.shape[:2], b.shape[1])),
    setup_context=_setup,
    backward=_backward,
)
_box_iou_backward = native_op(
    "box_iou_backward(Tensor grad, Tensor a, Tensor b, str kind, bool aligned) -> (Tensor, Tensor)",
    reference=reference.box_iou_backward,
    fake=lambda grad, a, b, kind, aligned: (a.new_empty(a.shape), b.new_empty(b.shape)),
)


def _fake_assign(boxes: Tensor, truths: Tensor, *rest: object) -> tuple[Tensor, Tensor]:
    iou = boxes.new_empty(truths.shape[0], boxes.shape[-2])
    return torch.empty_like(iou, dtype=torch.int64), iou


_max_iou_assign = native_op(
    "max_iou_assign(Tensor boxes, Tensor truths, Tensor valid, float positive, float negative, "
    "float min_positive, str low_quality) -> (Tensor, Tensor)",
    reference=reference.max_iou_assign,
    fake=_fake_assign,
)


def box_iou(boxes1: Tensor, boxes2: Tensor, *, kind: str = "iou", aligned: bool = False) -> Tensor:
    """Overlap of boxes (x1, y1, x2, y2), every pair or box by box. Differentiable in both.

    IoU; GIoU (arXiv 1902.09630); DIoU and CIoU (arXiv 1911.08287; CIoU's trade-off is a constant to the
    gradient). A quotient whose denominator is not positive is 0, so boxes without area have IoU 0 and no
    result is NaN unless a coordinate is.

    Args:
        boxes1: ``[*, N, 4]``; float32/64, float16 or bfloat16 (computed in float32).
        boxes2: ``[*, M, 4]``, same leading dimensions; aligned: the shape of boxes1 (any number of
            dimensions).

    Returns:
        ``[*, N, M]``; aligned: the shape of boxes1 without the 4.

    Raises:
        ValueError: shapes that do not fit, two devices or an unknown kind. TypeError: no floating-point numbers.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}: {kind!r}")
    lead = slice(None, -1) if aligned else slice(None, -2)
    if (
        boxes1.dim() < 2 - aligned
        or boxes2.dim() != boxes1.dim()
        or boxes1.shape[-1] != 4
        or boxes2.shape[-1] != 4
        or boxes1.shape[lead] != boxes2.shape[lead]
    ):
        raise ValueError(
            f"boxes must be [*, N, 4] and [*, M, 4]: {tuple(boxes1.shape)}, {tuple(boxes2.shape)}"
        )
    check_device("box_iou", boxes1, boxes2)
    dtype = widest(boxes1, boxes2)
    boxes1, boxes2 = (b if b.dtype == dtype else b.to(dtype) for b in (boxes1, boxes2))
    if aligned:
        flat = _box_iou(boxes1.reshape(1, -1, 4), boxes2.reshape(1, -1, 4), kind, True)
        return flat.reshape(boxes1.shape[:-1])
    shape = (*boxes1.shape[:-1], boxes2.shape[-2])
    if boxes1.dim() == 3:
        return _box_iou(boxes1, boxes2, kind, False)
    return _box_iou(
        boxes1.reshape(-1, *boxes1.shape[-2:]) if boxes1.dim() > 3 else boxes1[None],
        boxes2.reshape(-1, *boxes2.shape[-2:]) if boxes2.dim() > 3 else boxes2[None],
        kind,
        False,
    ).reshape(shape)


def max_iou_assign(
    boxes: Tensor,
    truths: Tensor,
    valid: Tensor,
    *,
    positive: float,
    negative: float,
    min_positive: float = 0.0,
    low_quality: str = "none",
) -> tuple[Tensor, Tensor]:
    """Each box takes the truth that it overlaps most (arXiv 1506.01497), without a matrix of all overlaps.

    At least ``positive``: that truth. Below ``negative``: background. Between: ignored. A box with a NaN
    coordinate overlaps nothing.

    Args:
        boxes: ``[N, 4]`` for all images, or ``[B, N, 4]``.
        truths: ``[B, G, 4]``, padded. valid: ``[B, G]`` bool.
        low_quality: each truth whose best overlap is at least ``min_positive`` also gets all boxes that reach
            it: ``truth`` gives them to that truth, of several the last (MMDetection), ``own`` to the truth
                that they overlap most themselves (torchvision); or ``none``.

    Returns:
        index ``[B, N]`` int64: the truth, -1 background or -2 ignored; iou ``[B, N]`` with the truth
        overlapped most (ties: the first), 0 in an image without truths. Neither carries gradients.

    Raises:
        ValueError: shapes, devices or options that do not fit. TypeError: dtypes that do not.
    """
    if low_quality not in LOW_QUALITY:
        raise ValueError(f"low_quality must be one of {', '.join(LOW_QUALITY)}: {low_quality!r}")
    if negative > positive:
        raise ValueError(f"negative = {negative} is above positive = {positive}")
    if (
        truths.dim() != 3
        or boxes.dim() not in (2, 3)
        or boxes.shape[-1] != 4
        or truths.shape[-1] != 4
        or valid.shape != truths.shape[:2]
        or (boxes.dim() == 3 and boxes.shape[0] != truths.shape[0])
    ):
        raise ValueError(
            f"boxes must be [N, 4] or [B, N, 4], truths [B, G, 4], valid [B, G]: "
            f"{tuple(boxes.shape)}, {tuple(truths.shape)}, {tuple(valid.shape)}"
        )
    check_bool("max_iou_assign", "valid", valid)
    check_device("max_iou_assign", boxes, truths, valid)
    dtype = widest(boxes, truths)
    return _max_iou_assign(
        constant(boxes, dtype), constant(truths, dtype), valid, positive, negative, min_positive, low_quality
    )
