"""RTMDet-Ins and CondInst: published sizes, derived numbers, every bucket, and one graph for all ways out."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import detc
from detc.compiler.check import check
from detc.compiler.program import Program, build

COUNTS = {
    "RTMDetInsTiny": 5_638_187,
    "RTMDetInsS": 10_183_311,
    "RTMDetInsM": 27_575_111,
    "RTMDetIns": 57_365_663,
    "RTMDetInsX": 102_703_767,
    "CondInst": 34_164_299,
}
SMALL = {
    "RTMDetIns": """
model Small(classes: labels) extends RTMDetIns(classes, deepen = 0.167, widen = 0.125, blocks = 1) {
  set masks.n = 12
  EDITS
}
""",
    "CondInst": """
model Small(classes: labels) extends CondInst(
  classes, backbone = CSPNeXt(0.167, 0.125), neck = FPN(16, extra = "conv", relu_extra = true)
) {
  set head.width = 16
  set head.depth = 1
  set head.groups = 4
  set masks.features.width = 16
  set masks.n = 12
  EDITS
}
""",
}
HEIGHT, WIDTH = 64, 96


def text(model: str, edits: str = "") -> str:
    head = "det 1\nimport std.backbones { CSPNeXt }\nimport std.necks { FPN }\nimport std.models "
    body = SMALL[model].replace("EDITS", edits)
    run = 'run { model = Small(classes = ["a", "b", "c"]) target = small() }\n'
    return f"{head}{{ {model} }}\n{body}\n{run}target small {{ image = {WIDTH}x{HEIGHT} }}\n"


@cache
def small(model: str) -> Program:
    result = check(text(model))
    assert not result.report.errors, result.report.errors
    return build(result.run(), seed=0)


def batch(objects: int = 2, capacity: int = 3) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Two images: ellipses in the first, so many of them, and nothing in the second."""
    g = torch.Generator().manual_seed(0)
    pixels = torch.rand(2, 3, HEIGHT, WIDTH, generator=g) * 255
    corner = torch.rand(2, capacity, 2, generator=g) * torch.tensor([WIDTH - 40.0, HEIGHT - 40.0])
    valid = (torch.arange(capacity) < objects) & torch.tensor([[True], [False]])
    boxes = torch.cat((corner, corner + 10 + 30 * torch.rand(2, capacity, 2, generator=g)), -1)
    boxes = torch.where(valid[..., None], boxes, 0.0)
    ys, xs = torch.arange(HEIGHT)[:, None] + 0.5, torch.arange(WIDTH) + 0.5
    x1, y1, x2, y2 = (b[..., None, None] for b in boxes.unbind(-1))
    radius = ((xs - (x1 + x2) / 2) / (x2 - x1)) ** 2 + ((ys - (y1 + y2) / 2) / (y2 - y1)) ** 2
    truth = {
        "boxes": boxes,
        "labels": torch.arange(capacity).remainder(3).expand(2, -1) * valid,
        "valid": valid,
        "masks": (radius < 0.25) & valid[..., None, None],
    }
    return {"pixels": pixels, "size": torch.tensor([[64.0, 90.0]] * 2)}, truth


@pytest.mark.parametrize(("model", "count"), COUNTS.items())
def test_parameters_equal_the_published_count(model: str, count: int) -> None:
    names = ", ".join(f'"c{i}"' for i in range(80))
    result = check(
        f"det 1\nimport std.models {{ {model} }}\nrun {{ model = {model}(classes = [{names}]) }}\n"
    )
    assert not result.report.diagnostics, result.report.diagnostics
    with torch.device("meta"):
        layers = [w.op.torch(*w.types) for w in result.run().model.weights.values()]
    assert sum(p.numel() for layer in layers for p in layer.parameters()) == count


@pytest.mark.parametrize(
    ("edit", "count"), [("", 169), ("set masks.pixel.width = 4", 69), ("set masks.pixel.depth = 4", 241)]
)
def test_what_a_point_predicts_follows_from_what_draws(edit: str, count: int) -> None:
    weights = check(text("RTMDetIns", edit)).run().model.weights
    assert {weights[f"head.kernel[{level}]"].op.out for level in range(3)} == {count}  # type: ignore[attr-defined]
    assert not any(path.startswith("masks.pixel") for path in weights), "it owns no weights"
    controller = check(text("CondInst", edit)).run().model.weights["head.controller"].op
    assert controller.out == count  # type: ignore[attr-defined]


