"""masked_conv2d: kernel against conv2d, gradients, edges and graphs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn import functional

from detc.nativeops import ops
from tests.nativeops.checks import one_and_two_threads, relative_error, strided, trains_in_graphs
from tests.nativeops.op_checks import check_graph, check_op, require_native

STRIDE, PADDING = (2, 1), (1, 0)


def inputs(
    images: int = 2,
    channels: int = 4,
    filters: int = 5,
    size: tuple[int, int] = (7, 8),
    kernel: tuple[int, int] = (3, 2),
    share: float = 0.5,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64).to(dtype)

    height = (size[0] + 2 * PADDING[0] - kernel[0]) // STRIDE[0] + 1
    width = (size[1] + 2 * PADDING[1] - kernel[1]) // STRIDE[1] + 1
    mask = torch.rand(images, height, width, generator=g) < share
    return randn(images, channels, *size), mask, randn(filters, channels, *kernel), randn(filters)


def run(x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return ops.masked_conv2d(x, mask, weight, bias, stride=STRIDE, padding=PADDING)


def by_conv2d(x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return functional.conv2d(x, weight, bias, STRIDE, PADDING) * mask[:, None].to(x.dtype)


def test_the_native_kernel_is_tested() -> None:
    require_native("masked_conv2d")


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(0, 3),
    channels=st.sampled_from([1, 3, 20]),
    filters=st.sampled_from([1, 7, 40]),
    size=st.tuples(st.integers(3, 12), st.integers(3, 12)),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    with_bias=st.booleans(),
)
def test_equals_conv2d_where_set(
    seed: int, images: int, channels: int, filters: int, size: tuple[int, int], share: float, with_bias: bool
) -> None:
    x, mask, weight, bias = inputs(images, channels, filters, size, (3, 2), share, seed)
    got = run(x, mask, weight, bias if with_bias else None)
    assert relative_error(got, by_conv2d(x, mask, weight, bias if with_bias else None)) < 1e-5
    assert (got.movedim(1, -1)[~mask] == 0).all()


def test_gradients() -> None:
    x, mask, weight, bias = inputs(1, 2, 2, (4, 5), dtype=torch.float64)
    leaves = [t.requires_grad_() for t in (x, weight, bias)]
    assert gradcheck(lambda a, w, b: run(a, mask, w, b), leaves)
    assert gradcheck(lambda a, w: run(a, mask, w, None), leaves[:2])


def test_what_is_not_read_does_not_matter() -> None:
    x, mask, weight, bias = inputs()
    mask[0] = False
    x[0] = torch.nan
    x.requires_grad_()
    got = run(x, mask, weight, bias)
    assert got.isfinite().all()
    (grad,) = torch.autograd.grad(got.sum(), x)
    assert (grad[0] == 0).all()


def test_a_mask_of_numbers() -> None:
    x, mask, weight, bias = inputs()
    numbers = torch.where(mask, 0.7, -0.2)
    numbers[0, 0, 0] = torch.nan
    mask[0, 0, 0] = False
    assert torch.equal(run(x, numbers, weight, bias), run(x, mask, weight, bias))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits(dtype: torch.dtype) -> None:
    x, mask, weight, bias = inputs(dtype=dtype)
    got = run(x, mask, weight, bias)
    assert got.dtype == dtype
    wanted = by_conv2d(x.float(), mask, weight.float(), bias.float())
    assert relative_error(got, wanted) < (2e-3 if dtype == torch.float16 else 2e-2)


def test_not_contiguous_and_threads() -> None:
    x, mask, weight, bias = inputs(size=(30, 31))
    wanted = run(x, mask, weight, bias)
    assert torch.equal(run(strided(x), strided(mask), strided(weight), strided(bias)), wanted)
    one_and_two_threads(lambda: [run(x, mask, weight, bias)])


def test_opcheck_and_graphs() -> None:
    x, mask, weight, bias = inputs()
    options = (list(STRIDE), list(PADDING))
    op = torch.ops.detc.masked_conv2d.default
    check_op(op, (x, mask, weight, bias, *options), (x[:0], mask[:0], weight, None, *options))
    check_graph(run, (x, mask, weight, bias), "masked_conv2d")
    trains_in_graphs(lambda a, w, b: run(a, mask, w, b), (x, weight, bias))


def test_wrong_shapes_are_the_users_error() -> None:
    x, mask, weight, bias = inputs()
    with pytest.raises(ValueError, match="output position"):
        run(x, mask[:, 1:], weight, bias)
    with pytest.raises(ValueError, match="input channels"):
        run(x[:, :2], mask, weight, bias)
    with pytest.raises(ValueError, match="bias is"):
        run(x, mask, weight, bias[:2])
