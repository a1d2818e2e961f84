"""Fused convolutions for the CPU give what the nodes that they stand for give."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

from detc.compiler.backends.cpu import FusedConv, fuse
from detc.compiler.check import check
from detc.compiler.functional import arith
from detc.compiler.program import build

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="torch is built without oneDNN"
)

SPEC = """det 1
import std.models { RetinaNet }
import std.backbones { ResNet }
run { model = RetinaNet(classes = ["a", "b"], backbone = ResNet(18)) }
"""


class Block(nn.Module):
    """A residual block with a projection, and a map that is added to one of another size."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.project, self.one = nn.Conv2d(4, 8, 1, 2), nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.a(x))
        y = F.relu(arith.add(self.b(y), self.project(x)))
        z = F.silu(self.one(y))
        return arith.add(z, arith.add(self.one(y.mean((2, 3), keepdim=True)), y))


class Tracer(fx.Tracer):
    """Keeps our sum a node of its own."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=(arith.add,))


def traced() -> fx.GraphModule:
    torch.manual_seed(0)
    block = Block().eval().requires_grad_(False)
    graph = Tracer().trace(block)
    for node in graph.nodes:  # as lowering writes it
        if node.op == "call_function" and node.target.__name__ == "add":
            node.target = arith.add
    return fx.GraphModule(block, graph)


def test_a_fused_graph_computes_the_same() -> None:
    plain = traced()
    fused = fuse(copy.deepcopy(plain))
    kinds = [m for m in fused.modules() if isinstance(m, FusedConv)]
    assert sorted(m.activation for m in kinds) == ["none", "none", "relu", "relu", "swish"]
    for shape in [(2, 4, 17, 23), (1, 4, 8, 8)]:
        x = torch.randn(shape)
        with torch.no_grad():
            torch.testing.assert_close(fused(x), plain(x), rtol=1e-5, atol=1e-5)


def test_a_detector_finds_the_same() -> None:
    program = build(check(SPEC).run(), seed=0)
    plain, fused = program.optimised(), fuse(program.optimised())
    image = {"pixels": torch.rand(1, 3, 128, 160) * 255, "size": torch.tensor([[128.0, 160.0]])}
    with torch.no_grad():
        a, b = plain(image)["detections"], fused(image)["detections"]
    torch.testing.assert_close(a["scores"], b["scores"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(a["boxes"], b["boxes"], rtol=1e-4, atol=1e-3)


def test_other_circumstances_take_the_plain_way() -> None:
    graph = fuse(traced())
    x = torch.randn(1, 4, 9, 9)
    with torch.no_grad():
        wanted = graph(x)
    torch.testing.assert_close(graph(x), wanted, rtol=1e-4, atol=1e-5)  # with gradients on
    torch.testing.assert_close(graph.double()(x.double()).float(), wanted, rtol=1e-4, atol=1e-5)
    exported = torch.export.export(graph.float(), (x,)).module()
    torch.testing.assert_close(exported(x), wanted, rtol=1e-4, atol=1e-5)


def test_new_weights_are_packed_anew() -> None:
    conv = nn.Conv2d(4, 4, 3, padding=1).eval().requires_grad_(False)
    fused = FusedConv(conv).eval()
    x = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        fused(x)
        conv.weight.mul_(2)
        torch.testing.assert_close(copy.deepcopy(fused)(x), conv(x), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(fused(x), conv(x), rtol=1e-5, atol=1e-5)
