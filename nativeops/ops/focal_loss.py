"""Sigmoid focal loss, quality focal loss and varifocal loss: one pass forward, one pass backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detc.nativeops.ops._common import check_device, check_floating, constant
from detc.nativeops.reference import focal_loss as reference
from detc.nativeops.registry import native_op


def _fake(
    logits: Tensor, targets: Tensor, weights: Tensor | None, kind: str, alpha: float, gamma: float, sum: bool
) -> Tensor:
    if not sum:
        return logits.new_empty(logits.shape)
    return logits.new_empty((), dtype=torch.float64 if logits.dtype == torch.float64 else torch.float32)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    logits, targets, weights, *ctx.options, _sum = inputs
    ctx.save_for_backward(logits, targets, weights)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    logits, targets, weights = ctx.saved_tensors
    return _focal_backward(grad, logits, targets, weights, *ctx.options), *[None] * 6


_focal = native_op(
    "focal_loss(Tensor logits, Tensor targets, Tensor? weights, str kind, float alpha, float "
    "gamma, bool sum) -> Tensor",
    reference=reference.focal_loss,
    fake=_fake,
    setup_context=_setup,
    backward=_backward,
)
_focal_backward = native_op(
    "focal_loss_backward(Tensor grad, Tensor logits, Tensor targets, Tensor? weights, str kind, "
    "float alpha, float gamma) -> Tensor",
    reference=reference.focal_loss_backward,
    fake=lambda grad, logits, *rest: logits.new_empty(logits.shape),
)


def _call(
    logits: Tensor,
    targets: Tensor,
    weights: Tensor | None,
    kind: str,
    alpha: float,
    gamma: float,
    reduction: str,
) -> Tensor:
    if reduction not in ("none", "sum", "mean"):
        raise ValueError(f"reduction must be none, sum or mean: {reduction!r}")
    if gamma < 0:
        raise ValueError(f"gamma must not be negative: {gamma}")
    check_floating("focal loss", "logits", logits)
    check_device("focal loss", logits, targets, weights)
    if logits.dim() == 0:
        raise ValueError("logits must be [..., C], got one number")
    labels = not targets.dtype.is_floating_point
    if targets.shape != (logits.shape[:-1] if labels else logits.shape):
        raise ValueError(
            f"targets must be {tuple(logits.shape)}, or int64 labels {tuple(logits.shape[:-1])}: "
            f"{tuple(targets.shape)}"
        )
    if weights is not None and weights.shape != logits.shape[:-1]:
        raise ValueError(f"weights must be {tuple(logits.shape[:-1])}: {tuple(weights.shape)}")
    targets = constant(targets, torch.int64 if labels else logits.dtype)
    weights = None if weights is None else constant(weights, logits.dtype)
    loss = _focal(logits, targets, weights, kind, float(alpha), float(gamma), reduction != "none")
    return loss / logits.numel() if reduction == "mean" else loss


def sigmoid_focal_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    weights: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """Focal loss (arXiv 1708.02002): ``alpha_t (1 - p_t)^gamma BCE(logit, target)``, as
    ``torchvision.ops.sigmoid_focal_loss``.

    Differentiable in the logits alone. Logits must be finite.

    Args:
        logits: ``[..., C]``; float32/64, float16 or bfloat16 (computed in float32).
        targets: ``[..., C]`` in 0..1, or int64 labels ``[...]``: the class whose target is 1, a label outside
            0..C-1 being background.
        alpha: weight of positives (1 - alpha: negatives); negative for none.
        weights: ``[...]``, one for each row of C; 0 leaves a row out.
        reduction: none, sum or mean over all elements: one pass, nothing of the logits' size is written,
            float32 for 16-bit logits.

    Raises:
        ValueError: shapes or devices that do not fit. TypeError: logits that are no floating-point numbers.
    """
    return _call(logits, targets, weights, "focal", alpha, gamma, reduction)


def quality_focal_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    beta: float = 2.0,
    weights: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """Quality focal loss (arXiv 2006.04388): ``|target - p|^beta BCE(logit, target)`` with targets in 0..1.
    See ``sigmoid_focal_loss``."""
    return _call(logits, targets, weights, "quality", -1.0, beta, reduction)


def varifocal_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    alpha: float = 0.75,
    gamma: float = 2.0,
    detach_weight: bool = False,
    weights: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """Varifocal loss (arXiv 2008.13367): BCE weighted by the target q where q > 0 and by ``alpha p^gamma``
    where not.

    ``detach_weight`` takes the weight as a constant, as RT-DETR trains. See ``sigmoid_focal_loss`` for the
    arguments.
    """
    return _call(
        logits,
        targets,
        weights,
        "varifocal_detached" if detach_weight else "varifocal",
        alpha,
        gamma,
        reduction,
    )
