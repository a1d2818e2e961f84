"""``detc::winograd_conv2d``: dense 3x3 convolution of stride 1 with a quarter of the multiplications, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from detc.nativeops.ops._common import cast, cast_some, check_device, check_floating, pair, widest
from detc.nativeops.reference import winograd as reference
from detc.nativeops.registry import native_op

ACTIVATIONS = {"none": 0, "relu": 1, "silu": 2}


def _fake_pack(weight: torch.Tensor) -> torch.Tensor:
    O, C = weight.shape[:2]
    panels, channels = -(-O // reference.FILTERS), -(-C // reference.CHANNELS) * reference.CHANNELS
    dtype = torch.promote_types(weight.dtype, torch.float32)
    return weight.new_empty((panels, 36, channels, reference.FILTERS), dtype=dtype)


def _fake(
    x: torch.Tensor,
    weight: torch.Tensor,
    packed: torch.Tensor,
    bias: torch.Tensor | None,
    other: torch.Tensor | None,
    padding: Sequence[int],
    activation: int,
) -> torch.Tensor:
    B, H, W, _ = x.shape
    return x.new_empty((B, H + 2 * padding[0] - 2, W + 2 * padding[1] - 2, weight.shape[0]))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, weight, packed, bias, other, ctx.padding, ctx.activation = inputs
    ctx.save_for_backward(x, weight, packed, bias, other, output)


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    """A plain convolution's gradient; the filters' goes to ``weight``, never to ``packed``."""
    x, weight, packed, bias, other, output = ctx.saved_tensors
    if ctx.activation == ACTIVATIONS["relu"]:
        grad = torch.where(output > 0, grad, 0.0)
    elif ctx.activation == ACTIVATIONS["silu"]:
        sums = reference.winograd_conv2d(x, weight, packed, bias, other, ctx.padding, ACTIVATIONS["none"])
        share = sums.sigmoid()
        grad = grad * share * (1 + sums * (1 - share))
    needed = ctx.needs_input_grad
    grad_x, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
        grad.permute(0, 3, 1, 2),
        x.permute(0, 3, 1, 2),
        weight,
        [weight.shape[0]],
        [1, 1],
        ctx.padding,
        [1, 1],
        False,
        [0, 0],
        1,
        [needed[0], needed[1], bias is not None and needed[3]],
    )
    grad_x = None if grad_x is None else grad_x.permute(0, 2, 3, 1)
    return grad_x, grad_weight, None, grad_bias, grad if other is not None else None, None, None


_pack = native_op(
    "winograd_pack(Tensor weight) -> Tensor", reference=reference.winograd_pack, fake=_fake_pack
)
_op = native_op(
    "winograd_conv2d(Tensor x, Tensor weight, Tensor packed, Tensor? bias, Tensor? other, int[] padding,"
    " int activation) -> Tensor",
    reference=reference.winograd_conv2d,
    fake=_fake,
    setup_context=_setup_context,
    backward=_backward,
)


def winograd_pack(weight: torch.Tensor) -> torch.Tensor:
    """The filters as :func:`winograd_conv2d` multiplies with them: four times as large as ``weight``.

    Args:
        weight: ``[O, C, 3, 3]``; 16-bit floats are packed in float32. No gradient passes.

    Raises:
        ValueError: the filters are not 3x3. TypeError: they are no floating-point numbers.
    """
    if weight.dim() != 4 or tuple(weight.shape[2:]) != (3, 3):
        raise ValueError(f"winograd_pack: weight is {tuple(weight.shape)}, expected [O, C, 3, 3]")
    check_floating("winograd_pack", "weight", weight)
    return _pack(weight.detach() if weight.requires_grad else weight)


def winograd_conv2d(
    x_BCHW: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    packed: torch.Tensor | None = None,
    other: torch.Tensor | None = None,
    padding: int | tuple[int, int] = 1,
    activation: str = "none",
) -> torch.Tensor:
    """``activation(conv2d(x, weight, bias, padding=padding) + other)``: ``[B, O, h, w]``, channels-last in memory.

    Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, arXiv:1509.09308): on the CPU, in float32, two to
    three times as fast as a direct convolution where there are 32 channels and more, and a little less exact: to
    1e-6 of the largest output. A value that is not finite reaches all outputs of its tile. The CPU alone has a
    kernel: CUDA runs the reference, which is cuDNN's convolution.

    Args:
        x_BCHW: input; one that is channels-last is read where it lies.
        weight: ``[O, C, 3, 3]``.
        bias: ``[O]`` or None.
        packed: ``winograd_pack(weight)``, if it has been kept; else it is made, which takes about as long as an
            image of 40 x 40.
        other: added in front of the activation, of the result's shape; or None.
        padding: zeros on each side: one number or (vertical, horizontal).
        activation: none | relu | silu.

    Differentiable in ``x``, ``weight``, ``bias`` and ``other``. Mixed dtypes are computed in the widest; the
    result has ``x``'s dtype.

    Raises:
        ValueError: shapes, devices or options that do not fit. TypeError: no floating-point numbers.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"winograd_conv2d: activation is {activation!r}, expected one of {list(ACTIVATIONS)}"
        )
    paddings = pair(padding)
    fits = x_BCHW.dim() == 4 and weight.dim() == 4 and x_BCHW.shape[1] == weight.shape[1]
    if not fits or 0 in weight.shape:
        raise ValueError(
            f"winograd_conv2d: weight {tuple(weight.shape)} does not fit an input {tuple(x_BCHW.shape)}"
        )
    B, _, H, W = x_BCHW.shape
    expected = (B, weight.shape[0], H + 2 * paddings[0] - 2, W + 2 * paddings[1] - 2)
    if min(paddings) < 0 or min(expected[2:]) < 1:
        raise ValueError(f"winograd_conv2d: no output for an input {tuple(x_BCHW.shape)}, padding {paddings}")
    if other is not None and tuple(other.shape) != expected:
        raise ValueError(f"winograd_conv2d: other is {tuple(other.shape)}, expected {expected}")
    if bias is not None and tuple(bias.shape) != weight.shape[:1]:
        raise ValueError(f"winograd_conv2d: bias is {tuple(bias.shape)}, expected {tuple(weight.shape[:1])}")
    check_device("winograd_conv2d", x_BCHW, weight, bias, packed, other)
    wide = widest(x_BCHW, weight, bias, other)
    weight = cast(weight, wide)
    out = _op(
        cast(x_BCHW, wide).permute(0, 2, 3, 1),
        weight,
        winograd_pack(weight) if packed is None else packed,
        cast_some(bias, wide),
        None if other is None else cast(other, wide).permute(0, 2, 3, 1),
        paddings,
        ACTIVATIONS[activation],
    )
    return cast(out.permute(0, 3, 1, 2), x_BCHW.dtype)
