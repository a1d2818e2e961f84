"""The two-stage ops in one graph: shapes as inferred, and export with dynamic sizes."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import nn

from detc.compiler.dims import dim
from detc.compiler.ops.anchors import Anchors
from detc.compiler.ops.boxes import DeltaDecode, DeltaEncode
from detc.compiler.ops.losses_basic import CrossEntropy, SmoothL1
from detc.compiler.ops.match import MatchedTruth, MaxIoU
from detc.compiler.ops.post import ClassNMS
from detc.compiler.ops.roi import Proposals, RoIAlign
from detc.compiler.ops.sample import RandomSample, Take, WithTruth
from detc.compiler.types import Image, Map, Pyramid, Struct, Tensor, instances, tensor
from tests.ops.running import lowered

LEVELS, WIDTH, SLOTS, KEEP, CLASSES = (8, 16), 4, 16, 40, 3


def maps(channels: int) -> Pyramid:
    h, w = dim("H") * 16, dim("W") * 16
    return Pyramid(tuple(Map(channels, Fraction(s), h // s, w // s) for s in LEVELS))


class TwoStage(nn.Module):
    """A toy Faster R-CNN wired by hand; `types` keeps what each op inferred."""

    def __init__(self, training: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, WIDTH, 8, 8)
        self.cls = nn.Conv2d(WIDTH, 3, 1)
        self.reg = nn.Conv2d(WIDTH, 12, 1)
        self.head = nn.Linear(WIDTH * 9, 4 * (CLASSES + 1) + 4)
        self.training_graph = training
        self.image = Image(dim("H") * 16, dim("W") * 16)

    def op(self, op: Any, *pairs: tuple[Any, Any]) -> tuple[Any, Any]:
        values, types = [v for v, _ in pairs], [t for _, t in pairs]
        return lowered(op, *types)(*values), op.infer(*types)

    def forward(self, image: dict, truth: dict) -> Any:
        x = self.conv(image["pixels"])
        feats = [x, nn.functional.max_pool2d(x, 2)]
        pyramid, im = (feats, maps(WIDTH)), (image, self.image)
        logits = ([self.cls(f) for f in feats], maps(3))
        deltas = ([self.reg(f) for f in feats], maps(12))
        anchors = self.op(Anchors(scales=[2.0]), pyramid, im)
        boxes = self.op(Proposals(before=50, keep=KEEP), anchors, logits, deltas, im)
        if not self.training_graph:
            return self.second(pyramid, boxes, im)
        real = (truth, instances())
        pool = self.op(WithTruth(), boxes, real)
        match = self.op(MaxIoU(positive=0.5), pool, real)
        pick = self.op(RandomSample(n=SLOTS, positive=0.25), match)
        rois = self.op(Take(), pool, pick)
        target = self.op(DeltaEncode(), rois, self.op(MatchedTruth(), match, real, pick))
        scores, codes = self.pooled(pyramid, rois)
        cls = self.op(CrossEntropy(), scores, part(target, "labels"))
        box = self.op(SmoothL1(), codes, part(target, "deltas"))
        again = self.op(DeltaDecode(clip=True), rois, codes, im)
        return {"cls": cls[0], "box": box[0], "valid": again[0]["valid"]}

    def pooled(self, pyramid: Any, rois: Any) -> tuple[Any, Any]:
        x, t = self.op(RoIAlign(size=3, sampling=2), pyramid, rois)
        k = t.shape[1]
        y = self.head(x.flatten(2))
        scores = (y[..., : CLASSES + 1], tensor("B", k, CLASSES + 1))
        return scores, (y[..., -4:], tensor("B", k, 4))

    def second(self, pyramid: Any, rois: Any, im: Any) -> Any:
        (logits, t), codes = self.pooled(pyramid, rois)
        boxes = self.op(DeltaDecode(clip=True, std=[0.1, 0.1, 0.2, 0.2]), rois, codes, im)
        return self.op(ClassNMS(keep=20, score=0.01), boxes, (logits.softmax(-1), t))[0]


def part(pair: tuple[Any, Any], name: str) -> tuple[Any, Any]:
    return pair[0][name], pair[1].get(name)


def inputs(height: int = 64, width: int = 96, batch: int = 2) -> tuple[dict, dict]:
    torch.manual_seed(0)
    image = {"pixels": torch.randn(batch, 3, height, width), "size": torch.tensor([[60.0, 90.0]] * batch)}
    boxes = torch.tensor([[10.0, 10, 40, 40], [20, 5, 60, 50], [0, 0, 0, 0]]).expand(batch, -1, -1)
    valid = torch.tensor([[True, True, False]] * (batch - 1) + [[False] * 3])
    return image, {"boxes": boxes, "labels": torch.tensor([[0, 2, 0]] * batch), "valid": valid}


def dynamic() -> tuple[dict, dict]:
    b, h, w = (torch.export.Dim(n, min=2, max=40) for n in ("b", "h", "w"))
    image = {"pixels": {0: b, 2: 16 * h, 3: 16 * w}, "size": {0: b}}
    return image, {"boxes": {0: b}, "labels": {0: b}, "valid": {0: b}}


@pytest.mark.parametrize("training", [True, False])
def test_exports_with_dynamic_sizes(training: bool) -> None:
    model = TwoStage(training)
    exported = torch.export.export(model, inputs(), dynamic_shapes=dynamic())
    other = inputs(32, 48, 3)
    torch.manual_seed(1)
    eager = model(*other)
    torch.manual_seed(1)
    again = exported.module()(*other)
    for name, value in eager.items():
        assert torch.allclose(again[name].float(), value.float(), atol=1e-4), name


def test_gradients_reach_the_head() -> None:
    model = TwoStage(True)
    out = model(*inputs())
    loss = out["cls"] + out["box"]
    loss.backward()
    grads = [p.grad for p in model.head.parameters()]
    assert all(g is not None and g.isfinite().all() and g.abs().sum() > 0 for g in grads)


def test_inferred_shapes_are_the_real_ones() -> None:
    model = TwoStage(True)
    image, truth = inputs()
    seen = []
    plain = model.op

    def spy(op: Any, *pairs: Any) -> Any:
        value, t = plain(op, *pairs)
        check(value, t)
        seen.append(type(op).__name__)
        return value, t

    model.op = spy  # type: ignore[method-assign]
    model(image, truth)
    model.training_graph = False
    model(image, truth)
    assert {"Anchors", "Proposals", "RandomSample", "RoIAlign", "ClassNMS", "DeltaEncode"} <= set(seen)


def check(value: Any, t: Any) -> None:
    if isinstance(t, Struct):
        assert set(value) == set(t.names())
        for name in t.names():
            check(value[name], t.get(name))
        return
    assert isinstance(t, Tensor)
    sizes = {"B": 2, "H": 4, "W": 6, "G": 3}
    assert list(value.shape) == [d.evaluate(sizes) for d in t.shape], t
    assert str(value.dtype) == f"torch.{t.dtype}", t
