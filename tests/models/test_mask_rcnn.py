"""Mask R-CNN and Cascade Mask R-CNN: published sizes, variants by patches, losses, masks, graphs, export."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from detc.compiler.check import check
from detc.compiler.program import Program, build

MODELS = ("MaskRCNN", "CascadeMaskRCNN")
SPECS = Path(__file__).parents[2] / "specs"
OFFSETS = 871_263  # of DCNv2: 27 channels over the 13 convolutions of the stages 3 to 5
PUBLISHED = {
    ("mask_rcnn", ""): 44_396_336,
    ("mask_rcnn", "r101"): 63_388_464,
    ("mask_rcnn", "dcn"): 44_396_336 + OFFSETS,
    ("mask_rcnn", "gn_ws"): 44_396_336,
    ("cascade_mask", ""): 77_324_606,
    ("cascade_mask", "dcn"): 77_324_606 + OFFSETS,
    ("cascade_mask", "gn_ws"): 77_324_606,
}


@pytest.mark.parametrize("spec", ("mask_rcnn", "cascade_mask"))
def test_parameters_of_the_specs_are_the_published_ones(spec: str) -> None:
    result = check(SPECS / f"{spec}.det")
    assert not result.report.errors, result.report.errors
    for (file, name), count in PUBLISHED.items():
        if file == spec:
            with torch.device("meta"):
                model = build(result.runs[name]).model
            assert len(result.runs[name].classes) == 80
            assert sum(p.numel() for p in model.parameters()) == count, name


def test_patches_change_the_layers_that_they_name() -> None:
    result = check(SPECS / "mask_rcnn.det")
    kinds = {path: w.op.name for path, w in result.runs["dcn"].model.weights.items()}
    deformed = [p for p, kind in kinds.items() if kind == "DeformConv2d"]
    assert len(deformed) == 13 and all(p.endswith(".conv2") for p in deformed)
    assert not any(p.startswith("backbone.stage[2]") for p in deformed)
    body = {p: w.op.name for p, w in result.runs["gn_ws"].model.weights.items() if p.startswith("backbone")}
    assert set(body.values()) == {"ConvWS", "GroupNorm"}
    first = result.runs["dcn"].model.weights["backbone.stage[3].block[0].conv2"].op
    assert (first.out, first.stride, first.bias) == (128, 2, False)


SMALL = """det 1
import std.backbones {{ ResNet }}
import std.models {{ {base} }}
import std.necks {{ FPN }}
model Small(classes: labels) extends {base}(
  classes, backbone = ResNet(18), neck = FPN(16, levels = 5), score = 0.2
) {{
  set rpn.train_keep = 100
  set rpn.keep = 50
  set rpn.n = 64
  set keep = 20
  {edits}
}}
run {{ model = Small(classes = ["a", "b", "c"]) target = small() }}
target small {{ image = 96x64 }}
"""
EDITS = {
    "MaskRCNN": "set head.fc = 32 set mask.width = 8 set mask.depth = 2",
    "CascadeMaskRCNN": "set head[*].fc = 32 set mask[*].width = 8 set mask[*].depth = 2",
}


@cache
def small(model: str) -> Program:
    result = check(SMALL.format(base=model, edits=EDITS[model]))
    assert not result.report.errors, result.report.errors
    return build(result.run(), seed=0)


def batch(
    objects: int = 2, capacity: int = 3, images: int = 2
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Images with so many objects (the last one has none), room for `capacity` of them."""
    g = torch.Generator().manual_seed(0)
    height, width = 64, 96
    pixels = torch.rand(images, 3, height, width, generator=g) * 255
    corner = torch.rand(capacity, 2, generator=g) * torch.tensor([width - 40.0, height - 40.0])
    boxes = torch.cat((corner, corner + 10 + 30 * torch.rand(capacity, 2, generator=g)), 1)
    valid = (torch.arange(capacity) < objects).expand(images, -1).clone()
    valid[1:] = valid[1:] & (images == 1)
    boxes = torch.where(valid[..., None], boxes, 0.0)
    ys, xs = torch.arange(height)[:, None] + 0.5, torch.arange(width) + 0.5
    x1, y1, x2, y2 = (b[..., None, None] for b in boxes.unbind(-1))
    radius = ((xs - (x1 + x2) / 2) / (x2 - x1)) ** 2 + ((ys - (y1 + y2) / 2) / (y2 - y1)) ** 2
    masks = (radius < 0.25) & valid[..., None, None]
    labels = torch.arange(capacity).remainder(3).expand(images, -1)
    truth = {"boxes": boxes, "labels": labels * valid, "valid": valid, "masks": masks}
    return {"pixels": pixels, "size": torch.tensor([[64.0, 96.0]] * images)}, truth


@pytest.mark.parametrize("model", MODELS)
def test_trains_with_an_image_without_objects(model: str) -> None:
    program = small(model)
    program.model.train()
    program.model.zero_grad()
    torch.manual_seed(0)
    losses = program.train_graph(*batch())
    stages = [""] if model == "MaskRCNN" else ["[0]", "[1]", "[2]"]
    assert [k for k in losses if "mask" in k] == [f"mask{s}.bce" for s in stages]
    assert all(loss.dim() == 0 and loss.isfinite() and loss > 0 for loss in losses.values()), losses
    sum(losses.values()).backward()
    for name, p in program.model.named_parameters():
        if p.requires_grad:
            assert p.grad is not None and p.grad.isfinite().all(), name
            if name.startswith("mask.head"):
                assert p.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("objects", "capacity"), [(0, 16), (1, 16), (512, 512)])
