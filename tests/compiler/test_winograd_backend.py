"""Deployed graphs take Winograd's filtering where it wins, compute the same, and nothing else takes it."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from detc.compiler.backends.cpu import FusedConv, fuse
from detc.compiler.backends.winograd import MEASURED, wins
from detc.compiler.check import check
from detc.compiler.program import build
from tests.nativeops.op_checks import require_native

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available() or not MEASURED, reason="oneDNN on x86 is what it is chosen over"
)

SPEC = """det 1
import std.models { RetinaNet }
import std.backbones { ResNet }
run { model = RetinaNet(classes = ["a", "b"], backbone = ResNet(18)) }
"""


class Calls(TorchDispatchMode):
    """Counts the calls of ops by name."""

    def __init__(self) -> None:
        super().__init__()
        self.count: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().split("::")[1].split(".")[0]
        self.count[name] = self.count.get(name, 0) + 1
        return func(*args, **(kwargs or {}))


def made_by(module: nn.Module, *inputs: torch.Tensor | None) -> tuple[torch.Tensor, dict[str, int]]:
    with torch.no_grad(), Calls() as calls:
        return module(*inputs), calls.count


def conv_of(C: int = 192, O: int = 40, **options: Any) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(C, O, options.pop("kernel", 3), **{"padding": 1, **options}).eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def native() -> None:
    require_native("winograd_conv2d")


@pytest.mark.parametrize("activation", ["none", "relu", "swish"])
@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize("padding", [1, 0, (1, 0)])
def test_a_fused_convolution(activation: str, summed: bool, padding: Any) -> None:
    conv = conv_of(padding=padding)
    x = torch.randn(2, 192, 17, 22)
    wanted = conv(x)
    other = torch.randn_like(wanted) if summed else None
    wanted = wanted if other is None else wanted + other
    wanted = {"none": lambda y: y, "relu": F.relu, "swish": F.silu}[activation](wanted)
    got, calls = made_by(FusedConv(conv, activation).eval(), x, other)
    assert calls["winograd_conv2d"] == 1 and "_convolution_pointwise" not in calls
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


def test_the_rule() -> None:
    def taken(conv: nn.Conv2d, *out: int) -> bool:
        return wins(conv, torch.Size(out))

    assert taken(conv_of(), 1, 40, 20, 20) and taken(conv_of(256, 1), 1, 1, 8, 8)
    assert not taken(conv_of(), 1, 40, 5, 5), "reading the filters is all the time"
    assert not taken(conv_of(), 100, 40, 1, 1), "one output of sixteen is wanted"
    assert not taken(conv_of(), 1, 40, 1, 100)
    assert not taken(conv_of(128), 1, 40, 200, 200), "few channels"
    others = [{"stride": 2}, {"dilation": 2}, {"groups": 2}, {"padding": 2}, {"kernel": 5}, {"kernel": 1}]
    assert not any(taken(conv_of(**o), 1, 40, 20, 20) for o in others)


@pytest.mark.parametrize("variable", ["DETC_WINOGRAD", "DETC_NATIVE"])
def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    conv, x = conv_of(), torch.randn(1, 192, 16, 16)
    fused = FusedConv(conv, "relu").eval()
    assert "winograd_conv2d" in made_by(fused, x)[1]
    monkeypatch.setenv(variable, "0")
    got, calls = made_by(fused, x)
    assert "winograd_conv2d" not in calls and calls["_convolution_pointwise"] == 1
    torch.testing.assert_close(got, F.relu(conv(x)), atol=1e-5, rtol=1e-5)


def test_without_library_and_compiler(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """The direct convolution, and not a word about it."""
    from detc.compiler.backends import winograd

    monkeypatch.setattr(winograd.toolchain, "cxx", lambda: None)
    monkeypatch.setattr(winograd.build, "find", lambda host: None)
    monkeypatch.setattr(winograd.loader, "wants", lambda device: True)
    monkeypatch.setattr(winograd, "has_native_kernel", lambda name, device: False)
    monkeypatch.delenv("DETC_LIBRARY", raising=False)
    winograd._obtainable.cache_clear()
    try:
        got, calls = made_by(FusedConv(conv := conv_of()).eval(), x := torch.randn(1, 192, 16, 16))
    finally:
        winograd._obtainable.cache_clear()
    assert "winograd_conv2d" not in calls
    torch.testing.assert_close(got, conv(x), atol=1e-5, rtol=1e-5)
    assert not recwarn.list


def test_other_circumstances_take_the_plain_way() -> None:
    conv, x = conv_of(), torch.randn(1, 192, 16, 16)
    fused, wanted = FusedConv(conv).eval(), conv(x)
    with Calls() as calls:
        torch.testing.assert_close(fused(x), wanted, atol=1e-5, rtol=1e-5)  # gradients are on
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            fused(x)
        with torch.no_grad():
            copy.deepcopy(fused).double()(x.double())
            fused.train()(x)
    assert "winograd_conv2d" not in calls.count
    with torch.no_grad():
        exported = torch.export.export(fused.eval(), (x,))
    assert "detc" not in exported.graph_module.code


def test_filters_are_packed_once_and_anew_when_weights_change() -> None:
    conv, x = conv_of(), torch.randn(1, 192, 16, 16)
    fused = FusedConv(conv).eval()
    assert made_by(fused, x)[1]["winograd_pack"] == 1
    assert "winograd_pack" not in made_by(fused, torch.randn(1, 192, 20, 12))[1]
    conv.weight.mul_(2)
    for module in (fused, copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))):
        got, calls = made_by(module, x)
        assert calls["winograd_pack"] == 1
        torch.testing.assert_close(got, conv(x), atol=1e-5, rtol=1e-5)


def test_levels_share_a_heads_filters() -> None:
    program = build(check(SPEC).run(), seed=0)
    plain, fused = program.optimised(), fuse(program.optimised())
    image = {"pixels": torch.rand(1, 3, 128, 128) * 255, "size": torch.tensor([[128.0, 128.0]])}
    with torch.no_grad():
        wanted = plain(image)["detections"]
        with Calls() as calls:
            got = fused(image)["detections"]
    applied, packed = calls.count["winograd_conv2d"], calls.count["winograd_pack"]
    assert applied - packed == 20, "ten of the heads, and three levels of five are large enough"
    torch.testing.assert_close(got["scores"], wanted["scores"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(got["boxes"], wanted["boxes"], rtol=1e-4, atol=1e-3)
    training = build(check(SPEC).run(), seed=0).train_graph
    assert not any(isinstance(m, FusedConv) for m in training.modules())
