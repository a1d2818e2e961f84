"""Native norms in train graphs: the same numbers, the same modules, and the norm itself wherever that is needed."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from detc.compiler.check import check
from detc.compiler.functional.layers import FrozenBatchNorm2d
from detc.compiler.program import Program, build
from detc.runtime.train import fit
from detc.runtime.train.ddp import World
from detc.runtime.train.depthwise import DepthwiseConv
from detc.runtime.train.norms import NormAct, native_norms
from tests.nativeops.op_checks import require_native

SPECS = {
    "RTMDet": """det 1
import std.models { RTMDet }
run { model = RTMDet(["a", "b", "c"], deepen = 0.167, widen = 0.125, blocks = 1, exp_on_reg = false) }
""",
    "FasterRCNN": """det 1
import std.backbones { ResNet }
import std.models { FasterRCNN }
import std.necks { FPN }
model Small(classes: labels) extends FasterRCNN(
  classes, backbone = ResNet(18, freeze = 1), neck = FPN(16, levels = 5)
) { set head.fc = 32 }
run { model = Small(["a", "b", "c"]) }
""",
}
LEARNING = {"RTMDet": 76, "FasterRCNN": 15}  # of FasterRCNN's norms five are frozen
Results = tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]


@pytest.fixture(autouse=True)
def seeded() -> None:
    require_native("batch_norm_act", "depthwise_weight_grad")
    torch.manual_seed(0)


@cache
def small(model: str, dtype: torch.dtype) -> Program:
    program = build(check(SPECS[model]).run(), seed=0)
    program.train_graph.to(dtype=dtype, memory_format=torch.channels_last)
    program.model.to(dtype=dtype, memory_format=torch.channels_last).train()
    return program


def batch(dtype: torch.dtype, side: int = 96, images: int = 4) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    g = torch.Generator().manual_seed(0)
    corner, size = (torch.rand(images, 5, 2, generator=g) * side for _ in range(2))
    valid = torch.arange(5).expand(images, 5) < 3
    boxes = torch.cat((corner * 0.6, corner * 0.6 + size * 0.4 + 8), -1) * valid[..., None]
    labels = torch.randint(3, (images, 5), generator=g) * valid
    pixels = (torch.rand(images, 3, side, side, generator=g) * 255).to(dtype)
    image = {
        "pixels": pixels.contiguous(memory_format=torch.channels_last),
        "size": torch.tensor([[side, side - 20.0]] * images, dtype=dtype),
    }
    return image, {"boxes": boxes.to(dtype), "labels": labels, "valid": valid}


def step(program: Program, graph: Any, dtype: torch.dtype) -> Results:
    """Losses, gradients and buffers after one pass; the program is as before."""
    program.model.zero_grad()
    before = deepcopy(program.model.state_dict())
    torch.manual_seed(1)
    losses = graph(*batch(dtype))
    sum(losses.values()).backward()
    gradients = {n: p.grad.clone() for n, p in program.model.named_parameters() if p.grad is not None}
    buffers = {n: b.clone() for n, b in program.model.named_buffers()}
    program.model.load_state_dict(before)
    return {n: v.detach() for n, v in losses.items()}, gradients, buffers


def difference(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    assert got.keys() == wanted.keys()
    parts = (
        ((got[n] - wanted[n]).abs().max() / wanted[n].abs().max().clamp_min(1e-9)).item() for n in wanted
    )
    return max(parts)


@pytest.mark.parametrize("model", SPECS)
def test_a_step_is_that_of_the_plain_graph(model: str) -> None:
    exact = small(model, torch.float64)
    keys, nodes = list(exact.model.state_dict()), len(exact.train_graph.graph.nodes)
    native = native_norms(exact.train_graph)
    assert sum(isinstance(m, NormAct) for m in native.modules()) == LEARNING[model]
    assert {id(p) for p in native.parameters()} == {id(p) for p in exact.train_graph.parameters()}
    plain = step(exact, exact.train_graph, torch.float64)
    for got, wanted in zip(step(exact, native, torch.float64), plain, strict=True):
        assert difference(got, wanted) < 1e-10
    assert list(exact.model.state_dict()) == keys
    assert len(exact.train_graph.graph.nodes) == nodes

    single = small(model, torch.float32)
    got = step(single, native_norms(single.train_graph), torch.float32)
    wanted = step(single, single.train_graph, torch.float32)
    assert difference(got[0], wanted[0]) < 1e-5
    if model == "FasterRCNN":
        assert difference(got[1], wanted[1]) < 1e-5
        assert difference(got[2], wanted[2]) < 1e-5
    else:  # rounding grows through its 76 norms, in torch's own gradients too: native ones are no farther off
        assert difference(_wide(got[1]), plain[1]) < 1.5 * difference(_wide(wanted[1]), plain[1])
        assert difference(_wide(got[2]), _wide(plain[2])) < 1e-4


def _wide(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: t.double() for n, t in tensors.items()}


class Norms(nn.Module):
    """Norms before all sorts of readers."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("silu", "leaky", "both", "twice", "gelu", "in_place", "predicts"):
            self.add_module(name, nn.BatchNorm2d(6, momentum=0.2))
        self.cumulative = nn.BatchNorm2d(6, momentum=None)
        self.bare = nn.BatchNorm2d(6, affine=False)
        self.still = FrozenBatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.silu(x))
        x = F.leaky_relu(self.leaky(x), negative_slope=0.2)
        y = self.both(x)
        x = F.hardswish(y) + y
        x = F.relu(self.twice(x)) + F.silu(self.twice(x + 1))
        x = F.relu(self.in_place(F.gelu(self.gelu(x))), inplace=True)
        return self.predicts(self.still(self.bare(self.cumulative(x))))