def test_no_object_one_object_and_a_full_bucket(objects: int, capacity: int) -> None:
    program = small("CascadeMaskRCNN")
    program.model.train()
    torch.manual_seed(0)
    losses = program.train_graph(*batch(objects, capacity))
    assert all(loss.isfinite() for loss in losses.values()), losses
    assert all((losses[f"mask[{s}].bce"] == 0) == (objects == 0) for s in range(3))


def test_weights_of_the_stages_are_those_of_their_mask_losses() -> None:
    weights = {x.name: x.weight for x in small("CascadeMaskRCNN").spec.train.losses}
    assert [weights[f"mask[{s}].bce"] for s in range(3)] == [1.0, 0.5, 0.25]
    assert small("MaskRCNN").needs.fields == {"boxes", "labels", "masks"}


@pytest.mark.parametrize("model", MODELS)
def test_detections_carry_the_mask_of_their_class(model: str) -> None:
    program = small(model)
    program.model.eval()
    with torch.no_grad():
        found = program.infer_graph(batch()[0])["detections"]
        camera = torch.randint(0, 256, (1, 3, 120, 170), dtype=torch.uint8)
        seen = program.deploy()(camera)
    assert found["box_masks"].shape == (2, 20, 28, 28) and found["valid"].any()
    soft = found["box_masks"][found["valid"]]
    assert (soft > 0).all() and (soft < 1).all()
    assert seen["masks"].shape == (1, 20, 120, 170) and seen["masks"].dtype == torch.bool
    xs, ys = torch.arange(170) + 0.5, torch.arange(120)[:, None] + 0.5
    for box, mask in zip(seen["boxes"][0], seen["masks"][0], strict=True):
        outside = (xs < box[0]) | (xs > box[2]) | (ys < box[1]) | (ys > box[3])
        assert not (mask & outside).any()


def test_predictions_have_masks_in_json_and_pictures() -> None:
    from detc.runtime.detector import Detector

    program = small("MaskRCNN")
    detector = Detector(program.deploy(), program.classes, program.run)
    image = np.random.default_rng(0).integers(0, 256, (90, 130, 3), np.uint8)
    found = detector.predict(image, score=0.0)[0]
    assert len(found) and found.masks is not None and found.masks.shape == (len(found), 90, 130)
    entry = found.to_dict()["objects"][0]
    assert entry["mask"]["size"] == [90, 130] and isinstance(entry["mask"]["counts"], str)
    assert "segmentation" in found.to_coco(1)[0]
    drawn = np.asarray(found.draw(score=0.0, labels=False))
    inside = found.masks.any(0)
    assert inside.any() and (drawn[inside] != image[inside]).mean() > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_both_graphs_export_and_compile_without_breaks(model: str) -> None:
    program = small(model)
    image, truth = batch()
    b = torch.export.Dim("b", min=2, max=64)
    shapes: tuple[dict[str, Any], ...] = ({k: {0: b} for k in image}, {k: {0: b} for k in truth})
    program.model.train()
    torch.manual_seed(0)
    expected = program.train_graph(image, truth)
    torch.manual_seed(0)
    exported = torch.export.export(program.train_graph, (image, truth), dynamic_shapes=shapes)
    torch.manual_seed(0)
    torch.testing.assert_close(exported.module()(image, truth), expected)
    torch.manual_seed(0)
    compiled = torch.compile(program.train_graph, fullgraph=True, backend="aot_eager")(image, truth)
    torch.testing.assert_close(compiled, expected)
    program.model.eval()
    with torch.no_grad():
        wanted = program.infer_graph(image)
        exported = torch.export.export(program.infer_graph, (image,), dynamic_shapes=shapes[:1])
        torch.testing.assert_close(exported.module()(image), wanted)
        found = torch.compile(program.infer_graph, fullgraph=True, backend="aot_eager")(image)
        torch.testing.assert_close(found, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("nms", ("native", "NonMaxSuppression"))
def test_onnx_has_masks_that_are_torchs(nms: str, tmp_path: Path) -> None:
    """`compile_to` refuses to write a file whose boxes, scores or masks differ from torch's."""
    import onnxruntime

    from detc.runtime.export import compile_to

    text = SMALL.format(base="MaskRCNN", edits=EDITS["MaskRCNN"]).replace("96x64", f'96x64 nms = "{nms}"')
    run = check(text).run()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = compile_to(run, tmp_path / "m.onnx")
    assert made.comparison is not None and made.comparison.problem is None
    assert made.comparison.detections > 10 and made.comparison.mask < 0.01
    if nms == "native":
        return
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    assert [o.name for o in session.get_outputs()] == ["boxes", "scores", "labels", "valid", "masks"]
    masks = session.run(["masks"], {"image": np.zeros((1, 3, 50, 77), np.uint8)})[0]
    assert masks.shape == (1, 20, 50, 77) and masks.dtype == bool
