"""Mixed precision: when it is used, and that prediction layers keep out of it."""

import copy

import pytest
import torch
from torch import fx, nn

from detc.compiler.check import check
from detc.compiler.functional.arith import mul
from detc.compiler.program import build
from detc.runtime.train.precision import Precision, cpu_has_bf16, prediction_layers

CPU = torch.device("cpu")


class Pyramid(nn.Module):
    """A trunk, two heads of one shared tower, and a layer that is both prediction and feature."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(3, 8, 3)
        self.tower = nn.Conv2d(8, 8, 3, padding=1)
        self.cls, self.reg, self.both = nn.Conv2d(8, 2, 1), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = torch.relu(self.trunk(x))
        x = nn.functional.max_pool2d(x, 2)
        both = self.both(x)
        x = torch.relu(self.tower(both))
        return self.cls(x), mul(self.reg(x), scalar=8.0), both


def test_prediction_layers_of_a_graph():
    graph = fx.symbolic_trace(Pyramid())
    assert prediction_layers(graph) == ["cls", "reg"]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("specs/retinanet.det", ["head.cls", "head.reg"]),
        (
            "specs/cascade.det",
            ["rpn.cls", "rpn.reg"] + [f"head.{s}.{n}" for s in range(3) for n in ("cls", "reg")],
        ),
    ],
)
def test_prediction_layers_of_the_library(spec, expected):
    assert prediction_layers(build(check(spec).run()).train_graph) == expected


@pytest.mark.skipif(not cpu_has_bf16(), reason="this CPU has no bf16 units")
def test_predictions_are_fp32_under_autocast():
    model = Pyramid()
    graph = fx.symbolic_trace(model)
    precision = Precision.of(True, "bf16", CPU)
    x = torch.rand(1, 3, 20, 20)
    with precision.autocast():
        assert graph(x)[0].dtype is torch.bfloat16
    assert precision.spare_predictions(graph) == ["cls", "reg"]
    precision.spare_predictions(graph)  # twice is once
    with precision.autocast():
        cls, reg, both = graph(x)
    assert (cls.dtype, reg.dtype, both.dtype) == (torch.float32, torch.float32, torch.bfloat16)
    (cls.sum() + reg.sum()).backward()
    assert graph.cls.weight.grad.dtype is torch.float32
    twin = copy.deepcopy(graph)
    with torch.no_grad():
        twin.cls.weight.zero_()
        assert not torch.equal(graph(x)[0], twin(x)[0])


def test_when_it_is_used():
    assert Precision.of(False, "bf16", CPU).dtype is None
    quiet = Precision.of(True, None, CPU)
    assert quiet.dtype is None
    assert "ask for it" in quiet.note
    asked = Precision.of(True, "bf16", CPU)
    assert (asked.dtype is torch.bfloat16) == cpu_has_bf16()
    assert bool(asked.note) != cpu_has_bf16()
    with pytest.raises(ValueError, match="not 'int4'"):
        Precision.of(True, "int4", CPU)
