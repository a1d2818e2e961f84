"""Depthwise convolutions with native gradients: torch's numbers, and the convolution itself wherever that is needed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import Parameter

from detc.runtime.train.depthwise import DepthwiseConv, native_depthwise
from detc.runtime.train.precision import cpu_has_bf16
from tests.nativeops.checks import relative_error
from tests.nativeops.op_checks import require_native


@pytest.fixture(autouse=True)
def seeded() -> None:
    require_native("depthwise_weight_grad")
    torch.manual_seed(0)


class Net(nn.Module):
    """One depthwise convolution twice, a strided one, and convolutions that are none."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Conv2d(8, 8, 5, padding=2, groups=8, bias=False)
        self.strided = nn.Conv2d(8, 8, 3, stride=2, padding=1, dilation=(1, 2), groups=8, bias=False)
        self.biased = nn.Conv2d(8, 8, 3, groups=8)
        self.grouped = nn.Conv2d(8, 8, 3, groups=4, bias=False)
        self.mirrored = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared(self.shared(x).sigmoid())
        return self.mirrored(self.grouped(self.biased(self.strided(x))))


def graphs() -> tuple[Net, Any, Any]:
    model = Net()
    graph = fx.symbolic_trace(model)
    return model, graph, native_depthwise(graph)


def gradients(model: Net, graph: Any, x: Tensor, dtype: torch.dtype | None = None) -> list[Tensor]:
    model.zero_grad()
    x = x.detach().requires_grad_()
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        out = graph(x)
    out.float().square().mean().backward()
    assert x.grad is not None
    return [out.detach(), x.grad, *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def test_what_is_replaced() -> None:
    model, graph, native = graphs()
    made = [m.conv for m in native.modules() if isinstance(m, DepthwiseConv)]
    assert [id(m) for m in made] == [id(model.shared), id(model.shared), id(model.strided)]
    assert {id(p) for p in native.parameters()} == {id(p) for p in graph.parameters()}
    assert not any(isinstance(m, DepthwiseConv) for m in graph.modules())


def test_numbers_are_torchs() -> None:
    model, graph, native = graphs()
    x = torch.randn(2, 8, 20, 22).contiguous(memory_format=torch.channels_last)
    for got, wanted in zip(gradients(model, native, x), gradients(model, graph, x), strict=True):
        assert relative_error(got, wanted) < 1e-5


@pytest.mark.skipif(not cpu_has_bf16(), reason="this CPU has no bf16 units")
def test_in_mixed_precision_too() -> None:
    model, graph, native = graphs()
    x = torch.randn(2, 8, 20, 22).contiguous(memory_format=torch.channels_last)
    got, wanted = (gradients(model, g, x, torch.bfloat16) for g in (native, graph))
    assert torch.equal(got[0], wanted[0])
    for a, b in zip(got, wanted, strict=True):
        assert a.dtype == b.dtype
        assert relative_error(a, b) < 2e-2


def test_where_the_convolution_itself_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    model, graph, native = graphs()
    x = torch.randn(2, 8, 20, 20)
    with torch.no_grad():
        assert torch.equal(native(x), graph(x))
    model.shared.requires_grad_(False)  # frozen: nothing to gain
    gradients(model, native, x)
    assert model.shared.weight.grad is None and model.strided.weight.grad is not None
    model.strided.weight = Parameter(model.strided.weight.double())
    with pytest.raises(RuntimeError):  # torch's own words for unlike types
        native(x)
    assert native_depthwise(model) is model
    monkeypatch.setenv("DETC_NATIVE", "0")
    assert native_depthwise(graph) is graph
