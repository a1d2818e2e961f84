"""``detc::deform_roi_pool`` and its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from detc.nativeops.ops._common import (
    cast,
    cast_some,
    check,
    check_device,
    constant,
    gradients_of,
    pair,
    widest,
)
from detc.nativeops.reference.deform_roi_pool import deform_roi_pool as _pool
from detc.nativeops.registry import native_op


def _reference(
    x: torch.Tensor,
    rois: torch.Tensor,
    offset: torch.Tensor | None,
    output_size: Sequence[int],
    spatial_scale: float,
    sampling: int,
    gamma: float,
) -> torch.Tensor:
    return _pool(x, rois, offset, (output_size[0], output_size[1]), spatial_scale, sampling, gamma)


def _reference_backward(
    grad: torch.Tensor, x: torch.Tensor, rois: torch.Tensor, offset: torch.Tensor | None, *options: Any
) -> tuple[torch.Tensor, ...]:
    grads = gradients_of(lambda a, o: _reference(a, rois, o, *options), (x, offset), grad)
    return grads if offset is not None else (*grads, x.new_empty(0))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, rois, offset, *ctx.options = inputs
    ctx.save_for_backward(x, rois, offset)


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    x, rois, offset = ctx.saved_tensors
    grad_x, grad_offset = _grad_op(grad, x, rois, offset, *ctx.options)
    return grad_x, None, None if offset is None else grad_offset, None, None, None, None


_grad_op = native_op(
    "deform_roi_pool_backward(Tensor grad, Tensor x, Tensor rois, Tensor? offset, int[] output_size,"
    " float spatial_scale, int sampling, float gamma) -> (Tensor, Tensor)",
    reference=_reference_backward,
    fake=lambda grad, x, rois, offset, output_size, spatial_scale, sampling, gamma: (
        x.new_empty(x.shape),
        x.new_empty(0 if offset is None else offset.shape),
    ),
)
_op = native_op(
    "deform_roi_pool(Tensor x, Tensor rois, Tensor? offset, int[] output_size, float spatial_scale,"
    " int sampling, float gamma) -> Tensor",
    reference=_reference,
    fake=lambda x, rois, offset, output_size, spatial_scale, sampling, gamma: x.new_empty(
        (rois.shape[0], x.shape[1], output_size[0], output_size[1])
    ),
    setup_context=_setup_context,
    backward=_backward,
)


def deform_roi_pool(
    x_BCHW: torch.Tensor,
    rois_N5: torch.Tensor,
    offset_N2pq: torch.Tensor | None = None,
    *,
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling: int = 0,
    gamma: float = 0.1,
) -> torch.Tensor:
    """Half-pixel aligned RoIAlign whose bins move by learned offsets (Dai et al. 2017): ``[N, C, p, q]``.

    Args:
        x_BCHW: one feature map.
        rois_N5: image index, x1, y1, x2, y2 in pixels of the image. An index outside of ``[0, B)`` or a
            coordinate that is not finite gives zeros.
        offset_N2pq: (dx, dy) of each bin in units of ``gamma`` times the roi's size, or None for none.
        output_size: bins, one number or ``(p, q)``.
        spatial_scale: feature pixels an image pixel.
        sampling: samples a bin and axis; 0 takes ``ceil(roi size / bins)``, at most what a roi of the whole
            feature map would take (so a broken roi cannot stall a step).
        gamma: scale of the offsets.

    Differentiable in the features and the offsets. Mixed dtypes are computed in the widest; the result has
    ``x``'s dtype.

    Raises:
        ValueError: shapes, devices or options that do not fit. TypeError: no floating-point numbers.
    """
    bins = pair(output_size)
    check("deform_roi_pool", "x", x_BCHW, "[B, C, H, W]")
    check_device("deform_roi_pool", x_BCHW, rois_N5, offset_N2pq)
    if rois_N5.dim() != 2 or rois_N5.shape[1] != 5:
        raise ValueError(f"rois must be [N, 5], got {tuple(rois_N5.shape)}")
    if min(bins) < 1 or sampling < 0:
        raise ValueError(f"output_size must be positive and sampling not negative: {bins}, {sampling}")
    if offset_N2pq is not None and tuple(offset_N2pq.shape) != (rois_N5.shape[0], 2, *bins):
        raise ValueError(f"offset is {tuple(offset_N2pq.shape)}, expected {(rois_N5.shape[0], 2, *bins)}")
    wide = widest(x_BCHW, rois_N5, offset_N2pq)
    offset = cast_some(offset_N2pq, wide)
    out = _op(
        cast(x_BCHW, wide),
        constant(rois_N5, wide),
        offset,
        bins,
        float(spatial_scale),
        sampling,
        float(gamma),
    )
    return cast(out, x_BCHW.dtype)
