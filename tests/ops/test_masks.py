"""Ops of masks: targets and loss by hand-made cases, selection, pasting and resampling, deformable layers."""

from __future__ import annotations

import pytest
import torch
import torchvision

from detc.compiler.functional.deform import DeformConv2d
from detc.compiler.functional.layers import StandardisedConv2d
from detc.compiler.functional.masks import (
    class_masks,
    fold_regions,
    mask_bce,
    mask_targets,
    paste_masks,
    resample_masks,
    unfold_regions,
    with_masks,
)
from detc.compiler.functional.sample import first


def test_targets_are_the_truth_seen_through_each_region() -> None:
    masks = torch.zeros(2, 3, 40, 60, dtype=torch.bool)
    masks[0, 1, 10:30, 20:40] = True
    masks[1, 2, :, 30:] = True
    rois = torch.tensor([[[20.0, 10, 40, 30], [10, 10, 30, 30]], [[20, 0, 40, 40], [0, 0, 60, 40]]])
    index = torch.tensor([[1, 1], [2, -1]])
    target = mask_targets({"boxes": rois}, index, masks, size=4, aligned=True, threshold=0.5)
    assert target.shape == (2, 2, 4, 4)
    right = torch.tensor([0.0, 0, 1, 1]).expand(4, 4)
    assert (target[0, 0] == 1).all() and torch.equal(target[0, 1], right) and torch.equal(target[1, 0], right)
    assert (target[1, 1] == 0).all(), "a region without truth"
    soft = mask_targets(rois, index, masks, size=3, aligned=True, threshold=None)
    assert 0.2 < soft[1, 0, 1, 1] < 0.8, "the edge runs through the middle column"


def test_loss_counts_only_the_mask_of_the_class_in_labelled_regions() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 2, 4, 4, requires_grad=True)
    target = (torch.rand(1, 3, 4, 4) > 0.5).float()
    loss = mask_bce(logits, target, torch.tensor([[1, -1, -2]]))
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[0, 0, 1], target[0, 0])
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[0, 0, 1].abs().sum() > 0
    assert logits.grad[0, 1:].abs().sum() == 0 and logits.grad[0, 0, 0].abs().sum() == 0


def test_loss_without_labelled_regions_is_zero_and_finite() -> None:
    logits = torch.randn(2, 3, 1, 4, 4, requires_grad=True)
    loss = mask_bce(logits, torch.zeros(2, 3, 4, 4), torch.full((2, 3), -1))
    loss.backward()
    assert loss == 0 and logits.grad is not None and (logits.grad == 0).all()


def test_selection_folding_and_what_detections_carry() -> None:
    x = torch.arange(2 * 3 * 4 * 2 * 2.0).view(2, 3, 4, 2, 2)
    assert torch.equal(unfold_regions(fold_regions(x), x), x)
    labels = torch.tensor([[0, 3, 1], [2, -1, 0]])
    picked = class_masks(x, labels)
    assert torch.equal(picked[0, 1], x[0, 1, 3]) and torch.equal(picked[1, 1], x[1, 1, 0])
    assert torch.equal(class_masks(x[:, :, :1], labels), x[:, :, 0])
    found = {"valid": torch.tensor([[True, False, True], [True, True, True]])}
    carried = with_masks(found, picked, over="box")
    assert set(carried) == {"valid", "box_masks"} and (carried["box_masks"][0, 1] == 0).all()
    assert "masks" in with_masks(found, picked, over="image")
    assert torch.equal(first({"a": x, "b": {"c": labels}}, n=2)["b"]["c"], labels[:, :2])


def test_pasted_and_resampled_masks_lie_where_they_should() -> None:
    soft = torch.zeros(1, 2, 8, 8)
    soft[0, 0, :, 4:] = 1
    boxes = torch.tensor([[[10.0, 5, 30, 25], [0, 0, 0, 0]]])
    pasted = paste_masks(soft, boxes, 40, 50)
    wanted = torch.zeros(40, 50, dtype=torch.bool)
    wanted[5:25, 20:30] = True
    assert (pasted[0, 0] ^ wanted).sum() <= 20 and not pasted[0, 1].any()
    # a canvas of 64 x 64 whose content is an image of 100 x 50 at half size, masks at a quarter of the canvas
    canvas = torch.zeros(1, 1, 16, 16)
    canvas[0, 0, 2:8, 1:4] = 1  # rows 8..32, columns 4..16 of the canvas
    seen = resample_masks(canvas, (64, 64), (0.5, 0.5), (0.0, 0.0), 100, 50)
    wanted = torch.zeros(100, 50, dtype=torch.bool)
    wanted[16:64, 8:32] = True
    assert seen.shape == (1, 1, 100, 50) and (seen[0, 0] ^ wanted).sum() < 40


@pytest.mark.parametrize("modulated", [True, False])
def test_deformable_convolution_is_torchvisions(modulated: bool) -> None:
    torch.manual_seed(0)
    layer = DeformConv2d(6, 8, 3, 2, 1, 1, 2, True, modulated=modulated, offset_groups=3)
    x = torch.randn(2, 6, 11, 13)
    plain = torch.nn.functional.conv2d(x, layer.weight, None, 2, 1, 1, 2)
    scale = 0.5 if modulated else 1.0  # taps begin with the weight sigmoid(0)
    assert layer.bias is not None
    torch.testing.assert_close(layer(x), plain * scale + layer.bias[:, None, None], atol=1e-5, rtol=1e-5)
    torch.nn.init.normal_(layer.offset.weight, std=0.3)
    made = layer.offset(x)
    mask = made[:, 54:].sigmoid() if modulated else None
    expected = torchvision.ops.deform_conv2d(x, made[:, :54], layer.weight, layer.bias, 2, 1, 1, mask)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


def test_standardised_weights_ignore_scale_and_shift() -> None:
    torch.manual_seed(0)
    layer = StandardisedConv2d(4, 5, 3, bias=False)
    x = torch.randn(1, 4, 8, 8)
    before = layer(x)
    with torch.no_grad():
        layer.weight.mul_(3.0).add_(0.7)
    torch.testing.assert_close(layer(x), before, atol=2e-3, rtol=1e-3)
    w = layer.weight.flatten(1)
    w = (w - w.mean(1, keepdim=True)) / w.std(1, keepdim=True)
    expected = torch.nn.functional.conv2d(x, w.view_as(layer.weight))
    torch.testing.assert_close(layer(x), expected, atol=1e-3, rtol=1e-3)
