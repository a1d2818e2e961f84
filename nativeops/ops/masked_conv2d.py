"""``detc::masked_conv2d``; its gradient is a plain convolution's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from detc.nativeops.ops._common import cast, cast_some, check, check_device, pair, widest
from detc.nativeops.reference.deform_conv2d import output_size
from detc.nativeops.reference.masked_conv2d import masked_conv2d as reference
from detc.nativeops.registry import native_op


def _fake(
    x: torch.Tensor,
    mask: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
) -> torch.Tensor:
    return x.new_empty((x.shape[0], weight.shape[0], mask.shape[1], mask.shape[2]))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, mask, weight, bias, ctx.stride, ctx.padding = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(x, mask, weight)


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    x, mask, weight = ctx.saved_tensors
    seen = torch.where(mask[:, None], grad, 0.0)
    wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[2], ctx.has_bias and ctx.needs_input_grad[3]]
    grad_x, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
        seen, x, weight, [weight.shape[0]], ctx.stride, ctx.padding, [1, 1], False, [0, 0], 1, wanted
    )
    return grad_x, None, grad_weight, grad_bias, None, None


_op = native_op(
    "masked_conv2d(Tensor x, Tensor mask, Tensor weight, Tensor? bias, int[] stride, int[] padding)"
    " -> Tensor",
    reference=reference,
    fake=_fake,
    setup_context=_setup_context,
    backward=_backward,
)


def masked_conv2d(
    x_BCHW: torch.Tensor,
    mask_Bhw: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
) -> torch.Tensor:
    """``conv2d(x, weight, bias)`` where ``mask > 0`` and zero elsewhere, computed only there: ``[B, O, h,
    w]``.

    Args:
        x_BCHW: input.
        mask_Bhw: one value an *output* position (bool or a number); NaN counts as unset.
        weight: ``[O, C, kH, kW]``.
        bias: ``[O]`` or None; added at set positions only.
        stride, padding: one number or (vertical, horizontal).

    Differentiable in ``x``, ``weight`` and ``bias``. Mixed dtypes are computed in the widest; the result has
    ``x``'s dtype.

    Raises:
        ValueError: shapes or devices that do not fit. TypeError: no floating-point numbers.
    """
    strides, paddings = pair(stride), pair(padding)
    check("masked_conv2d", "x", x_BCHW, "[B, C, H, W]")
    check("masked_conv2d", "weight", weight, "[O, C, kH, kW]")
    check_device("masked_conv2d", x_BCHW, mask_Bhw, weight, bias)
    B, C, H, W = x_BCHW.shape
    O, per_filter, kH, kW = weight.shape
    if C != per_filter or min(C, O, kH, kW) < 1:
        raise ValueError(f"weight {tuple(weight.shape)} does not fit {C} input channels")
    if min(strides) < 1 or min(paddings) < 0:
        raise ValueError(f"stride must be >= 1 and padding >= 0: {strides}, {paddings}")
    if bias is not None and tuple(bias.shape) != (O,):
        raise ValueError(f"bias is {tuple(bias.shape)}, expected {(O,)}")
    expected = (
        B,
        output_size(H, kH, strides[0], paddings[0], 1),
        output_size(W, kW, strides[1], paddings[1], 1),
    )
    if tuple(mask_Bhw.shape) != expected:
        raise ValueError(f"mask is {tuple(mask_Bhw.shape)}, expected {expected}: one an output position")
    wide = widest(x_BCHW, weight, bias)
    out = _op(
        cast(x_BCHW, wide),
        mask_Bhw > 0,
        cast(weight, wide),
        cast_some(bias, wide),
        strides,
        paddings,
    )
    return cast(out, x_BCHW.dtype)
