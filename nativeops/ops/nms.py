"""``batched_nms`` (fixed capacity, for graphs) and ``nms`` (variable length, as torchvision's).

B images, N boxes, C classes, K kept boxes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from detc.nativeops.ops._common import check_bool, check_device, constant, widest
from detc.nativeops.reference import nms as reference
from detc.nativeops.registry import native_op

METHODS = ("hard", "soft_linear", "soft_gaussian", "matrix_linear", "matrix_gaussian")


class NmsResult(NamedTuple):
    """Detections of fixed capacity K an image, by descending score. Where ``valid`` is False everything else
    is zero."""

    boxes: Tensor  # [B, K, 4] (rotated: 5), dtype of the boxes given
    scores: Tensor  # [B, K]
    labels: Tensor  # [B, K] int64
    index: Tensor  # type: ignore[assignment]  # [B, K] int64: which of the N boxes
    valid: Tensor  # [B, K] bool


def _fake_batched_nms(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor | None,
    iou_threshold: float,
    score_threshold: float,
    keep: int,
    *options: object,
) -> tuple[Tensor, ...]:
    B = boxes.shape[0]
    whole = boxes.new_empty(B, keep, dtype=torch.int64)
    return (
        boxes.new_empty(B, keep, boxes.shape[2]),
        boxes.new_empty(B, keep),
        whole,
        torch.empty_like(whole),
        boxes.new_empty(B, keep, dtype=torch.bool),
    )


def _fake_nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


_batched_nms = native_op(
    "batched_nms(Tensor boxes, Tensor scores, Tensor? labels, float iou_threshold, float "
    "score_threshold, int keep, int pre_topk, "
    "bool class_agnostic, str method, float sigma, float min_score) -> (Tensor, Tensor, Tensor, "
    "Tensor, Tensor)",
    reference=reference.batched_nms,
    fake=_fake_batched_nms,
)
_nms = native_op(
    "nms(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor", reference=reference.nms, fake=_fake_nms
)


def batched_nms(
    boxes: Tensor,
    scores: Tensor,
    *,
    iou_threshold: float,
    score_threshold: float = -math.inf,
    keep: int = 100,
    pre_topk: int = 0,
    class_agnostic: bool = False,
    method: str = "hard",
    sigma: float = 0.5,
    min_score: float | None = None,
    labels: Tensor | None = None,
    valid: Tensor | None = None,
) -> NmsResult:
    """Non-maximum suppression over a batch, with outputs of fixed shape.

    Candidates are pairs (box, class) with ``score > score_threshold``, by score, ties by index (box first,
    then class). NaN and -inf scores are never candidates. The best ``pre_topk`` an image go on; the
    survivors' best ``keep`` come out. Not differentiable: gather with ``index`` for gradients.

    Args:
        boxes: ``[B, N, 4]`` x1 y1 x2 y2, or ``[B, N, C, 4]`` with boxes of each class; float32/64, float16 or
            bfloat16 (computed in float32). With 5 numbers each they are rotated: cx cy w h angle.
        scores: ``[B, N, C]``, or ``[B, N]``: one class, or the classes that ``labels`` gives.
        iou_threshold: a box goes when its IoU with a better kept box is strictly above it (hard,
            soft_linear). Two boxes of no area have IoU NaN and never suppress each other.
        keep: K, the capacity.
        pre_topk: candidates an image that enter suppression; 0 for all.
        class_agnostic: boxes of different classes suppress each other too.
        method: ``hard``; ``soft_linear``, ``soft_gaussian`` (Bodla et al., arXiv 1704.04503);
            ``matrix_linear``, ``matrix_gaussian`` (SOLOv2, arXiv 2003.10152).
        sigma: of the gaussians: soft ``exp(-iou^2 / sigma)`` (0.5 in the paper), matrix ``exp(-sigma *
            iou^2)`` (2.0 in the paper).
        min_score: soft and matrix: a decayed score must stay above it; None for ``score_threshold``.
        labels: ``[B, N]`` int64, with ``[B, N]`` scores.
        valid: ``[B, N]`` bool; False takes a (padded) box out.

    Raises:
        ValueError: shapes or devices that do not fit or an unknown method. TypeError: dtypes that do not.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}: {method!r}")
    if boxes.dim() not in (3, 4) or boxes.shape[-1] not in (4, 5):
        raise ValueError(
            f"boxes must be [B, N, 4] or [B, N, C, 4], or end in 5 when rotated: {tuple(boxes.shape)}"
        )
    if scores.dim() not in (2, 3) or scores.shape[:2] != boxes.shape[:2]:
        raise ValueError(
            f"scores must be [B, N, C] or [B, N] for boxes {tuple(boxes.shape)}: {tuple(scores.shape)}"
        )
    if labels is not None and (scores.dim() != 2 or labels.shape != scores.shape):
        raise ValueError(
            f"labels go with scores of shape [B, N] and are as many: {tuple(labels.shape)}, {tuple(scores.shape)}"
        )
    if labels is not None and labels.is_floating_point():
        raise TypeError(f"labels must be whole numbers, got {labels.dtype}")
    if valid is not None and valid.shape != boxes.shape[:2]:
        raise ValueError(f"valid must be [B, N] for boxes {tuple(boxes.shape)}: {tuple(valid.shape)}")
    check_device("batched_nms", boxes, scores, labels, valid)
    if keep < 0 or pre_topk < 0:
        raise ValueError(f"keep and pre_topk must not be negative: {keep}, {pre_topk}")
    scores = scores if scores.dim() == 3 else scores[..., None]
    dtype = widest(boxes, scores)
    boxes, scores = constant(boxes, dtype), constant(scores, dtype)
    labels = None if labels is None else constant(labels, torch.int64)
    if valid is not None:
        check_bool("batched_nms", "valid", valid)
        scores = scores.masked_fill(~valid[..., None], -math.inf)
    B, N, C = scores.shape
    if boxes.dim() == 4:
        if boxes.shape[2] != C:
            raise ValueError(f"boxes of {boxes.shape[2]} classes do not fit scores of {C}")
        labels = torch.arange(C, device=boxes.device).expand(B, N, C).reshape(B, N * C)
        boxes, scores = boxes.reshape(B, N * C, boxes.shape[3]), scores.reshape(B, N * C, 1)
        per_box = C
    else:
        per_box = 1
    floor = score_threshold if min_score is None else min_score
    out = NmsResult(
        *_batched_nms(
            boxes,
            scores,
            labels,
            iou_threshold,
            score_threshold,
            keep,
            pre_topk,
            class_agnostic,
            method,
            sigma,
            floor,
        )
    )
    return out if per_box == 1 else out._replace(index=out.index // per_box)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy suppression of one set of boxes, as ``torchvision.ops.nms``; the length of the result depends on
    the data.

    Args:
        boxes: ``[N, 4]`` x1 y1 x2 y2 (or rotated ``[N, 5]``). scores: ``[N]``. Of two dtypes, the wider is computed
            in. iou_threshold: strict.

    Returns:
        int64 ``[M]``: indices kept, by descending score, ties by index, NaN scores first (as torch.sort has
        them).

    Raises:
        ValueError: shapes or devices that do not fit. TypeError: no floating-point numbers.
    """
    if boxes.dim() != 2 or boxes.shape[1] not in (4, 5) or scores.shape != boxes.shape[:1]:
        raise ValueError(
            f"nms: boxes must be [N, 4] or [N, 5] and scores [N]: {tuple(boxes.shape)}, {tuple(scores.shape)}"
        )
    check_device("nms", boxes, scores)
    dtype = widest(boxes, scores)
    return _nms(constant(boxes, dtype), constant(scores, dtype), iou_threshold)
