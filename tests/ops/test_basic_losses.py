"""Losses against torch's and torchvision's on what counts, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from detc.compiler.functional.losses import cross_entropy, focal, sigmoid_cross_entropy, smooth_l1

LABELS = torch.tensor([[2, -1, 0, -2, 1], [-1, -1, -2, 3, -1]])


def test_cross_entropy_is_torchs_mean_over_samples() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 5)
    rows = LABELS != -2
    target = torch.where(LABELS == -1, 4, LABELS)[rows]
    assert torch.allclose(cross_entropy(logits, LABELS), F.cross_entropy(logits[rows], target))


def test_sigmoid_cross_entropy_of_one_column_is_torchs() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 5, 1), LABELS.clamp(max=0)
    rows = labels != -2
    theirs = F.binary_cross_entropy_with_logits(logits[rows][:, 0], (labels[rows] == 0).float())
    assert torch.allclose(sigmoid_cross_entropy(logits, labels), theirs)


@pytest.mark.parametrize("by", ["positives", "positives_per_image"])
def test_focal_is_torchvisions(by: str) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 4)
    sums, counts = [], []
    for i in range(2):
        rows = LABELS[i] != -2
        target = (LABELS[i][rows][:, None] == torch.arange(4)).float()
        sums.append(sigmoid_focal_loss(logits[i][rows], target, reduction="sum"))
        counts.append((LABELS[i] >= 0).sum())
    if by == "positives":
        expected = sum(sums) / sum(counts)
    else:
        expected = torch.stack([s / c for s, c in zip(sums, counts, strict=True)]).mean()
    assert torch.allclose(focal(logits, LABELS, alpha=0.25, gamma=2.0, by=by), expected, rtol=1e-5)


@pytest.mark.parametrize("beta", [0.0, 1 / 9, 1.0])
def test_smooth_l1_counts_rows_with_a_class(beta: float) -> None:
    torch.manual_seed(0)
    pred, values = torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    rows = LABELS >= 0
    total = F.smooth_l1_loss(pred[rows], values[rows], beta=beta, reduction="sum")
    target = {"values": values, "labels": LABELS}
    assert torch.allclose(smooth_l1(pred, target, beta=beta), total / (LABELS != -2).sum())
    assert torch.allclose(smooth_l1(pred, target, beta=beta, by="positives"), total / rows.sum())
    whole = F.smooth_l1_loss(pred, values, beta=beta, reduction="sum") / 10
    assert torch.allclose(smooth_l1(pred, values, beta=beta), whole)


def test_smooth_l1_takes_the_box_of_the_class() -> None:
    torch.manual_seed(0)
    pred, values = torch.randn(2, 5, 4, 4), torch.randn(2, 5, 4)
    chosen = torch.stack(
        [torch.stack([pred[i, n, max(int(LABELS[i, n]), 0)] for n in range(5)]) for i in range(2)]
    )
    target = {"values": values, "labels": LABELS}
    assert torch.allclose(smooth_l1(pred, target, beta=1.0), smooth_l1(chosen, target, beta=1.0))


@pytest.mark.parametrize("value", [-1, -2])
def test_without_objects_losses_are_finite_with_finite_gradients(value: int) -> None:
    labels = torch.full((2, 5), value)
    logits = torch.randn(2, 5, 4, requires_grad=True)
    target = {"values": torch.full((2, 5, 4), torch.inf), "labels": labels}
    losses = [
        cross_entropy(logits, labels),
        sigmoid_cross_entropy(logits, labels),
        focal(logits, labels, alpha=0.25, gamma=2.0),
        focal(logits, labels, alpha=0.25, gamma=2.0, by="positives_per_image"),
        smooth_l1(logits, {**target, "values": torch.zeros(2, 5, 4)}, beta=1.0),
    ]
    for loss in losses:
        assert loss.isfinite()
        (grad,) = torch.autograd.grad(loss, logits, retain_graph=True)
        assert grad.isfinite().all()
    assert losses[-1] == 0
    if value == -2:
        assert all(loss == 0 for loss in losses)
