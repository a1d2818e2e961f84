"""``detc::carafe`` and its gradient."""

from __future__ import annotations

from typing import Any

import torch

from detc.nativeops.ops._common import cast, check, check_device, gradients_of, widest
from detc.nativeops.reference.carafe import carafe as reference
from detc.nativeops.registry import native_op


def _reference_backward(
    grad: torch.Tensor, x: torch.Tensor, kernels: torch.Tensor, kernel_size: int, groups: int, scale: int
) -> tuple[torch.Tensor, ...]:
    return gradients_of(lambda a, k: reference(a, k, kernel_size, groups, scale), (x, kernels), grad)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, kernels, *ctx.options = inputs
    ctx.save_for_backward(x, kernels)


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    return (*_grad_op(grad, *ctx.saved_tensors, *ctx.options), None, None, None)


_grad_op = native_op(
    "carafe_backward(Tensor grad, Tensor x, Tensor kernels, int kernel_size, int groups, int scale)"
    " -> (Tensor, Tensor)",
    reference=_reference_backward,
    fake=lambda grad, x, kernels, kernel_size, groups, scale: (
        x.new_empty(x.shape),
        x.new_empty(kernels.shape),
    ),
)
_op = native_op(
    "carafe(Tensor x, Tensor kernels, int kernel_size, int groups, int scale) -> Tensor",
    reference=reference,
    fake=lambda x, kernels, kernel_size, groups, scale: x.new_empty(
        (x.shape[0], x.shape[1], x.shape[2] * scale, x.shape[3] * scale)
    ),
    setup_context=_setup_context,
    backward=_backward,
)


def carafe(
    x_BCHW: torch.Tensor, kernels: torch.Tensor, *, kernel_size: int, groups: int = 1, scale: int = 2
) -> torch.Tensor:
    """Content-aware upsampling (Wang et al., "CARAFE", 2019): ``[B, C, s*H, s*W]``.

    Args:
        x_BCHW: features.
        kernels: ``[B, G*k*k, s*H, s*W]``: a kernel for each output pixel and group, normally a softmax over
            ``k*k``.
        kernel_size: odd ``k``; neighbours outside of the map read zero.
        groups: runs of channels that share a kernel.
        scale: ``s``.

    Differentiable in both tensors. Mixed dtypes are computed in the widest; the result has ``x``'s dtype.

    Raises:
        ValueError: shapes, devices or options that do not fit. TypeError: no floating-point numbers.
    """
    check("carafe", "x", x_BCHW, "[B, C, H, W]")
    check_device("carafe", x_BCHW, kernels)
    B, C, H, W = x_BCHW.shape
    if kernel_size < 1 or kernel_size % 2 == 0 or groups < 1 or C % groups or scale < 1:
        raise ValueError(
            f"carafe: kernel_size={kernel_size}, groups={groups}, scale={scale} for {C} channels"
        )
    expected = (B, groups * kernel_size**2, H * scale, W * scale)
    if tuple(kernels.shape) != expected:
        raise ValueError(f"carafe: kernels are {tuple(kernels.shape)}, expected {expected}")
    wide = widest(x_BCHW, kernels)
    return cast(_op(cast(x_BCHW, wide), cast(kernels, wide), kernel_size, groups, scale), x_BCHW.dtype)
