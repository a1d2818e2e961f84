"""deform_conv2d: kernel against torchvision and the reference, gradients, edges and graphs."""

from __future__ import annotations

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from detc.nativeops import ops
from detc.nativeops.reference.deform_conv2d import deform_conv2d as reference
from detc.nativeops.reference.deform_conv2d import output_size
from tests.nativeops.checks import one_and_two_threads, relative_error, strided, trains_in_graphs
from tests.nativeops.op_checks import check_graph, check_op, require_native

STRIDE, PADDING, DILATION = (2, 1), (1, 0), (1, 2)


def inputs(
    images: int = 2,
    per_group: int = 4,
    groups: int = 2,
    offset_groups: int = 2,
    filters: int = 3,
    size: tuple[int, int] = (7, 9),
    kernel: tuple[int, int] = (3, 2),
    modulated: bool = True,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> dict[str, Tensor | None]:
    g = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64).to(dtype)

    channels, taps = per_group * groups * offset_groups, kernel[0] * kernel[1]
    out = [
        output_size(n, k, s, p, d)
        for n, k, s, p, d in zip(size, kernel, STRIDE, PADDING, DILATION, strict=True)
    ]
    return {
        "x": randn(images, channels, *size),
        "offset": randn(images, 2 * offset_groups * taps, *out) * 2,
        "weight": randn(filters * groups, channels // groups, *kernel),
        "bias": randn(filters * groups),
        "mask": randn(images, offset_groups * taps, *out).sigmoid() if modulated else None,
    }


def run(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None) -> Tensor:
    return ops.deform_conv2d(
        x, offset, weight, bias, mask=mask, stride=STRIDE, padding=PADDING, dilation=DILATION
    )


def run_reference(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None
) -> Tensor:
    return reference(x, offset, weight, bias, mask, STRIDE, PADDING, DILATION)


def run_peer(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None) -> Tensor:
    return torchvision.ops.deform_conv2d(x, offset, weight, bias, STRIDE, PADDING, DILATION, mask)


def test_the_native_kernel_is_tested() -> None:
    require_native("deform_conv2d", "deform_conv2d_backward")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(0, 3),
    per_group=st.sampled_from([1, 3, 8, 40]),
    groups=st.integers(1, 3),
    offset_groups=st.integers(1, 3),
    filters=st.sampled_from([1, 5, 33]),
    height=st.integers(5, 14),
    width=st.integers(5, 14),
    kernel=st.sampled_from([(1, 1), (3, 3), (2, 3)]),
    modulated=st.booleans(),
)
def test_equals_torchvision(
    seed: int,
    images: int,
    per_group: int,
    groups: int,
    offset_groups: int,
    filters: int,
    height: int,
    width: int,
    kernel: tuple[int, int],
    modulated: bool,
) -> None:
    args = inputs(
        images, per_group, groups, offset_groups, filters, (height, width), kernel, modulated, seed=seed
    )
    got, wanted = run(**args), run_reference(**args)
    assert got.shape == wanted.shape
    assert relative_error(got, wanted) < 1e-5
    if images:  # torchvision refuses an empty batch
        assert relative_error(got, run_peer(**args)) < 1e-5


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize(("groups", "offset_groups"), [(1, 1), (2, 1), (1, 3), (2, 2)])
def test_gradients_equal_torchvision(groups: int, offset_groups: int, modulated: bool) -> None:
    args = inputs(per_group=35, groups=groups, offset_groups=offset_groups, modulated=modulated)
    leaves = {k: v.requires_grad_() for k, v in args.items() if v is not None}
    every = {**dict.fromkeys(args), **leaves}
    out, peer = run(**every), run_peer(**every)
    grad = torch.randn_like(out)
    got = torch.autograd.grad(out, list(leaves.values()), grad)
    wanted = torch.autograd.grad(peer, list(leaves.values()), grad)
    assert max(relative_error(a, b) for a, b in zip(got, wanted, strict=True)) < 1e-4


def test_gradcheck() -> None:
    args = inputs(1, 1, 2, 2, 1, (4, 5), (2, 2), dtype=torch.float64)
    leaves = [t.requires_grad_() for t in args.values() if t is not None]
    assert gradcheck(run, leaves)


