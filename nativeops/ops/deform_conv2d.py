"""``detc::deform_conv2d`` and its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from detc.nativeops.ops._common import cast, cast_some, check, check_device, gradients_of, pair, widest
from detc.nativeops.reference.deform_conv2d import deform_conv2d as reference
from detc.nativeops.reference.deform_conv2d import output_size
from detc.nativeops.registry import native_op

_Ints = Sequence[int]


def _reference_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    offset: torch.Tensor,
    weight: torch.Tensor,
    mask: torch.Tensor | None,
    stride: _Ints,
    padding: _Ints,
    dilation: _Ints,
) -> tuple[torch.Tensor, ...]:
    def run(x: Any, offset: Any, weight: Any, mask: Any) -> torch.Tensor:
        return reference(x, offset, weight, None, mask, stride, padding, dilation)

    grads = gradients_of(run, (x, offset, weight, mask), grad)
    return grads if mask is not None else (*grads, x.new_empty(0))


def _fake_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    offset: torch.Tensor,
    weight: torch.Tensor,
    mask: torch.Tensor | None,
    stride: _Ints,
    padding: _Ints,
    dilation: _Ints,
) -> tuple[torch.Tensor, ...]:
    grad_mask = x.new_empty(0) if mask is None else x.new_empty(mask.shape)
    return x.new_empty(x.shape), x.new_empty(offset.shape), x.new_empty(weight.shape), grad_mask


def _fake(
    x: torch.Tensor,
    offset: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    mask: torch.Tensor | None,
    stride: _Ints,
    padding: _Ints,
    dilation: _Ints,
) -> torch.Tensor:
    return x.new_empty((x.shape[0], weight.shape[0], offset.shape[2], offset.shape[3]))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, offset, weight, _, mask, *ctx.geometry = inputs
    ctx.save_for_backward(x, offset, weight, mask)


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    x, offset, weight, mask = ctx.saved_tensors
    grad_x, grad_offset, grad_weight, grad_mask = _grad_op(grad, x, offset, weight, mask, *ctx.geometry)
    grad_bias = grad.sum((0, 2, 3)) if ctx.needs_input_grad[3] else None
    return grad_x, grad_offset, grad_weight, grad_bias, None if mask is None else grad_mask, None, None, None


_grad_op = native_op(
    "deform_conv2d_backward(Tensor grad, Tensor x, Tensor offset, Tensor weight, Tensor? mask, int[] stride,"
    " int[] padding, int[] dilation) -> (Tensor, Tensor, Tensor, Tensor)",
    reference=_reference_backward,
    fake=_fake_backward,
)

_op = native_op(
    "deform_conv2d(Tensor x, Tensor offset, Tensor weight, Tensor? bias, Tensor? mask, int[] stride,"
    " int[] padding, int[] dilation) -> Tensor",
    reference=reference,
    fake=_fake,
    setup_context=_setup_context,
    backward=_backward,
)


def deform_conv2d(
    x_BCHW: torch.Tensor,
    offset: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Deformable convolution v1, and v2 with a mask (Dai et al. 2017; Zhu et al. 2019): ``[B, O, oH, oW]``.

    Args:
        x_BCHW: input.
        offset: ``[B, 2*G*kH*kW, oH, oW]``: (dy, dx) in pixels of each tap, for each of ``G`` offset groups.
            Samples outside of the image, at NaN and at infinite offsets read zero.
        weight: ``[O, C/groups, kH, kW]``; groups and offset groups are read off the shapes.
        bias: ``[O]`` or None.
        stride, padding, dilation: one number or (vertical, horizontal).
        mask: ``[B, G*kH*kW, oH, oW]`` modulation, or None.

    Mixed dtypes (autocast) are computed in the widest; the result has ``x``'s dtype. Differentiable in all
    tensors. Semantics are those of ``torchvision.ops.deform_conv2d``.

    Raises:
        ValueError: shapes or devices that do not fit each other. TypeError: no floating-point numbers.
    """
    strides, paddings, dilations = pair(stride), pair(padding), pair(dilation)
    _check(x_BCHW, offset, weight, bias, mask, strides, paddings, dilations)
    wide = widest(x_BCHW, offset, weight, bias, mask)
    out = _op(
        cast(x_BCHW, wide),
        cast(offset, wide),
        cast(weight, wide),
        cast_some(bias, wide),
        cast_some(mask, wide),
        strides,
        paddings,
        dilations,
    )
    return cast(out, x_BCHW.dtype)


def _check(
    x: torch.Tensor,
    offset: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    mask: torch.Tensor | None,
    stride: _Ints,
    padding: _Ints,
    dilation: _Ints,
) -> None:
    check("deform_conv2d", "x", x, "[B, C, H, W]")
    check("deform_conv2d", "offset", offset, "[B, 2*G*kH*kW, oH, oW]")
    check("deform_conv2d", "weight", weight, "[O, C/groups, kH, kW]")
    check_device("deform_conv2d", x, offset, weight, bias, mask)
    B, C, H, W = x.shape
    O, per_group, kH, kW = weight.shape
    if min(C, O, per_group, kH, kW) < 1:
        raise ValueError(f"weight {tuple(weight.shape)} for {C} channels: no axis may be empty")
    if bias is not None and tuple(bias.shape) != (O,):
        raise ValueError(f"bias is {tuple(bias.shape)}, expected {(O,)}")
    if min(*stride, *dilation) < 1 or min(padding) < 0:
        raise ValueError(
            f"stride and dilation must be >= 1 and padding >= 0: {stride}, {dilation}, {padding}"
        )
    if C % per_group or O % (C // per_group):
        raise ValueError(f"weight {tuple(weight.shape)} does not fit {C} input channels")
    size = [
        output_size(n, k, s, p, d)
        for n, k, s, p, d in zip((H, W), (kH, kW), stride, padding, dilation, strict=True)
    ]
    if offset.shape[1] % (2 * kH * kW) or offset.shape[1] == 0 or C % (offset.shape[1] // (2 * kH * kW)):
        raise ValueError(f"offset has {offset.shape[1]} channels: need 2*{kH}*{kW} times a divisor of {C}")
    if [B, *size] != [offset.shape[0], *offset.shape[2:]]:
        raise ValueError(f"offset is {tuple(offset.shape)}, the output {B} images of {size[0]} x {size[1]}")
    if mask is not None and tuple(mask.shape) != (B, offset.shape[1] // 2, *size):
        raise ValueError(f"mask is {tuple(mask.shape)}, expected {(B, offset.shape[1] // 2, *size)}")
