"""The DETR line: published parameter counts, static graphs, denoising only in training, ONNX."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from detc.compiler.check import check
from detc.compiler.functional.denoise import contrastive_denoising
from detc.compiler.program import build
from detc.runtime.export import RandomWeightsWarning, compile_to

COUNTS = {"DETR": 41_575_061, "DeformableDETR": 40_118_934, "DINO": 47_702_412}
SMALL = {
    "DETR": ("DETR", "", "5 .. 6"),
    "plain": ("DeformableDETR", "", "3 .. 6"),
    "refine": ("DeformableDETR", "refine = true,", "3 .. 6"),
    "two-stage": ("DeformableDETR", "refine = true, two_stage = true,", "3 .. 6"),
    "DINO": ("DINO", "noisy = 10, keep = 20,", "3 .. 6"),
}
SIDE, CAPACITY, QUERIES = 64, 5, 20


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


def text_of(variant: str, layers: int) -> str:
    model, params, stages = SMALL[variant]
    return f"""det 1
import std.backbones {{ ResNet }}
import std.models {{ {model} }}
model M(classes: labels) extends {model}(
  classes, queries = {QUERIES}, width = 32, layers = {layers}, heads = 4, ffn = 32, dropout = 0.0, {params}
  backbone = ResNet(18, stages = {stages}, freeze = 1, norm = "frozen"),
) {{}}
run {{ model = M(classes = ["a", "b", "c"]) }}
"""


@cache
def small(variant: str, layers: int = 2) -> Any:
    """A program whose parts that begin as zero are a little off it, so that all of them matter."""
    result = check(text_of(variant, layers))
    assert not result.report.diagnostics, result.report.diagnostics
    torch.manual_seed(0)
    program = build(result.run())
    with torch.no_grad():
        for parameter in program.model.parameters():
            if parameter.requires_grad:
                parameter += torch.randn_like(parameter) * 0.02
    return program


def batch(objects: int, capacity: int = CAPACITY) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Two images, the second one padded; the first holds `objects`, the second half as many."""
    generator = torch.Generator().manual_seed(1)
    corner, size = torch.rand(2, 2, capacity, 2, generator=generator).mul(SIDE * 0.4).unbind()
    counts = torch.tensor([[objects], [(objects + 1) // 2]])
    valid = torch.arange(capacity).expand(2, capacity) < counts
    truth = {
        "boxes": torch.cat((corner, corner + size + 6), -1) * valid[..., None],
        "labels": torch.randint(3, (2, capacity), generator=generator) * valid,
        "valid": valid,
    }
    pixels = torch.rand(2, 3, SIDE, SIDE, generator=generator) * 255
    return {"pixels": pixels, "size": torch.tensor([[SIDE, SIDE], [SIDE - 10.0, SIDE - 4.0]])}, truth


@pytest.mark.parametrize("variant", SMALL)
def test_trains_with_no_one_and_the_most_objects(variant: str) -> None:
    program = small(variant)
    program.model.train()
    for objects in (0, 1, CAPACITY):
        program.model.zero_grad()
        losses = program.train_graph(*batch(objects))
        sum(losses.values()).backward()
        values = {name: float(v.detach()) for name, v in losses.items()}
        assert all((v > 0) == (objects > 0) for name, v in values.items() if "l1" in name)
        assert all(v > 0 for name, v in values.items() if "cls" in name and "noisy" not in name)
        gradients = {n: p.grad for n, p in program.model.named_parameters() if p.requires_grad}
        assert all(g is not None and torch.isfinite(g).all() for g in gradients.values())
    # DETR's queries begin as 0, so the first values of their own are biases only
    silent = {"decoder.0.self_attn.v.weight"} if variant == "DETR" else set()
    assert {n for n, g in gradients.items() if not g.any()} == silent


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["DETR", "two-stage", "DINO"])
def test_graphs_export_and_compile_without_breaks(variant: str) -> None:
    """The inference graph is exported by the test of ONNX below."""
    program = small(variant, layers=1)
    image, truth = batch(3)
    program.model.eval()
    with torch.no_grad():
        eager = program.infer_graph(image)["detections"]
        compiled = torch.compile(program.infer_graph, fullgraph=True, backend="eager")(image)["detections"]
    for name, value in eager.items():
        torch.testing.assert_close(value.float(), compiled[name].float(), atol=1e-4, rtol=1e-4)
    program.model.train()
    torch.export.export(program.train_graph, (image, truth))
    losses = torch.compile(program.train_graph, fullgraph=True, backend="eager")(image, truth)
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in program.model.parameters() if p.requires_grad)


def test_denoising_is_only_in_the_train_graph() -> None:
    spec = small("DINO").spec
    train = [type(n.op).__name__ for n in spec.train.nodes() if n.op is not None]
    infer = [type(n.op).__name__ for n in spec.infer.nodes() if n.op is not None]
    assert "ContrastiveDenoising" in train
    assert "Embedding" in train
    assert not {"ContrastiveDenoising", "Embedding", "Hungarian"} & set(infer)
    assert {loss.name for loss in spec.train.losses} >= {"cls[0]", "cls[1]", "noisy_cls[1]", "first_giou"}


OPTIONS = {"classes": 3, "queries": 4, "count": 10, "label_noise": 0.5, "box_noise": 1.0, "eps": 1e-3}


def test_denoising_queries_are_what_the_paper_says() -> None:
    image, truth = batch(4)
    torch.manual_seed(0)
    made = contrastive_denoising(truth, image, **OPTIONS)
    groups, d = 10 // CAPACITY, 10 // CAPACITY * 2 * CAPACITY
    assert made["boxes"].shape == (2, d, 4)
    target = made["target"]
    positive = target["positive"].view(2, groups, 2, CAPACITY).bool()
    assert torch.equal(positive[:, :, 0], truth["valid"][:, None].expand(-1, groups, -1))
    assert not positive[:, :, 1].any()
    labels = target["labels"].view(2, groups, 2, CAPACITY)
    assert (labels[0, :, 1, :4] == -1).all()
    assert (labels[0, :, :, 4] == -2).all()
    # positives move each corner by less than half the object's size, negatives by half to all of it
    size = image["size"].flip(-1).repeat(1, 2)[:, None]
    center, extent = (made["boxes"] * size).split(2, -1)
    corners = torch.cat((center - extent / 2, center + extent / 2), -1).view(2, groups, 2, CAPACITY, 4)
    true = truth["boxes"][:, None, None]
    moved = ((corners - true).abs() / (true[..., 2:] - true[..., :2]).repeat(1, 1, 1, 1, 2))[0, :, :, :4]
    inside = (corners[0, :, :, :4] > 1) & (corners[0, :, :, :4] < SIDE - 1)
    # noise that turns a side inside out leaves the least width, which tells nothing of the corners
    upright = (corners[0, :, :, :4, 2:] - corners[0, :, :, :4, :2] > 1).repeat(1, 1, 1, 2)
    inside = inside & upright
    assert (moved[:, 0][inside[:, 0]] < 0.5).all()
    assert ((moved[:, 1] > 0.49) & (moved[:, 1] < 1))[inside[:, 1]].all()


def test_denoising_groups_do_not_see_each_other() -> None:
    image, truth = batch(4)
    mask = contrastive_denoising(truth, image, **OPTIONS)["mask"][0]
    d, group = 20, 2 * CAPACITY
    assert not mask[:group, group:d].any()
    assert not mask[d:, :d].any()
    assert mask[:, d:].all()
    seen = torch.arange(group) % CAPACITY < 4
    assert torch.equal(mask[0, :group], seen)
    assert torch.equal(mask[d - 1, group:d], seen)


def test_the_other_queries_do_not_notice_the_noise() -> None:
    program = small("DINO")
    program.model.eval()
    losses = []
    for seed, capacity in ((0, CAPACITY), (1, 2 * CAPACITY)):
        torch.manual_seed(seed)
        image, truth = batch(3)
        more = capacity - CAPACITY
        truth = {
            "boxes": torch.nn.functional.pad(truth["boxes"], (0, 0, 0, more)),
            "labels": torch.nn.functional.pad(truth["labels"], (0, more)),
            "valid": torch.nn.functional.pad(truth["valid"], (0, more)),
        }
        with torch.no_grad():
            losses.append(program.train_graph(image, truth))
    for name, value in losses[0].items():
        if not name.startswith("noisy"):
            torch.testing.assert_close(value, losses[1][name], atol=1e-5, rtol=1e-5)
    assert float(losses[0]["noisy_l1[0]"]) != float(losses[1]["noisy_l1[0]"])


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["DETR", "two-stage", "DINO"])
def test_onnx_runs_on_stock_onnxruntime(variant: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    result = check(text_of(variant, layers=1) + "target tiny { image = 64x64 }\n")
    assert not result.report.errors
    file = tmp_path / "model.onnx"
    with pytest.warns(RandomWeightsWarning):
        made = compile_to(result.run(), file, target="tiny")  # compares with torch on stock onnxruntime
    assert made.comparison is not None
    used = {n.op_type for n in onnx.load(file).graph.node if n.domain == "detc"}
    assert used == (set() if variant == "DETR" else {"MsDeformAttn"})
