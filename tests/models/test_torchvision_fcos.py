"""The torchvision flavour of FCOS gives torchvision's own detections with torchvision's (random) weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import detection

from detc.compiler.check import check
from detc.compiler.program import build
from detc.runtime.weights.keys import map_keys
from tests.models.torchvision_peers import as_pixels, assert_same_detections, prepared, settle

CLASSES = 91


@pytest.mark.slow
def test_fcos() -> None:
    torch.manual_seed(0)
    peer = detection.fcos_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=CLASSES, min_size=320, max_size=533
    )
    images = prepared(peer)
    settle(peer.backbone, images.tensors)
    head = peer.head
    for layer in [*head.classification_head.conv, *head.regression_head.conv]:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.normal_(head.classification_head.cls_logits.weight, std=0.05)
    nn.init.constant_(head.classification_head.cls_logits.bias, -3.0)
    nn.init.normal_(head.regression_head.bbox_reg.weight, std=0.03)
    nn.init.constant_(head.regression_head.bbox_reg.bias, 2.0)
    nn.init.normal_(head.regression_head.bbox_ctrness.weight, std=0.05)
    with torch.no_grad():
        features = list(peer.backbone(images.tensors).values())
        outputs = head(features)
        anchors = peer.anchor_generator(images, features)
        cells = [f.shape[-1] * f.shape[-2] for f in features]
        split = {k: list(v.split(cells, 1)) for k, v in outputs.items()}
        theirs = peer.postprocess_detections(
            split, [list(a.split(cells)) for a in anchors], images.image_sizes
        )

    names = ", ".join(f'"c{i}"' for i in range(CLASSES))
    run = f"run {{ model = TorchvisionFCOS(classes = [{names}]) }}"
    result = check(f"det 1\nimport std.models {{ TorchvisionFCOS }}\n{run}\n")
    assert not result.report.errors, result.report
    mine = build(result.run())
    mapped = map_keys(peer.state_dict(), mine.model.state_dict(), "torchvision/fcos_resnet50_fpn_coco")
    assert mapped.table == "torchvision_fcos"
    mine.model.load_state_dict(mapped.state, strict=True)
    mine.model.eval()
    with torch.no_grad():
        found = mine.infer_graph(as_pixels(images, peer))["detections"]
    assert assert_same_detections(found, theirs, shift=0) > 100
