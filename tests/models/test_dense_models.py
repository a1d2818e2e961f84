"""FCOS and RTMDet: published parameter counts, finite losses with and without objects, compiled alike."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from detc.compiler.check import check
from detc.compiler.program import build

COUNTS = {
    "FCOS": 32_295_322,
    "RTMDetTiny": 4_896_168,
    "RTMDetS": 8_886_924,
    "RTMDetM": 24_709_188,
    "RTMDet": 52_315_804,
    "RTMDetX": 94_855_572,
}


@cache
def resolved(model: str, classes: int) -> Any:
    names = ", ".join(f'"c{i}"' for i in range(classes))
    result = check(
        f"det 1\nimport std.models {{ {model} }}\nrun {{ model = {model}(classes = [{names}]) }}\n"
    )
    assert not result.report.diagnostics, result.report.diagnostics
    return result.run()


@pytest.mark.parametrize(("model", "count"), COUNTS.items())
def test_parameters_equal_the_published_count(model: str, count: int) -> None:
    with torch.device("meta"):
        weights = resolved(model, 80).model.weights.values()
        layers = [w.op.torch(*w.types) for w in weights]
    assert sum(p.numel() for layer in layers for p in layer.parameters()) == count


def batch(classes: int, objects: int, side: int = 128) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    torch.manual_seed(0)
    corner, size = torch.rand(2, 5, 2) * side * 0.6, torch.rand(2, 5, 2) * side * 0.4 + 8
    valid = torch.arange(5).expand(2, 5) < objects
    truth = {
        "boxes": torch.cat((corner, corner + size), -1) * valid[..., None],
        "labels": torch.randint(classes, (2, 5)) * valid,
        "valid": valid,
    }
    image = {"pixels": torch.rand(2, 3, side, side) * 255, "size": torch.tensor([[side, side - 20.0]] * 2)}
    return image, truth


@pytest.mark.parametrize("model", ["RTMDetTiny", "FCOS", "TorchvisionFCOS"])
def test_trains_with_and_without_objects(model: str) -> None:
    program = build(resolved(model, 3))
    program.model.train()
    for objects in (0, 3):
        program.model.zero_grad()
        losses = program.train_graph(*batch(3, objects))
        assert all(torch.isfinite(v) for v in losses.values())
        assert (float(losses["box"].detach()) > 0) == (objects > 0)
        sum(losses.values()).backward()
        for name, parameter in program.model.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, name
                assert torch.isfinite(parameter.grad).all(), name


def test_a_few_steps_bring_the_loss_down() -> None:
    torch.manual_seed(0)
    program = build(resolved("RTMDetTiny", 3))
    program.model.train()
    optimizer = torch.optim.AdamW(program.model.parameters(), lr=2e-3)
    image, truth = batch(3, 3)
    history = []
    for _ in range(12):
        optimizer.zero_grad()
        total = sum(program.train_graph(image, truth).values())
        total.backward()
        optimizer.step()
        history.append(float(total.detach()))
    assert min(history[-3:]) < 0.7 * history[0]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["RTMDetTiny", "FCOS"])
def test_graphs_export_and_compile_without_breaks(model: str) -> None:
    program = build(resolved(model, 3))
    image, truth = batch(3, 3)
    program.model.eval()
    with torch.no_grad():
        eager = program.infer_graph(image)["detections"]
        exported = torch.export.export(program.infer_graph, (image,)).module()(image)["detections"]
        compiled = torch.compile(program.infer_graph, fullgraph=True, backend="eager")(image)["detections"]
    for name, value in eager.items():
        assert torch.allclose(value.float(), exported[name].float(), atol=1e-4)
        assert torch.allclose(value.float(), compiled[name].float(), atol=1e-4)
    program.model.train()
    torch.export.export(program.train_graph, (image, truth))
    losses = torch.compile(program.train_graph, fullgraph=True, backend="aot_eager")(image, truth)
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in program.model.parameters() if p.requires_grad)


def test_the_head_shares_convolutions_and_keeps_norms_private() -> None:
    keys = build(resolved("RTMDetTiny", 3)).model.head.state_dict()
    assert {k.split(".")[1] for k in keys if k.startswith("cls_conv.")} == {"0", "1"}
    assert {tuple(k.split(".")[1:3]) for k in keys if k.startswith("cls_norm.")} == {
        (str(level), str(k)) for level in range(3) for k in range(2)
    }
