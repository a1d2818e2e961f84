"""The torchvision flavours give torchvision's own detections with torchvision's (random) weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import detection

from detc.compiler.check import check
from detc.compiler.program import Program, build
from detc.runtime.weights.keys import map_keys
from tests.models.torchvision_peers import as_pixels, assert_same_detections, prepared, settle


def program(model: str, classes: int) -> Program:
    names = ", ".join(f'"c{i}"' for i in range(classes))
    run = f"run {{ model = {model}(classes = [{names}]) }}"
    result = check(f"det 1\nimport std.models {{ {model} }}\n{run}\n")
    assert not result.report.errors, result.report
    return build(result.run())


def load(module: nn.Module, peer: nn.Module, source: str) -> None:
    """Every tensor of the peer, through the key table, onto every tensor of `module`."""
    mapped = map_keys(peer.state_dict(), module.state_dict(), source)
    assert mapped.table == source.partition("_resnet")[0].replace("/", "_")
    module.load_state_dict(mapped.state, strict=True)


@pytest.mark.slow
def test_faster_rcnn() -> None:
    torch.manual_seed(0)
    peer = detection.fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=91, min_size=320, max_size=533
    )
    images = prepared(peer)
    settle(peer.backbone, images.tensors)
    nn.init.normal_(peer.rpn.head.cls_logits.weight, std=0.01)
    nn.init.normal_(peer.rpn.head.bbox_pred.weight, std=0.01)
    nn.init.normal_(peer.roi_heads.box_predictor.cls_score.weight, std=0.06)
    nn.init.normal_(peer.roi_heads.box_predictor.bbox_pred.weight, std=0.05)
    with torch.no_grad():
        features = peer.backbone(images.tensors)
        proposals, _ = peer.rpn(images, features)
        theirs, _ = peer.roi_heads(features, proposals, images.image_sizes)
    mine = program("TorchvisionFasterRCNN", classes=90)
    load(mine.model, peer, "torchvision/fasterrcnn_resnet50_fpn")
    mine.model.eval()
    with torch.no_grad():
        found = mine.infer_graph(as_pixels(images, peer))["detections"]
    assert assert_same_detections(found, theirs, shift=1) > 100


@pytest.mark.slow
def test_retinanet() -> None:
    torch.manual_seed(0)
    peer = detection.retinanet_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=91, min_size=320, max_size=533
    )
    images = prepared(peer)
    settle(peer.backbone, images.tensors)
    head = peer.head
    for layer in [*head.classification_head.conv, *head.regression_head.conv]:
        nn.init.kaiming_normal_(layer[0].weight, nonlinearity="relu")
    nn.init.normal_(head.classification_head.cls_logits.weight, std=0.01)
    nn.init.constant_(head.classification_head.cls_logits.bias, -3.0)
    nn.init.normal_(head.regression_head.bbox_reg.weight, std=0.002)
    with torch.no_grad():
        features = list(peer.backbone(images.tensors).values())
        outputs = head(features)
        anchors = peer.anchor_generator(images, features)
        cells = [f.shape[-1] * f.shape[-2] * 9 for f in features]
        levels = {k: list(v.split(cells, 1)) for k, v in outputs.items()}
        own = [list(a.split(cells)) for a in anchors]
        theirs = peer.postprocess_detections(levels, own, images.image_sizes)
    mine = program("TorchvisionRetinaNet", classes=91)
    load(mine.model, peer, "torchvision/retinanet_resnet50_fpn")
    mine.model.eval()
    with torch.no_grad():
        found = mine.infer_graph(as_pixels(images, peer))["detections"]
    assert assert_same_detections(found, theirs, shift=0) > 100
