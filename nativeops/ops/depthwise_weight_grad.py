"""``detc::depthwise_weight_grad``: the part of a depthwise convolution's backward that torch is slow at on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detc.nativeops.ops._common import pair
from detc.nativeops.reference.deform_conv2d import output_size
from detc.nativeops.reference.depthwise_weight_grad import depthwise_weight_grad as reference
from detc.nativeops.registry import native_op


def _fake(grad: Tensor, x: Tensor, kernel: Sequence[int], *options: object) -> Tensor:
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    return x.new_empty((x.shape[1], 1, *kernel), dtype=wide)


_op = native_op(
    "depthwise_weight_grad(Tensor grad, Tensor x, int[] kernel, int[] stride, int[] padding, int[] dilation)"
    " -> Tensor",
    reference=reference,
    fake=_fake,
)


def depthwise_weight_grad(
    grad: Tensor,
    x: Tensor,
    *,
    kernel: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
) -> Tensor:
    """Gradient ``[C, 1, kH, kW]`` of ``conv2d(x, weight, groups=C)`` in its weight.

    Args:
        grad: ``[B, C, h, w]``, of the convolution's result.
        x: ``[B, C, H, W]``, its input, of the same dtype.
        kernel, stride, padding, dilation: of the convolution; one number or (vertical, horizontal).

    The result is float32, of float64 inputs float64. Not differentiable.

    Raises:
        ValueError: shapes that do not fit.
    """
    size, steps, pads, gaps = pair(kernel), pair(stride), pair(padding), pair(dilation)
    if x.dim() != 4 or min(*size, *steps, *gaps) < 1 or min(pads) < 0:
        raise ValueError(f"depthwise_weight_grad: x {tuple(x.shape)}, {size}, {steps}, {pads}, {gaps}")
    h, w = (
        output_size(n, *o)
        for n, o in zip(x.shape[2:], zip(size, steps, pads, gaps, strict=True), strict=True)
    )
    if tuple(grad.shape) != (*x.shape[:2], h, w):
        raise ValueError(f"grad is {tuple(grad.shape)}, expected {(*x.shape[:2], h, w)}")
    return _op(grad.detach(), x.detach(), size, steps, pads, gaps)
