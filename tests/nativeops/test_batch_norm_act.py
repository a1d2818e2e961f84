"""A norm in training and its activation, against torch's two ops: results, gradients, statistics, edges."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from detc.nativeops import ops
from tests.nativeops.checks import one_and_two_threads, relative_error, trains_in_graphs
from tests.nativeops.op_checks import check_op, require_native

LAYOUTS = [torch.contiguous_format, torch.channels_last]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "relu": F.relu,
    "silu": F.silu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.1),
    "hardswish": F.hardswish,
}
# Channels that fill vectors and ones that do not; a plane shorter than a table; many groups; one pixel.
SHAPES = [
    (2, 3, 5, 7),
    (3, 12, 40, 40),
    (3, 384, 10, 10),
    (5, 17, 33, 9),
    (4, 300, 3, 3),
    (9, 4, 1, 1),
    (1, 2, 150, 150),
]


@pytest.fixture(autouse=True)
def seeded() -> None:
    require_native("batch_norm_act", "batch_norm_act_backward")
    torch.manual_seed(0)


def inputs(
    shape: tuple[int, ...], layout: torch.memory_format, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    x = (torch.randn(shape) * 2 + torch.randn(shape[1])[:, None, None] * 3).to(dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return [
        x.contiguous(memory_format=layout),
        torch.rand(shape[1], dtype=wide) + 0.5,
        torch.randn(shape[1], dtype=wide),
    ]


def native(args: list[Tensor], grad: Tensor, activation: str) -> list[Tensor]:
    leaves = [a.detach().clone().requires_grad_() for a in args]
    out, mean, var = ops.batch_norm_act(*leaves, eps=1e-3, activation=activation, slope=0.1)
    assert not (mean.requires_grad or var.requires_grad)
    return [out.detach(), mean, var, *torch.autograd.grad(out, leaves, grad)]


def torchs(args: list[Tensor], grad: Tensor, activation: str) -> list[Tensor]:
    leaves = [a.detach().clone().requires_grad_() for a in args]
    mean, var = torch.zeros_like(args[1]), torch.zeros_like(args[1])
    x, weight, bias = leaves
    out = ACTIVATIONS[activation](F.batch_norm(x, mean, var, weight, bias, True, 1.0, 1e-3))
    return [out.detach(), mean, var, *torch.autograd.grad(out, leaves, grad)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_torch(shape: tuple[int, ...], activation: str, layout: torch.memory_format) -> None:
    args = inputs(shape, layout)
    grad = torch.randn(shape).contiguous(memory_format=layout)
    got = native(args, grad, activation)
    assert got[0].stride() == args[0].stride() and got[3].stride() == args[0].stride()
    for a, b in zip(got, torchs(args, grad, activation), strict=True):
        assert relative_error(a, b) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_types(layout: torch.memory_format, dtype: torch.dtype) -> None:
    args = inputs((4, 24, 13, 11), layout, dtype)
    grad = torch.randn(args[0].shape).to(dtype).contiguous(memory_format=layout)
    got = native(args, grad, "silu")
    exact = torchs([a.double() for a in args], grad.double(), "silu")
    assert [t.dtype for t in got] == [dtype, *[args[1].dtype] * 2, dtype, *[args[1].dtype] * 2]
    steps = {torch.float64: 1e-12, torch.bfloat16: 2**-8, torch.float16: 2**-11}[dtype]
    for a, b in zip(got, exact, strict=True):
        assert relative_error(a, b) < 1.5 * max(steps, 1e-12 if dtype == torch.float64 else 1e-6)


def test_statistics_far_from_zero() -> None:
    """A mean of a thousand deviations: sums of squares in float32 would have lost the variance."""
    x = torch.randn(4, 8, 50, 50) + 1000.0
    for layout in LAYOUTS:
        _, mean, var = ops.batch_norm_act(x.contiguous(memory_format=layout), torch.ones(8), torch.zeros(8))
        assert relative_error(mean, x.double().mean((0, 2, 3))) < 2e-7
        assert relative_error(var, x.double().var((0, 2, 3))) < 1e-5


def test_silu_over_its_range() -> None:
    """The exponential is the op's own: bias moves constant channels over the whole range of it."""
    at = torch.cat(
        (torch.linspace(-120, 120, 2001), torch.tensor([-1e4, -88.5, -88.0, 0.0, 88.0, 88.5, 1e4]))
    )
    x = torch.zeros(2, len(at), 1, 1).requires_grad_()
    bias = at.clone().requires_grad_()
    out = ops.batch_norm_act(x, torch.ones_like(at), bias, activation="silu").out
    out.sum().backward()
    exact = at.double().requires_grad_()
    F.silu(exact).sum().backward()
    assert exact.grad is not None and bias.grad is not None
    torch.testing.assert_close(out[0, :, 0, 0].double(), F.silu(exact), rtol=2e-6, atol=1e-30)
    torch.testing.assert_close(bias.grad.double() / 2, exact.grad, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("shape", [(3, 12, 60, 60), (2, 5, 200, 90)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_threads_change_nothing(layout: torch.memory_format, shape: tuple[int, ...]) -> None:
    args, grad = inputs(shape, layout), torch.randn(shape).contiguous(memory_format=layout)
    one_and_two_threads(lambda: native(args, grad, "silu"))


def test_gradients_of_other_orders() -> None:
    """A gradient that is laid out unlike x, expanded or a slice, is read as what it is."""
    for layout in LAYOUTS:
        args = inputs((2, 6, 8, 9), layout)
        other = LAYOUTS[1 - LAYOUTS.index(layout)]
        whole = torch.randn(2, 12, 8, 9).contiguous(memory_format=layout)
        for grad in (
            torch.randn(2, 6, 8, 9).contiguous(memory_format=other),
            whole[:, 3:9],
            torch.ones(1).expand(2, 6, 8, 9),
        ):
            for a, b in zip(native(args, grad, "relu"), torchs(args, grad, "relu"), strict=True):
                assert relative_error(a, b) < 1e-5


def test_a_wild_number_stays_in_its_channel() -> None:
    for value in (float("nan"), float("inf"), 1e30):
        args = inputs((2, 3, 8, 9), torch.channels_last)
        grad = torch.randn(2, 3, 8, 9)
        tame = native(args, grad, "silu")
        args[0][1, 1, 2, 3] = value
        for a, b in zip(native(args, grad, "silu"), tame, strict=True):
            keep = [0, 2]
            a, b = (a[:, keep], b[:, keep]) if a.dim() == 4 else (a[keep], b[keep])
            assert torch.equal(a, b)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_as_an_op(layout: torch.memory_format) -> None:
    """In both orders, and of a map with gaps, whose copy keeps the order: schema, fake strides, autograd."""
    x, weight, bias = inputs((2, 6, 5, 4), layout)
    for view in (x, x[:, 1:4], x[:, :, 1:], x[..., :1, :1]):
        C = view.shape[1]
        args = [t.detach().requires_grad_() for t in (view, weight[:C], bias[:C])]
        check_op(torch.ops.detc.batch_norm_act.default, [*args, 1e-5, 2, 0.0])
        out = ops.batch_norm_act(*args, activation="silu").out
        assert out.is_contiguous(memory_format=layout)
        trains_in_graphs(lambda *a: ops.batch_norm_act(*a, activation="silu").out, args)


def test_frozen_parts_get_no_gradient() -> None:
    x, weight, bias = inputs((2, 3, 4, 5), torch.channels_last)
    bias.requires_grad_()
    ops.batch_norm_act(x, weight, bias, activation="silu").out.sum().backward()
    assert bias.grad is not None and weight.grad is None and x.grad is None


def test_what_is_refused() -> None:
    x, weight, bias = torch.rand(1, 3, 1, 1), torch.ones(3), torch.zeros(3)
    with pytest.raises(ValueError, match="one value a channel"):
        ops.batch_norm_act(x, weight, bias)
    with pytest.raises(ValueError, match="activation is one of"):
        ops.batch_norm_act(x.expand(2, 3, 1, 1), weight, bias, activation="gelu")
    with pytest.raises(ValueError, match=r"x is \[N, C, H, W\]"):
        ops.batch_norm_act(x[0], weight, bias)
    with pytest.raises(ValueError, match=r"weight and bias \[C\]"):
        ops.batch_norm_act(torch.rand(2, 3, 1, 1), weight[:2], bias[:2])
