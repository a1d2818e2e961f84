"""Overlap and quality losses against torchvision's, plain formulas, and on batches without objects."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from detc.compiler.functional.losses_iou import aligned_overlap, iou_loss
from detc.compiler.functional.losses_quality import (
    binary_cross_entropy,
    distribution_focal,
    quality_focal,
    varifocal,
)
from detc.compiler.ops.losses_iou import GIoU
from detc.compiler.ops.losses_quality import BinaryCrossEntropy, QualityFocal
from detc.compiler.types import Mismatch, tensor


def boxes(*shape: int) -> torch.Tensor:
    corner = torch.rand(*shape, 2) * 50
    return torch.cat((corner, corner + torch.rand(*shape, 2) * 40 + 1), -1)


@pytest.mark.parametrize(
    ("kind", "reference"),
    [
        ("giou", generalized_box_iou_loss),
        ("diou", distance_box_iou_loss),
        ("ciou", complete_box_iou_loss),
    ],
)
def test_overlap_losses_equal_torchvision(kind: str, reference: Any) -> None:
    a, b = boxes(2, 50).requires_grad_(), boxes(2, 50)
    ours = iou_loss(a, b, kind=kind, least=1.0)
    theirs = reference(a.reshape(-1, 4), b.reshape(-1, 4), reduction="mean")
    assert torch.isclose(ours, theirs, atol=1e-5)
    (mine,) = torch.autograd.grad(ours, a)
    (yours,) = torch.autograd.grad(theirs, a)
    assert torch.allclose(mine, yours, atol=1e-5)


def test_iou_of_equal_boxes_is_one() -> None:
    a = boxes(7)
    for kind in ("iou", "giou", "diou", "ciou"):
        assert torch.allclose(aligned_overlap(a, a, kind), torch.ones(7), atol=1e-5)


def test_weights_select_and_scale() -> None:
    a, b = boxes(1, 4), boxes(1, 4)
    weight = torch.tensor([[0.0, 2.0, 0.0, 1.0]])
    overlap = aligned_overlap(a, b, "iou")[0]
    wanted = (2 * (1 - overlap[1]) + (1 - overlap[3])) / 3
    assert torch.isclose(iou_loss(a, b, weight, kind="iou"), wanted)
    assert torch.isclose(iou_loss(a, b, weight, torch.tensor(6.0), kind="iou"), wanted / 2)
    logged = -(2 * overlap[1].clamp(min=1e-6).log() + overlap[3].clamp(min=1e-6).log()) / 3
    assert torch.isclose(iou_loss(a, b, weight, kind="iou", log=True), logged)


def test_no_objects_give_zero_and_no_nan() -> None:
    wild = torch.full((2, 5, 4), float("inf")).requires_grad_()
    for kind in ("iou", "giou", "diou", "ciou"):
        loss = iou_loss(wild, torch.zeros(2, 5, 4), torch.zeros(2, 5), kind=kind)
        loss.backward()
        assert float(loss.detach()) == 0
        assert torch.equal(wild.grad, torch.zeros_like(wild))
        wild.grad = None


def test_inverted_boxes_have_finite_gradients() -> None:
    a = torch.tensor([[[30.0, 30.0, 10.0, 10.0], [5.0, 5.0, 5.0, 5.0]]]).requires_grad_()
    b = torch.tensor([[[0.0, 0.0, 20.0, 20.0], [5.0, 5.0, 5.0, 5.0]]])
    for kind in ("iou", "giou", "diou", "ciou"):
        iou_loss(a, b, torch.ones(1, 2), kind=kind).backward()
    assert torch.isfinite(a.grad).all()


def test_quality_focal_is_its_formula() -> None:
    logits = torch.randn(2, 6, 3).requires_grad_()
    target = torch.zeros(2, 6, 3)
    target[0, 1, 2], target[1, 4, 0] = 0.7, 0.4
    bce = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    wanted = (bce * (target - logits.sigmoid()).abs() ** 2).sum() / 1.1
    assert torch.isclose(quality_focal(logits, target, beta=2.0), wanted, atol=1e-5)
    level = logits.transpose(1, 2).reshape(2, 3, 2, 3)
    assert torch.isclose(quality_focal([level], target, torch.tensor(2.2), beta=2.0), wanted / 2, atol=1e-5)


def test_varifocal_is_its_formula() -> None:
    logits, target = torch.randn(2, 6, 3), torch.zeros(2, 6, 3)
    target[0, 1, 2], target[1, 4, 0] = 0.7, 0.9
    bce = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    weight = torch.where(target > 0, target, 0.75 * logits.sigmoid() ** 2)
    assert torch.isclose(
        varifocal(logits, target, alpha=0.75, gamma=2.0), (bce * weight).sum() / 1.6, atol=1e-5
    )


def test_binary_cross_entropy_over_levels() -> None:
    maps = [torch.randn(2, 1, 2, 3), torch.randn(2, 1, 1, 2)]
    rows = torch.cat([m.flatten(1) for m in maps], 1)
    target, weight = torch.rand(2, 8), (torch.rand(2, 8) > 0.5).float()
    bce = torch.nn.functional.binary_cross_entropy_with_logits(rows, target, reduction="none")
    assert torch.isclose(binary_cross_entropy(maps, target, weight), (bce * weight).sum() / weight.sum())
    assert float(binary_cross_entropy(maps, target, torch.zeros(2, 8))) == 0


def test_distribution_focal_is_least_at_the_distance() -> None:
    logits = torch.full((1, 1, 4, 9), -20.0)
    logits[..., 3], logits[..., 4] = 20.0, 20.0
    target = torch.full((1, 1, 4), 3.5)
    loss = distribution_focal(logits.flatten(2), target, bins=8)
    assert torch.isclose(loss, torch.tensor(2.0).log(), atol=1e-4)


def test_misfits() -> None:
    with pytest.raises(Mismatch, match="against a target"):
        GIoU().infer(tensor("B", "N", 4), tensor("B", 4))
    with pytest.raises(Mismatch, match="4 logits for each point expected, 3 found"):
        from detc.compiler.types import Pyramid

        from .test_elementary import feature_map

        QualityFocal().infer(Pyramid((feature_map(3),)), tensor("B", "N", 4))
    with pytest.raises(Mismatch, match="1 logits for each point expected, 3 found"):
        BinaryCrossEntropy().infer(tensor("B", "N", 3), tensor("B", "N"))