class Tracer(fx.Tracer):
    """Takes detc's own layers for leaves, as lowering does."""

    def is_leaf_module(self, m: nn.Module, name: str) -> bool:
        return not isinstance(m, Norms)


def hand_made() -> tuple[Norms, fx.GraphModule, fx.GraphModule]:
    model = Norms()
    for p in model.parameters():
        if p.requires_grad:
            nn.init.uniform_(p, 0.5, 1.5)
    graph = fx.GraphModule(model, Tracer().trace(model))
    own = model.predicts.forward
    model.predicts.forward = lambda x: own(x.float())  # type: ignore[method-assign]
    return model, graph, native_norms(graph)


def test_what_is_replaced() -> None:
    model, _, native = hand_made()
    names = {id(m): n for n, m in model.named_modules()}
    made = [m for m in native.modules() if isinstance(m, NormAct)]
    assert [(names[id(m.norm)], m.activation, m.slope) for m in made] == [
        ("silu", "silu", 0.01),
        ("leaky", "leaky_relu", 0.2),
        ("both", "identity", 0.0),
        ("twice", "relu", 0.01),
        ("twice", "silu", 0.01),
        ("gelu", "identity", 0.0),
        ("in_place", "identity", 0.0),
    ]


def test_frozen_norms_and_evaluation_go_by_the_norm() -> None:
    model, graph, native = hand_made()
    x = torch.randn(2, 6, 8, 9)
    model.leaky.eval().requires_grad_(False)
    before = deepcopy(model.state_dict())
    wanted = graph(x)
    plain = deepcopy(model.state_dict())
    model.load_state_dict(before)
    torch.testing.assert_close(native(x), wanted, atol=2e-5, rtol=1e-5)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, plain[name], atol=1e-5, rtol=1e-5)
    assert torch.equal(model.leaky.running_mean, torch.zeros(6))
    assert int(model.twice.num_batches_tracked) == 2
    model.eval()
    assert torch.equal(native(x), graph(x))


def test_one_value_a_channel_is_an_error_as_in_torch() -> None:
    _, _, native = hand_made()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        native(torch.rand(1, 6, 1, 1))


def test_what_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, graph, _ = hand_made()
    assert native_norms(model) is model  # no fx graph
    without = fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()))
    assert native_norms(without) is without
    monkeypatch.setenv("DETC_NATIVE", "0")
    assert native_norms(graph) is graph


def test_where_training_uses_them() -> None:
    model = nn.Sequential(nn.Conv2d(6, 6, 3, groups=6, bias=False), nn.BatchNorm2d(6), nn.SiLU())
    graph = fx.symbolic_trace(model)
    program = SimpleNamespace(train_graph=graph, model=graph)

    def layers(device: str, compile: bool) -> list[str]:
        forward, _ = fit._forward(program, torch.device(device), World(), compile)
        kinds = (NormAct, DepthwiseConv)
        return sorted(type(m).__name__ for m in forward.modules() if isinstance(m, kinds))

    assert layers("cpu", False) == ["DepthwiseConv", "NormAct"]
    assert layers("cuda", False) == layers("cpu", True) == []