def test_towers_of_the_head_are_shared_as_published() -> None:
    paths = set(small("RTMDetIns").spec.weights)
    assert {"head.conv[0]", "head.conv[1]"} < paths and "head.conv[0, 0]" not in paths
    assert {f"head.norm[{level}, {k}]" for level in range(3) for k in range(2)} < paths
    assert {f"head.mask_conv[{level}, {k}].conv" for level in range(3) for k in range(2)} < paths


@pytest.mark.parametrize("model", SMALL)
def test_everything_learns(model: str) -> None:
    program = small(model)
    program.model.train()
    program.model.zero_grad()
    losses = program.train_graph(*batch())
    assert all(loss.dim() == 0 and loss.isfinite() and loss > 0 for loss in losses.values()), losses
    sum(losses.values()).backward()
    for name, p in program.model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), name
    kernels = "head.kernel.0.weight" if model == "RTMDetIns" else "head.controller.weight"
    gradients = {name: p.grad for name, p in program.model.named_parameters()}
    for name in (kernels, "masks.features.last.weight"):
        assert gradients[name].abs().sum() > 0, name  # type: ignore[union-attr]


@pytest.mark.parametrize("model", SMALL)
@pytest.mark.parametrize(("objects", "capacity"), [(0, 16), (1, 16), (512, 512)])
def test_no_object_one_object_and_a_full_bucket(model: str, objects: int, capacity: int) -> None:
    program = small(model)
    program.model.train()
    losses = program.train_graph(*batch(objects, capacity))
    assert all(loss.isfinite() for loss in losses.values()), losses
    assert (losses["masks.dice"] == 0) == (objects == 0)


@pytest.mark.parametrize("model", SMALL)
def test_graphs_are_captured_whole(model: str) -> None:
    program = small(model)
    image, truth = batch()
    b = torch.export.Dim("b", min=2, max=64)
    shapes: tuple[dict[str, Any], ...] = ({k: {0: b} for k in image}, {k: {0: b} for k in truth})
    program.model.train()
    losses = program.train_graph(image, truth)
    exported = torch.export.export(program.train_graph, (image, truth), dynamic_shapes=shapes)
    again: dict[str, Any] = exported.module()(image, truth)
    compiled = torch.compile(program.train_graph, fullgraph=True, backend="aot_eager")(image, truth)
    for name, loss in losses.items():
        torch.testing.assert_close(again[name], loss, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(compiled[name], loss, atol=1e-4, rtol=1e-4)
    program.model.eval()
    with torch.no_grad():
        expected = program.infer_graph(image)["detections"]
        exported = torch.export.export(program.infer_graph, (image,), dynamic_shapes=shapes[:1])
        torch.testing.assert_close(exported.module()(image)["detections"], expected)
        found = torch.compile(program.infer_graph, fullgraph=True, backend="aot_eager")(image)["detections"]
    assert expected["masks"].shape[:2] == expected["scores"].shape
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-4, rtol=1e-4, msg=name)


@pytest.mark.parametrize("model", SMALL)
def test_masks_leave_as_onnx(model: str, tmp_path: Path) -> None:
    spec = tmp_path / "small.det"
    spec.write_text(text(model))
    program = small(model)
    program.model.eval()
    with torch.no_grad():  # untrained, it would be sure of nothing
        for layer in program.model.get_submodule("head.cls").modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.bias.add_(5.0)  # type: ignore[union-attr]
    torch.save(program.model.state_dict(), tmp_path / "w.pt")
    written = detc.compile(spec, tmp_path / "m.onnx", weights=tmp_path / "w.pt")
    comparison = written.comparison
    assert comparison is not None and comparison.problem is None
    assert comparison.detections > 10 and comparison.mask < 0.01
    with torch.no_grad():
        found = detc.load(written.path)(torch.zeros(1, 3, 50, 70, dtype=torch.uint8))
    assert found["masks"].shape == (1, 100, 50, 70) and found["masks"].dtype == torch.bool