@pytest.mark.parametrize("modulated", [False, True])
def test_opcheck(modulated: bool) -> None:
    args = inputs(modulated=modulated)
    x, offset, weight, bias, mask = args.values()
    geometry = (list(STRIDE), list(PADDING), list(DILATION))
    assert x is not None
    check_op(
        torch.ops.detc.deform_conv2d.default, (x.requires_grad_(), offset, weight, bias, mask, *geometry)
    )
    grad = torch.randn_like(run_reference(**args)).detach()
    check_op(
        torch.ops.detc.deform_conv2d_backward.default, (grad, x.detach(), offset, weight, mask, *geometry)
    )


def test_graphs() -> None:
    tensors = [t for t in inputs().values() if t is not None]
    check_graph(run, tensors, "deform_conv2d")
    trains_in_graphs(run, tensors)
    plain = [t for t in inputs(modulated=False).values() if t is not None]
    check_graph(lambda *a: run(*a, None), plain, "deform_conv2d")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits(dtype: torch.dtype) -> None:
    args = inputs(dtype=dtype)
    got = run(**args)
    assert got.dtype == dtype
    wanted = run_reference(**{k: v.float() for k, v in args.items() if v is not None})
    assert relative_error(got, wanted) < (2e-3 if dtype == torch.float16 else 2e-2)


def test_strange_offsets_read_zero() -> None:
    args = inputs()
    clean = run(**args)
    x, offset = args["x"], args["offset"]
    assert x is not None
    assert offset is not None
    offset[0, 0, 0, 0], offset[0, 1, 1, 1], offset[0, 5, 0, 1] = torch.nan, torch.inf, -torch.inf
    offset[0, 7, 1, 0] = 1e30
    leaves = [x.requires_grad_(), offset.requires_grad_()]
    got = run(**args)
    assert got.isfinite().all()
    assert torch.equal(got[1], clean[1])
    torch.testing.assert_close(got, run_reference(**args), atol=1e-4, rtol=1e-4)
    for grad in torch.autograd.grad(got.sum(), leaves):
        assert grad.isfinite().all()


def test_nan_in_the_image_stays_where_it_is_read() -> None:
    args = inputs(offset_groups=1, groups=1)
    assert args["x"] is not None
    assert args["offset"] is not None
    args["offset"].zero_()
    args["x"][0, 0, 0, 0] = torch.nan
    got = run(**args)
    assert got[0, :, 0, 0].isnan().all()
    assert got[1].isfinite().all()


def test_not_contiguous() -> None:
    args = inputs()
    views = {k: None if v is None else strided(v) for k, v in args.items()}
    assert torch.equal(run(**views), run(**args))
    assert args["x"] is not None
    last = {**args, "x": args["x"].contiguous(memory_format=torch.channels_last)}
    assert torch.equal(run(**last), run(**args))


def test_threads_do_not_change_the_result() -> None:
    args = inputs(per_group=40, size=(30, 31))
    leaves = [t.requires_grad_() for t in args.values() if t is not None]
    grad = torch.randn_like(run(*leaves))

    def results() -> tuple[Tensor, ...]:
        out = run(*leaves)
        return (out.detach(), *torch.autograd.grad(out, leaves, grad))

    one_and_two_threads(results)


def test_wrong_shapes_are_the_users_error() -> None:
    x, offset, weight, bias, mask = inputs().values()
    assert x is not None
    assert offset is not None
    assert weight is not None
    assert mask is not None
    with pytest.raises(ValueError, match="offset is"):
        run(x, offset[:, :, :1], weight, bias, None)
    with pytest.raises(ValueError, match="channels: need"):
        run(x, offset[:, :5], weight, bias, None)
    with pytest.raises(ValueError, match="does not fit"):
        run(x[:, :7], offset, weight, bias, mask)
    with pytest.raises(ValueError, match="mask is"):
        run(x, offset, weight, bias, mask[:1])
    with pytest.raises(ValueError, match="padding"):
        ops.deform_conv2d(x, offset, weight, padding=-1)
    with pytest.raises(ValueError, match="bias is"):
        run(x, offset, weight, torch.ones(2), None)
