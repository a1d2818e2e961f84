"""Backbones and necks of the library: what leaves them, and that they can be swapped for one another."""

from __future__ import annotations

import pytest
import torch

from detc.compiler.check import check
from detc.compiler.program import build

HEADER = """det 1
import std.backbones { CSPNeXt, MobileNetV1, ResNet }
import std.necks { CSPNeXtPAFPN, FPN, PAFPN }
import std.models { RTMDetTiny }
"""


def model(slots: str) -> str:
    return HEADER + f'run {{ model = RTMDetTiny(classes = ["a", "b"], {slots}) }}\n'


@pytest.mark.parametrize(
    ("slots", "levels"),
    [
        ("backbone = MobileNetV1(0.25, stages = 3 .. 6), neck = PAFPN(96)", 3),
        ("backbone = CSPNeXt(0.167, 0.25, stages = 2 .. 6), neck = CSPNeXtPAFPN(96, 1)", 4),
        ("backbone = CSPNeXt(0.167, 0.25), neck = FPN(96, levels = 4)", 4),
        (
            'backbone = CSPNeXt(0.167, 0.25), neck = FPN(96, levels = 5, extra = "conv", source = "input")',
            5,
        ),
        (
            'backbone = CSPNeXt(0.167, 0.25), neck = FPN(96, extra = "conv", source = "lateral")',
            5,
        ),
    ],
)
def test_swapped_parts_train(slots: str, levels: int) -> None:
    result = check(model(slots))
    assert not result.report.errors, result.report.errors
    program = build(result.run())
    image = {"pixels": torch.rand(2, 3, 64, 96) * 255, "size": torch.tensor([[64.0, 96.0]] * 2)}
    truth = {
        "boxes": torch.tensor([[[8.0, 8.0, 40.0, 50.0]]] * 2),
        "labels": torch.zeros(2, 1, dtype=torch.int64),
        "valid": torch.ones(2, 1, dtype=torch.bool),
    }
    losses = program.train_graph(image, truth)
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in program.model.parameters() if p.requires_grad)
    assert len(list(program.model.head.cls.children())) == levels


def test_a_width_that_is_not_whole_is_an_error() -> None:
    result = check(model("widen = 0.33"))
    assert result.report.errors


def test_levels_that_do_not_fit_are_named() -> None:
    result = check(model("neck = FPN(96, levels = 2)"))
    assert any("cannot drop any of the 3 input levels" in d.message for d in result.report.errors)


def test_mobilenet_has_the_published_backbone_size() -> None:
    text = HEADER + 'run { model = RTMDetTiny(classes = ["a"], backbone = MobileNetV1(1.0)) }\n'
    run = check(text).run()
    with torch.device("meta"):
        layers = [w.op.torch(*w.types) for k, w in run.model.weights.items() if k.startswith("backbone.")]
    assert sum(p.numel() for layer in layers for p in layer.parameters()) == 4_231_976 - 1_025_000


@pytest.mark.parametrize("backbone", ["CSPNeXt(0.167, 0.25", "MobileNetV1(0.25", "ResNet(18"])
def test_stages_that_nothing_reads_are_not_built(backbone: str) -> None:
    run = check(model(f"backbone = {backbone}, stages = 2 .. 5)")).run()
    stages = {name.split(".")[1] for name in run.model.weights if name.startswith("backbone.stage")}
    assert {"stage[2]", "stage[4]"} <= stages and "stage[5]" not in stages


@pytest.mark.parametrize(
    "backbone",
    ["CSPNeXt(stages = [])", "CSPNeXt(-1.0)", "ResNet(18, stages = [6])", "MobileNetV1(stages = [0])"],
)
def test_stages_that_a_backbone_has_not_are_named(backbone: str) -> None:
    errors = check(model(f"backbone = {backbone}")).report.errors
    assert errors[0].code == "DET0305" and errors[0].primary is not None
    assert errors[0].primary.source.name == "<text>"
