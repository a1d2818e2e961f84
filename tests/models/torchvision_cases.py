"""Each of torchvision's detectors beside our fragment of it: the same (random) weights, the same photos.

`tests/models` runs them at 320 x 533, `tests/benchmarks/parity.py` at torchvision's own 800 x 1333.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import detection

from detc.compiler.check import check
from detc.compiler.program import Program, build
from detc.runtime.weights.keys import map_keys
from tests.models.torchvision_peers import Agreement, agreement, as_pixels, prepared, settle

Found = dict[str, Tensor]
Peer = Any


@dataclass(frozen=True)
class Case:
    """torchvision's constructor, what makes its random weights say something, and how to run it on a batch.

    shift: what to add to our labels to get torchvision's, which count the background.
    """

    peer: str
    ours: str
    start: Callable[[Peer], None]
    run: Callable[[Peer, Any], list[Found]]
    classes: int
    shift: int

    @property
    def source(self) -> str:
        """The name under which the key tables know the peer's weights."""
        return f"torchvision/{self.peer}"

    def compare(self, size: tuple[int, int], *, apart: bool = False) -> Agreement:
        """Both on five photos of the shared data, as one batch or image by image (`apart`)."""
        torch.manual_seed(0)
        make = getattr(detection, self.peer)
        peer = make(weights=None, weights_backbone=None, num_classes=91, min_size=size[0], max_size=size[1])
        batches = prepared(peer, apart=apart)
        settle(peer.backbone, *(b.tensors for b in batches))
        self.start(peer)
        mine = self.program(peer)
        total = Agreement()
        for images in batches:
            with torch.no_grad():
                theirs = self.run(peer, images)
                found = mine.infer_graph(as_pixels(images, peer))["detections"]
            total.add(agreement(found, theirs, self.shift))
        return total

    def program(self, peer: Peer) -> Program:
        """Ours, with every tensor of the peer on every one of its own."""
        names = ", ".join(f'"c{i}"' for i in range(self.classes))
        text = f"det 1\nimport std.models {{ {self.ours} }}\nrun {{ model = {self.ours}(classes = [{names}]) }}\n"
        result = check(text)
        assert not result.report.errors, result.report
        mine = build(result.run())
        mapped = map_keys(peer.state_dict(), mine.model.state_dict(), self.source)
        assert mapped.table is not None and mapped.table.startswith("torchvision_") and not mapped.dropped
        mine.model.load_state_dict(mapped.state, strict=True)
        mine.model.eval()
        return mine


def _two_stage_start(peer: Peer) -> None:
    nn.init.normal_(peer.rpn.head.cls_logits.weight, std=0.01)
    nn.init.normal_(peer.rpn.head.bbox_pred.weight, std=0.01)
    nn.init.normal_(peer.roi_heads.box_predictor.cls_score.weight, std=0.06)
    nn.init.normal_(peer.roi_heads.box_predictor.bbox_pred.weight, std=0.05)


def _mask_start(peer: Peer) -> None:
    _two_stage_start(peer)
    # torchvision's own start makes logits of 20 and more, where an input changed by 1e-6 changes masks by 5e-4
    nn.init.normal_(peer.roi_heads.mask_predictor.mask_fcn_logits.weight, std=0.01)


def _two_stage(peer: Peer, images: Any) -> list[Found]:
    features = peer.backbone(images.tensors)
    proposals, _ = peer.rpn(images, features)
    found: list[Found] = peer.roi_heads(features, proposals, images.image_sizes)[0]
    return found


def _retinanet_start(peer: Peer) -> None:
    head = peer.head
    for layer in [*head.classification_head.conv, *head.regression_head.conv]:
        nn.init.kaiming_normal_(layer[0].weight, nonlinearity="relu")
    nn.init.normal_(head.classification_head.cls_logits.weight, std=0.01)
    nn.init.constant_(head.classification_head.cls_logits.bias, -3.0)
    nn.init.normal_(head.regression_head.bbox_reg.weight, std=0.002)


def _fcos_start(peer: Peer) -> None:
    head = peer.head
    for layer in [*head.classification_head.conv, *head.regression_head.conv]:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.normal_(head.classification_head.cls_logits.weight, std=0.05)
    nn.init.constant_(head.classification_head.cls_logits.bias, -3.0)
    nn.init.normal_(head.regression_head.bbox_reg.weight, std=0.03)
    nn.init.constant_(head.regression_head.bbox_reg.bias, 2.0)
    nn.init.normal_(head.regression_head.bbox_ctrness.weight, std=0.05)


def _dense(peer: Peer, images: Any) -> list[Found]:
    features = list(peer.backbone(images.tensors).values())
    outputs = peer.head(features)
    anchors = peer.anchor_generator(images, features)
    each = peer.anchor_generator.num_anchors_per_location()[0]
    cells = [f.shape[-1] * f.shape[-2] * each for f in features]
    levels = {k: list(v.split(cells, 1)) for k, v in outputs.items()}
    own = [list(a.split(cells)) for a in anchors]
    found: list[Found] = peer.postprocess_detections(levels, own, images.image_sizes)
    return found


CASES = {
    "Faster R-CNN": Case(
        "fasterrcnn_resnet50_fpn", "TorchvisionFasterRCNN", _two_stage_start, _two_stage, 90, 1
    ),
    "RetinaNet": Case("retinanet_resnet50_fpn", "TorchvisionRetinaNet", _retinanet_start, _dense, 91, 0),
    "FCOS": Case("fcos_resnet50_fpn", "TorchvisionFCOS", _fcos_start, _dense, 91, 0),
    "Mask R-CNN": Case("maskrcnn_resnet50_fpn", "TorchvisionMaskRCNN", _mask_start, _two_stage, 90, 1),
}
