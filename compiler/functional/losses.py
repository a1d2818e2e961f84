"""Losses over padded, partly ignored targets; each is a scalar, and 0 (never NaN) where nothing counts.

Labels are classes; -1 is background and -2 ignored. Shape legend: B images, N boxes or anchors, C classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from detc.compiler.functional.normaliser import normaliser
from detc.compiler.functional.sample import BACKGROUND, IGNORED
from detc.nativeops import ops


def average(values_BN: Tensor, labels_BN: Tensor, by: str) -> Tensor:
    """The sum of `values_BN` over a count taken from the labels; ignored rows must already be 0.

    by: "samples" (rows that are not ignored), "positives" (rows with a class), or "positives_per_image"
        (each image by its own positives, then the mean over images: torchvision's RetinaNet).
    """
    counted_BN = labels_BN != IGNORED if by == "samples" else labels_BN >= 0
    if by == "positives_per_image":
        return (values_BN.sum(1) / counted_BN.sum(1).clamp(min=1)).mean()
    return values_BN.sum() / normaliser(counted_BN.sum(), 1)


def cross_entropy(
    logits: Tensor,
    labels_BN: Tensor,
    *,
    by: str = "samples",
    smoothing: float = 0.0,
    background: bool = True,
    background_weight: float = 1.0,
) -> Tensor:
    """Softmax cross entropy of `logits` [B, N, C + 1], whose last column is the background.

    Without `background` there are C columns, and background rows do not count; with it they count
    `background_weight` each, also in the number of samples.
    """
    rows_BNC = logits.float()
    if not background:
        labels_BN = labels_BN.masked_fill(labels_BN == BACKGROUND, IGNORED)
    column = rows_BNC.shape[-1] - 1
    target_BN = labels_BN.masked_fill(labels_BN == BACKGROUND, column)
    loss_BN = F.cross_entropy(
        rows_BNC.flatten(0, 1),
        target_BN.flatten(),
        ignore_index=IGNORED,
        reduction="none",
        label_smoothing=smoothing,
    ).view_as(labels_BN)
    if background_weight == 1.0:
        return average(loss_BN, labels_BN, by)
    weight_BN = torch.where(labels_BN == BACKGROUND, background_weight, 1.0) * (labels_BN != IGNORED)
    if by == "samples":
        total = normaliser(weight_BN.sum(), torch.finfo(torch.float32).tiny)
        return (loss_BN * weight_BN).sum() / total
    return average(loss_BN * weight_BN, labels_BN, by)


def sigmoid_cross_entropy(logits_BNC: Tensor, labels_BN: Tensor, *, by: str = "samples") -> Tensor:
    """Binary cross entropy of each class on its own, summed over classes; there is no background column."""
    target_BNC = one_hot(labels_BN, logits_BNC)
    loss_BNC = F.binary_cross_entropy_with_logits(logits_BNC.float(), target_BNC, reduction="none")
    return average(_unless_ignored(loss_BNC, labels_BN), labels_BN, by)


def focal(
    logits_BNC: Tensor, labels_BN: Tensor, *, alpha: float, gamma: float, by: str = "positives"
) -> Tensor:
    """Sigmoid focal loss (Lin et al., 2017, equation 5), summed over classes."""
    target_BNC = one_hot(labels_BN, logits_BNC)
    loss_BNC = ops.sigmoid_focal_loss(logits_BNC.float(), target_BNC, alpha=alpha, gamma=gamma)
    return average(_unless_ignored(loss_BNC, labels_BN), labels_BN, by)


def smooth_l1(pred: Tensor, target: Any, *, beta: float, by: str = "samples") -> Tensor:
    """Smooth L1 (Girshick, 2015, equation 3, scaled so that slope 1 begins at `beta`); `beta` 0 is L1.

    Args:
        pred: [B, N, D], or [B, N, C, D] to be judged at the class of the label.
        target: [B, N, D], all of which counts; or a dict of `values` [B, N, D] and `labels` [B, N].

    Returns:
        The sum over D and over rows with a class, divided by a count of rows (see `average`).
    """
    if not isinstance(target, dict):
        target = {"values": target, "labels": torch.zeros_like(target[..., 0], dtype=torch.int64)}
    labels_BN = target["labels"]
    if pred.dim() == 4:
        index = labels_BN.clamp(min=0)[:, :, None, None].expand(-1, -1, 1, pred.shape[-1])
        pred = pred.gather(2, index).squeeze(2)
    loss_BND = F.smooth_l1_loss(pred.float(), target["values"].float(), reduction="none", beta=beta)
    loss_BN = loss_BND.sum(-1)
    return average(torch.where(labels_BN >= 0, loss_BN, torch.zeros_like(loss_BN)), labels_BN, by)


def one_hot(labels_BN: Tensor, like_BNC: Tensor) -> Tensor:
    """float32 [B, N, C]: 1 at the class; all 0 for background and ignored rows."""
    classes_C = torch.arange(like_BNC.shape[-1], device=labels_BN.device)
    return (labels_BN[..., None] == classes_C).float()


def _unless_ignored(loss_BNC: Tensor, labels_BN: Tensor) -> Tensor:
    loss_BN = loss_BNC.sum(-1)
    return torch.where(labels_BN == IGNORED, torch.zeros_like(loss_BN), loss_BN)
