"""carafe: kernel against the reference and a plain loop, gradients, edges and graphs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from detc.nativeops import ops
from detc.nativeops.reference.carafe import carafe as reference
from tests.nativeops.checks import one_and_two_threads, relative_error, strided, trains_in_graphs
from tests.nativeops.op_checks import check_graph, check_op, require_native


def inputs(
    images: int = 2,
    per_group: int = 2,
    groups: int = 2,
    size: tuple[int, int] = (4, 5),
    kernel: int = 3,
    scale: int = 2,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(images, per_group * groups, *size, generator=g, dtype=torch.float64)
    shape = (images, groups * kernel**2, size[0] * scale, size[1] * scale)
    return x.to(dtype), torch.randn(shape, generator=g, dtype=torch.float64).to(dtype)


def test_the_native_kernel_is_tested() -> None:
    require_native("carafe", "carafe_backward")


def test_one_pixel_by_hand() -> None:
    x, kernels = inputs(1, 2, 2)
    got = ops.carafe(x, kernels, kernel_size=3, groups=2, scale=2)
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
    # output pixel (5, 4) comes from source pixel (2, 2); channel 3 is in group 1
    window = padded[0, 3, 2:5, 2:5].reshape(-1)
    assert got[0, 3, 5, 4].item() == pytest.approx((window * kernels[0, 9:18, 5, 4]).sum().item(), rel=1e-5)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(0, 3),
    per_group=st.integers(1, 4),
    groups=st.integers(1, 3),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    kernel=st.sampled_from([1, 3, 5]),
    scale=st.integers(1, 3),
)
def test_equals_the_reference(
    seed: int, images: int, per_group: int, groups: int, size: tuple[int, int], kernel: int, scale: int
) -> None:
    x, kernels = (t.requires_grad_() for t in inputs(images, per_group, groups, size, kernel, scale, seed))
    got = ops.carafe(x, kernels, kernel_size=kernel, groups=groups, scale=scale)
    wanted = reference(x, kernels, kernel, groups, scale)
    assert relative_error(got.detach(), wanted.detach()) < 1e-5
    grad = torch.randn_like(got)
    ours = torch.autograd.grad(got, (x, kernels), grad)
    theirs = torch.autograd.grad(wanted, (x, kernels), grad)
    assert max(relative_error(a, b) for a, b in zip(ours, theirs, strict=True)) < 1e-4


def test_gradcheck() -> None:
    leaves = [t.requires_grad_() for t in inputs(1, 1, 2, (2, 3), dtype=torch.float64)]
    assert gradcheck(lambda x, k: ops.carafe(x, k, kernel_size=3, groups=2), leaves)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits(dtype: torch.dtype) -> None:
    x, kernels = inputs(dtype=dtype)
    got = ops.carafe(x, kernels, kernel_size=3, groups=2)
    assert got.dtype == dtype
    wanted = reference(x.float(), kernels.float(), 3, 2, 2)
    assert relative_error(got, wanted) < (2e-3 if dtype == torch.float16 else 2e-2)


def test_nan_reaches_only_its_neighbours() -> None:
    x, kernels = inputs()
    x[0, 0, 0, 0] = torch.nan
    got = ops.carafe(x, kernels, kernel_size=3, groups=2)
    assert got[0, 0, :4, :4].isnan().all()
    assert got[0, 0, 4:].isfinite().all()
    assert got[1].isfinite().all()


def test_not_contiguous_and_threads() -> None:
    x, kernels = (t.requires_grad_() for t in inputs())

    def run(x: Tensor, kernels: Tensor) -> Tensor:
        return ops.carafe(x, kernels, kernel_size=3, groups=2)

    assert torch.equal(run(strided(x), strided(kernels)), run(x, kernels))
    one_and_two_threads(lambda: torch.autograd.grad(run(x, kernels).square().sum(), (x, kernels)))


def test_opcheck_and_graphs() -> None:
    x, kernels = inputs()
    check_op(torch.ops.detc.carafe.default, (x, kernels, 3, 2, 2), (x[:0], kernels[:0], 3, 2, 2))
    check_op(torch.ops.detc.carafe_backward.default, (torch.randn(2, 4, 8, 10), x, kernels, 3, 2, 2))
    check_graph(lambda a, k: ops.carafe(a, k, kernel_size=3, groups=2), (x, kernels), "carafe")
    trains_in_graphs(lambda a, k: ops.carafe(a, k, kernel_size=3, groups=2), (x, kernels))


def test_wrong_shapes_are_the_users_error() -> None:
    x, kernels = inputs()
    with pytest.raises(ValueError, match="expected"):
        ops.carafe(x, kernels[:, :9], kernel_size=3, groups=2)
    with pytest.raises(ValueError, match="kernel_size=2"):
        ops.carafe(x, kernels, kernel_size=2)
