"""Faster R-CNN, Cascade R-CNN and RetinaNet: published sizes, losses, detections, graphs without breaks."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from detc.compiler.check import check
from detc.compiler.program import Program, build

MODELS = ("FasterRCNN", "CascadeRCNN", "RetinaNet")
SPECS = Path(__file__).parents[2] / "specs"
PUBLISHED = {"faster_rcnn": 41_753_056, "cascade": 69_394_766, "retinanet": 37_968_692}


@pytest.mark.parametrize("spec", PUBLISHED)
def test_parameters_of_the_specs_are_the_published_ones(spec: str) -> None:
    result = check(SPECS / f"{spec}.det")
    assert not result.report.errors, result.report.errors
    run = result.run()
    assert len(run.classes) == 80
    with torch.device("meta"):
        model = build(run).model
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED[spec]


SMALL = """det 1
import std.backbones {{ ResNet }}
import std.models {{ {base} }}
import std.necks {{ FPN }}
model Small(classes: labels) extends {base}(
  classes,
  backbone = ResNet(18, stages = {stages}),
  neck = FPN(32, levels = 5{neck}),
) {{ {edits} }}
run {{ model = Small(classes = ["a", "b", "c"]) }}
"""
SLOTS = {
    "FasterRCNN": {"stages": "2 .. 6", "neck": "", "edits": "set head.fc = 64"},
    "CascadeRCNN": {"stages": "2 .. 6", "neck": "", "edits": "set head[*].fc = 64"},
    "RetinaNet": {
        "stages": "3 .. 6",
        "neck": ', extra = "conv", source = "input"',
        "edits": "set head.width = 32 set head.depth = 2",
    },
}


@cache
def small(model: str) -> Program:
    """The model over ResNet-18, narrow, with three classes."""
    result = check(SMALL.format(base=model, **SLOTS[model]))
    assert not result.report.errors, result.report.errors
    return build(result.run(), seed=0)


def batch(height: int = 64, width: int = 96, images: int = 2) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    g = torch.Generator().manual_seed(0)
    pixels = torch.rand(images, 3, height, width, generator=g) * 255
    size = torch.tensor([[height, width]] * images, dtype=torch.float32)
    boxes = torch.tensor([[10.0, 10, 60, 60], [20, 20, 90, 60], [0, 0, 0, 0]])
    valid = torch.tensor([[True, True, False]] * (images - 1) + [[False] * 3])
    labels = torch.tensor([[1, 2, 0]] * images)
    truth = {"boxes": boxes.expand(images, -1, -1).clone(), "labels": labels, "valid": valid}
    return {"pixels": pixels, "size": size}, truth


@pytest.mark.parametrize("model", MODELS)
def test_trains_with_an_image_without_objects(model: str) -> None:
    program = small(model)
    program.model.train()
    program.model.zero_grad()
    torch.manual_seed(0)
    losses = program.train_graph(*batch())
    assert all(loss.dim() == 0 and loss.isfinite() and loss > 0 for loss in losses.values()), losses
    sum(losses.values()).backward()
    for name, p in program.model.named_parameters():
        if p.requires_grad:
            assert p.grad is not None and p.grad.isfinite().all(), name


@pytest.mark.parametrize("model", MODELS)
def test_a_batch_without_objects_has_finite_losses(model: str) -> None:
    program = small(model)
    program.model.train()
    image, truth = batch()
    truth["valid"] = torch.zeros_like(truth["valid"])
    losses = program.train_graph(image, truth)
    assert all(loss.isfinite() for loss in losses.values()), losses
    assert all(losses[k] == 0 for k in losses if "box" in k)


def test_losses_have_the_names_and_weights_of_the_stages() -> None:
    names = [x.name for x in small("CascadeRCNN").spec.train.losses]
    assert names == ["rpn.cls", "rpn.box", *(f"{k}[{s}]" for s in range(3) for k in ("cls", "box"))]
    weights = [x.weight for x in small("CascadeRCNN").spec.train.losses]
    assert weights == [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize("model", MODELS)
def test_a_few_steps_lower_the_loss(model: str) -> None:
    program = build(small(model).run, seed=1)
    program.model.train()
    optim = torch.optim.SGD([p for p in program.model.parameters() if p.requires_grad], lr=0.04, momentum=0.9)
    data = batch()
    torch.manual_seed(0)
    seen = []
    for _ in range(5):
        optim.zero_grad()
        loss = sum(program.train_graph(*data).values())
        loss.backward()
        optim.step()
        seen.append(float(loss.detach()))
    assert seen[-1] < 0.97 * seen[0], seen


@pytest.mark.parametrize("model", MODELS)
def test_detections_are_padded_sorted_and_inside(model: str) -> None:
    program = small(model)
    program.model.eval()
    image, _ = batch()
    image["size"][1] = torch.tensor([50.0, 80.0])
    with torch.no_grad():
        found = program.infer_graph(image)["detections"]
    assert found["boxes"].shape == (2, 100, 4)
    assert found["labels"].dtype == torch.int64
    for i in range(2):
        valid = found["valid"][i]
        assert valid.sum() == valid.int().cumprod(0).sum(), "valid detections come first"
        scores, boxes = found["scores"][i][valid], found["boxes"][i][valid]
        assert (scores[:-1] >= scores[1:]).all()
        assert (found["labels"][i][valid] < 3).all()
        height, width = image["size"][i].tolist()
        assert (boxes >= 0).all() and (boxes[:, 2] <= width).all() and (boxes[:, 3] <= height).all()


def dynamic() -> tuple[dict[str, Any], dict[str, Any]]:
    b, h, w = (torch.export.Dim(n, min=2, max=64) for n in ("b", "h", "w"))
    image = {"pixels": {0: b, 2: 32 * h, 3: 32 * w}, "size": {0: b}}
    return image, {"boxes": {0: b}, "labels": {0: b}, "valid": {0: b}}


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_both_graphs_export_with_dynamic_sizes(model: str) -> None:
    program = small(model)
    image, truth = batch(160, 192)  # no level of one pixel: exporting would take that size for a constant
    other_image, other_truth = batch(224, 160, 3)
    program.model.train()
    exported = torch.export.export(program.train_graph, (image, truth), dynamic_shapes=dynamic())
    torch.manual_seed(0)
    expected = program.train_graph(other_image, other_truth)
    torch.manual_seed(0)
    again = exported.module()(other_image, other_truth)
    torch.testing.assert_close(again, expected)
    program.model.eval()
    with torch.no_grad():
        exported = torch.export.export(program.infer_graph, (image,), dynamic_shapes=dynamic()[:1])
        expected = program.infer_graph(other_image)["detections"]
        torch.testing.assert_close(exported.module()(other_image)["detections"], expected)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_both_graphs_compile_without_breaks(model: str) -> None:
    program = small(model)
    image, truth = batch()
    program.model.train()
    torch.manual_seed(0)
    expected = program.train_graph(image, truth)
    torch.manual_seed(0)
    compiled = torch.compile(program.train_graph, fullgraph=True, backend="eager")(image, truth)
    torch.testing.assert_close(compiled, expected)
    program.model.eval()
    with torch.no_grad():
        expected = program.infer_graph(image)
        found = torch.compile(program.infer_graph, fullgraph=True, backend="eager")(image)
    torch.testing.assert_close(found, expected)
