"""Mask R-CNN gives torchvision's boxes, scores and soft masks, and its loss, with torchvision's (random) weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import detection
from torchvision.models.detection.roi_heads import maskrcnn_loss

from detc.compiler.check import check
from detc.compiler.functional.masks import mask_bce, mask_targets
from detc.compiler.program import build
from detc.runtime.weights.keys import map_keys
from tests.models.torchvision_peers import as_pixels, assert_same_detections, prepared, settle

SPEC = """det 1
import std.models {{ TorchvisionMaskRCNN }}
run {{ model = TorchvisionMaskRCNN(classes = [{names}]) }}
"""


@pytest.mark.slow
def test_mask_rcnn() -> None:
    torch.manual_seed(0)
    peer = detection.maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=91, min_size=320, max_size=533
    )
    images = prepared(peer)
    settle(peer.backbone, images.tensors)
    heads = peer.roi_heads
    nn.init.normal_(peer.rpn.head.cls_logits.weight, std=0.01)
    nn.init.normal_(peer.rpn.head.bbox_pred.weight, std=0.01)
    nn.init.normal_(heads.box_predictor.cls_score.weight, std=0.06)
    nn.init.normal_(heads.box_predictor.bbox_pred.weight, std=0.05)
    # torchvision's own start makes logits of 20 and more, where an input changed by 1e-6 changes masks by 5e-4
    nn.init.normal_(heads.mask_predictor.mask_fcn_logits.weight, std=0.01)
    with torch.no_grad():
        features = peer.backbone(images.tensors)
        proposals, _ = peer.rpn(images, features)
        theirs, _ = heads(features, proposals, images.image_sizes)
    names = ", ".join(f'"c{i}"' for i in range(90))
    result = check(SPEC.format(names=names))
    assert not result.report.errors, result.report.errors
    mine = build(result.run())
    mapped = map_keys(peer.state_dict(), mine.model.state_dict(), "torchvision/maskrcnn_resnet50_fpn")
    assert not mapped.dropped
    mine.model.load_state_dict(mapped.state, strict=True)
    mine.model.eval()
    with torch.no_grad():
        found = mine.infer_graph(as_pixels(images, peer))["detections"]
    assert assert_same_detections(found, theirs, shift=1) > 100
    spread = 0.0
    for i, other in enumerate(theirs):
        masks, boxes = found["box_masks"][i], found["boxes"][i]
        for box, label, mask in zip(other["boxes"], other["labels"], other["masks"][:, 0], strict=True):
            apart = (boxes - box).abs().amax(-1).masked_fill(found["labels"][i] + 1 != label, torch.inf)
            torch.testing.assert_close(masks[apart.argmin()], mask, atol=1e-4, rtol=0)
            spread = max(spread, float(mask.max() - mask.min()))
    assert spread > 0.3, "masks that say nothing prove nothing"


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
