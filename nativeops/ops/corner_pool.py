"""``detc::corner_pool`` and its gradient."""

from __future__ import annotations

from typing import Any

import torch

from detc.nativeops.ops._common import check, check_floating, gradients_of
from detc.nativeops.reference.corner_pool import DIRECTIONS
from detc.nativeops.reference.corner_pool import corner_pool as reference
from detc.nativeops.registry import native_op


def _reference_backward(grad: torch.Tensor, x: torch.Tensor, direction: str) -> torch.Tensor:
    return gradients_of(lambda a: reference(a, direction), (x,), grad)[0]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, ctx.direction = inputs
    ctx.save_for_backward(x)


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    return _grad_op(grad, ctx.saved_tensors[0], ctx.direction), None


_grad_op = native_op(
    "corner_pool_backward(Tensor grad, Tensor x, str direction) -> Tensor",
    reference=_reference_backward,
    fake=lambda grad, x, direction: x.new_empty(x.shape),
)
_op = native_op(
    "corner_pool(Tensor x, str direction) -> Tensor",
    reference=reference,
    fake=lambda x, direction: x.new_empty(x.shape),
    setup_context=_setup_context,
    backward=_backward,
)


def corner_pool(x_BCHW: torch.Tensor, direction: str) -> torch.Tensor:
    """Running maximum along one axis (Law and Deng, "CornerNet", 2018): same shape as the input.

    Args:
        x_BCHW: features.
        direction: ``top`` (``max x[y:]``), ``bottom`` (``max x[:y+1]``), ``left`` (``max x[..., x:]``) or
            ``right`` (``max x[..., :x+1]``).

    NaN propagates. The gradient goes to the maximum, on ties to the one nearest to the output.

    Raises:
        ValueError: unknown direction, or another number of axes. TypeError: no floating-point numbers.
    """
    if direction not in DIRECTIONS:
        raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)}, got {direction!r}")
    check("corner_pool", "x", x_BCHW, "[B, C, H, W]")
    check_floating("corner_pool", "x", x_BCHW)
    return _op(x_BCHW, direction)
