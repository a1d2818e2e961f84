"""RoIPool: the maximum of each bin of a roi."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from detc.nativeops.ops._common import check_device, check_floating
from detc.nativeops.ops.roi_align import coordinates_like, size_pair
from detc.nativeops.reference import roi_pool as reference
from detc.nativeops.registry import native_op


def _fake(feature: Tensor, rois: Tensor, scale: float, height: int, width: int) -> tuple[Tensor, Tensor]:
    out = feature.new_empty(rois.shape[0], feature.shape[1], height, width)
    return out, torch.empty_like(out, dtype=torch.int64)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    feature, rois, ctx.scale, _height, _width = inputs
    ctx.save_for_backward(feature, rois, output[1])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad: Tensor, _grad_argmax: Tensor) -> tuple[Any, ...]:
    feature, rois, argmax = ctx.saved_tensors
    return _roi_pool_backward(grad, feature, rois, argmax, ctx.scale), *[None] * 4


_roi_pool = native_op(
    "roi_pool(Tensor feature, Tensor rois, float scale, int height, int width) -> (Tensor, Tensor)",
    reference=reference.roi_pool,
    fake=_fake,
    setup_context=_setup,
    backward=_backward,
)
_roi_pool_backward = native_op(
    "roi_pool_backward(Tensor grad, Tensor feature, Tensor rois, Tensor argmax, float scale) -> Tensor",
    reference=reference.roi_pool_backward,
    fake=lambda grad, feature, *rest: feature.new_empty(feature.shape),
)


def roi_pool(
    feature: Tensor, rois: Tensor, output_size: int | Sequence[int], spatial_scale: float = 1.0
) -> Tensor:
    """RoIPool (arXiv 1504.08083), as ``torchvision.ops.roi_pool``.

    Args:
        feature: ``[B, C, H, W]``; float32/64, float16 or bfloat16.
        rois: ``[R, 5]``: image index, x1 y1 x2 y2. A roi of no image or with a NaN or infinite coordinate
            gives zeros, and so does an empty bin.
        output_size: P x Q. spatial_scale: 1 / stride.

    Returns:
        ``[R, C, P, Q]``. Differentiable in the feature; of equal pixels the first gets the gradient. NaN
        pixels are passed over.

    Raises:
        ValueError: shapes, devices or numbers that do not fit. TypeError: features that are no floating-point numbers.
    """
    if feature.dim() != 4 or rois.dim() != 2 or rois.shape[1] != 5:
        raise ValueError(
            f"feature must be [B, C, H, W] and rois [R, 5]: {tuple(feature.shape)}, {tuple(rois.shape)}"
        )
    if not math.isfinite(spatial_scale) or spatial_scale <= 0:
        raise ValueError(f"spatial_scale must be positive: {spatial_scale}")
    check_floating("roi_pool", "feature", feature)
    check_device("roi_pool", feature, rois)
    P, Q = size_pair(output_size)
    return _roi_pool(feature, coordinates_like(rois, feature), spatial_scale, P, Q)[0]
