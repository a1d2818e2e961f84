"""Sigmoid focal loss and its relatives in pure torch: oracle and fallback of ``detc::focal_loss``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def focal_loss(
    logits: Tensor, targets: Tensor, weights: Tensor | None, kind: str, alpha: float, gamma: float, sum: bool
) -> Tensor:
    """See ``detc.nativeops.ops.sigmoid_focal_loss``; ``kind`` is focal, quality, varifocal or
    varifocal_detached."""
    x = logits if logits.dtype == torch.float64 else logits.float()
    t = _one_hot(targets, x) if targets.dtype == torch.int64 else targets.to(x.dtype)
    p = x.sigmoid()
    ce = F.binary_cross_entropy_with_logits(x, t, reduction="none")
    if kind == "focal":
        loss = ce * (p + t - 2 * p * t) ** gamma
        if alpha >= 0:
            loss = loss * (alpha * t + (1 - alpha) * (1 - t))
    elif kind == "quality":
        loss = ce * (p - t).abs() ** gamma
    else:
        p = p.detach() if kind == "varifocal_detached" else p
        loss = ce * torch.where(t > 0, t, alpha * p**gamma)
    if weights is not None:
        loss = loss * weights.to(x.dtype)[..., None]
    return loss.sum(dtype=torch.float64).to(x.dtype) if sum else loss.to(logits.dtype)


def _one_hot(labels: Tensor, like: Tensor) -> Tensor:
    return (labels[..., None] == torch.arange(like.shape[-1], device=labels.device)).to(like.dtype)


def focal_loss_backward(
    grad: Tensor,
    logits: Tensor,
    targets: Tensor,
    weights: Tensor | None,
    kind: str,
    alpha: float,
    gamma: float,
) -> Tensor:
    """Gradient of the logits; ``grad`` has their shape or, of a sum, is one number."""
    with torch.enable_grad():
        leaf = logits.detach().to(torch.float64 if logits.dtype == torch.float64 else torch.float32)
        loss = focal_loss(leaf.requires_grad_(), targets, weights, kind, alpha, gamma, False)
        return torch.autograd.grad(loss, leaf, grad.to(loss.dtype).expand_as(loss))[0].to(logits.dtype)
