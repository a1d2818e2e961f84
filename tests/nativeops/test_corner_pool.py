"""corner_pool: kernel against cummax, ties, NaN, gradients and graphs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from detc.nativeops import ops
from detc.nativeops.reference.corner_pool import DIRECTIONS
from detc.nativeops.reference.corner_pool import corner_pool as reference
from tests.nativeops.checks import strided, trains_in_graphs
from tests.nativeops.op_checks import assert_same, check_graph, check_op, require_native


def test_the_native_kernel_is_tested() -> None:
    require_native("corner_pool", "corner_pool_backward")


def test_directions() -> None:
    x = torch.tensor([[[[1.0, 5.0, 2.0], [4.0, 0.0, 3.0]]]])
    assert ops.corner_pool(x, "top")[0, 0].tolist() == [[4, 5, 3], [4, 0, 3]]
    assert ops.corner_pool(x, "bottom")[0, 0].tolist() == [[1, 5, 2], [4, 5, 3]]
    assert ops.corner_pool(x, "left")[0, 0].tolist() == [[5, 5, 2], [4, 3, 3]]
    assert ops.corner_pool(x, "right")[0, 0].tolist() == [[1, 5, 5], [4, 4, 4]]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 9), st.integers(0, 9)),
    direction=st.sampled_from(DIRECTIONS),
    nan=st.booleans(),
)
def test_equals_the_reference_with_ties(
    seed: int, shape: tuple[int, int, int, int], direction: str, nan: bool
) -> None:
    g = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 4, shape, generator=g).float()
    if nan:
        x[torch.rand(shape, generator=g) < 0.05] = torch.nan
        x[torch.rand(shape, generator=g) < 0.05] = -torch.inf
    x.requires_grad_()
    got, wanted = ops.corner_pool(x, direction), reference(x, direction)
    assert_same(got.detach(), wanted.detach())
    grad = torch.randint(-9, 9, shape, generator=g).float()
    (ours,) = torch.autograd.grad(got, x, grad)
    (theirs,) = torch.autograd.grad(wanted, x, grad)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_gradcheck(direction: str) -> None:
    x = torch.randperm(40, dtype=torch.float64).reshape(1, 2, 4, 5).requires_grad_()
    assert gradcheck(lambda a: ops.corner_pool(a, direction), (x,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits(dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, 5, 6).to(dtype)
    assert_same(ops.corner_pool(x, "left"), reference(x.float(), "left").to(dtype))


def test_not_contiguous() -> None:
    x = torch.randn(2, 3, 5, 6)
    wanted = ops.corner_pool(x, "top")
    assert torch.equal(ops.corner_pool(strided(x), "top"), wanted)
    assert torch.equal(ops.corner_pool(x.contiguous(memory_format=torch.channels_last), "top"), wanted)


def test_opcheck_and_graphs() -> None:
    x = torch.randn(2, 3, 5, 6)
    check_op(torch.ops.detc.corner_pool.default, (x, "top"), (x[:0], "left"))
    check_op(torch.ops.detc.corner_pool_backward.default, (torch.randn_like(x), x, "right"))
    check_graph(lambda a: ops.corner_pool(a, "bottom"), (x,), "corner_pool")
    trains_in_graphs(lambda a: ops.corner_pool(a, "right"), (x,))


def test_unknown_direction() -> None:
    with pytest.raises(ValueError, match="top, bottom, left, right, got 'up'"):
        ops.corner_pool(torch.zeros(1, 1, 2, 2), "up")
