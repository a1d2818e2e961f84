"""``detc::point_sample`` and its gradient."""

from __future__ import annotations

from typing import Any

import torch

from detc.nativeops.ops._common import cast, check, check_device, gradients_of, widest
from detc.nativeops.reference.point_sample import point_sample as reference
from detc.nativeops.registry import native_op


def _reference_backward(
    grad: torch.Tensor, x: torch.Tensor, points: torch.Tensor, align_corners: bool
) -> tuple[torch.Tensor, ...]:
    return gradients_of(lambda a, p: reference(a, p, align_corners), (x, points), grad)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, points, ctx.align_corners = inputs
    ctx.save_for_backward(x, points)


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    return (*_grad_op(grad, *ctx.saved_tensors, ctx.align_corners), None)


_grad_op = native_op(
    "point_sample_backward(Tensor grad, Tensor x, Tensor points, bool align_corners) -> (Tensor, Tensor)",
    reference=_reference_backward,
    fake=lambda grad, x, points, align_corners: (x.new_empty(x.shape), x.new_empty(points.shape)),
)
_op = native_op(
    "point_sample(Tensor x, Tensor points, bool align_corners) -> Tensor",
    reference=reference,
    fake=lambda x, points, align_corners: x.new_empty((x.shape[0], x.shape[1], points.shape[1])),
    setup_context=_setup_context,
    backward=_backward,
)


def point_sample(
    x_BCHW: torch.Tensor, points_BP2: torch.Tensor, *, align_corners: bool = False
) -> torch.Tensor:
    """Bilinear samples ``[B, C, P]`` at (x, y) points in [0, 1] (PointRend, Kirillov et al. 2020).

    Args:
        x_BCHW: feature map or mask logits.
        points_BP2: 0 and 1 are the edges of the map, or, with ``align_corners``, the centres of its
            outermost pixels. Points outside, and NaN, read zero.

    Differentiable in both. Mixed dtypes are computed in the widest; the result has ``x``'s dtype.

    Raises:
        ValueError: shapes or devices that do not fit. TypeError: no floating-point numbers.
    """
    check("point_sample", "x", x_BCHW, "[B, C, H, W]")
    check_device("point_sample", x_BCHW, points_BP2)
    if points_BP2.dim() != 3 or points_BP2.shape[0] != x_BCHW.shape[0] or points_BP2.shape[2] != 2:
        raise ValueError(f"points must be [{x_BCHW.shape[0]}, P, 2], got {tuple(points_BP2.shape)}")
    wide = widest(x_BCHW, points_BP2)
    return cast(_op(cast(x_BCHW, wide), cast(points_BP2, wide), align_corners), x_BCHW.dtype)
