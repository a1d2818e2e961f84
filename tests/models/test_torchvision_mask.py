"""Mask R-CNN's mask loss is torchvision's; its detections and masks are compared in `test_torchvision_parity`."""

from __future__ import annotations

import torch
from torchvision.models.detection.roi_heads import maskrcnn_loss

from detc.compiler.functional.masks import mask_bce, mask_targets


def test_loss_and_its_gradient() -> None:
    """Soft targets without half-pixel centres, the mean over all pixels of all matched regions."""
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 6, 28, 28, requires_grad=True)  # the sixth class is torchvision's background
    corners = torch.rand(2, 3, 2, 2) * 60
    boxes = torch.cat((corners.amin(2), corners.amax(2) + 5), -1)
    masks = torch.rand(2, 4, 70, 80) > 0.5
    index = torch.tensor([[0, 3, -1], [2, 2, 0]])
    classes = torch.tensor([[1, 0, 3, 2], [4, 1, 2, 0]])
    labels = torch.where(index >= 0, classes.gather(1, index.clamp(min=0)), -1)
    target = mask_targets(boxes, index, masks, size=28, aligned=False, threshold=None)
    loss = mask_bce(logits, target, labels)
    (mine,) = torch.autograd.grad(loss, logits)
    kept = index >= 0
    shifted = logits.roll(1, 2)  # their background comes first
    expected = maskrcnn_loss(
        shifted[kept],
        [boxes[i][kept[i]] for i in range(2)],
        [masks[i].float() for i in range(2)],
        [classes[i] + 1 for i in range(2)],
        [index[i][kept[i]] for i in range(2)],
    )
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(mine, torch.autograd.grad(expected, logits)[0], atol=1e-8, rtol=1e-5)
