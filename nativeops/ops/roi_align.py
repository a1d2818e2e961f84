"""RoIAlign over a whole pyramid in one op, and over one feature map.

B images, R rois an image (padded), C channels, L levels, P x Q output.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from detc.nativeops.ops._common import check_bool, check_device, check_floating, constant
from detc.nativeops.reference import roi_align as reference
from detc.nativeops.registry import native_op


def _fake_multilevel(
    features: Sequence[Tensor],
    rois: Tensor,
    valid: Tensor | None,
    scales: Sequence[float],
    height: int,
    width: int,
    *options: object,
) -> Tensor:
    return features[0].new_empty(rois.shape[0], rois.shape[1], features[0].shape[1], height, width)


def _setup_multilevel(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    features, rois, valid, scales, _height, _width, *options = inputs
    ctx.save_for_backward(rois, valid, *features)
    ctx.scales, ctx.options = scales, options


def _backward_multilevel(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    rois, valid, *features = ctx.saved_tensors
    grads = _multilevel_backward(grad, features, rois, valid, ctx.scales, *ctx.options)
    return grads, *[None] * 9


def _setup_single(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    feature, rois, scale, _height, _width, sampling_ratio, aligned = inputs
    ctx.save_for_backward(feature, rois)
    ctx.options = scale, sampling_ratio, aligned


def _backward_single(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    feature, rois = ctx.saved_tensors
    return _single_backward(grad, feature, rois, *ctx.options), *[None] * 6


_multilevel = native_op(
    "multilevel_roi_align(Tensor[] features, Tensor rois, Tensor? valid, float[] scales, int "
    "pooled_height, int pooled_width, int sampling_ratio, "
    "bool aligned, float canonical_scale, float canonical_level) -> Tensor",
    reference=reference.multilevel_roi_align,
    fake=_fake_multilevel,
    setup_context=_setup_multilevel,
    backward=_backward_multilevel,
)
_multilevel_backward = native_op(
    "multilevel_roi_align_backward(Tensor grad, Tensor[] features, Tensor rois, Tensor? valid, "
    "float[] scales, int sampling_ratio, bool aligned, "
    "float canonical_scale, float canonical_level) -> Tensor[]",
    reference=reference.multilevel_roi_align_backward,
    fake=lambda grad, features, *rest: [f.new_empty(f.shape) for f in features],
)
_single = native_op(
    "roi_align(Tensor feature, Tensor rois, float spatial_scale, int pooled_height, int "
    "pooled_width, int sampling_ratio, bool aligned) -> Tensor",
    reference=reference.roi_align,
    fake=lambda feature, rois, scale, height, width, *rest: feature.new_empty(
        rois.shape[0], feature.shape[1], height, width
    ),
    setup_context=_setup_single,
    backward=_backward_single,
)
_single_backward = native_op(
    "roi_align_backward(Tensor grad, Tensor feature, Tensor rois, float spatial_scale, int "
    "sampling_ratio, bool aligned) -> Tensor",
    reference=reference.roi_align_backward,
    fake=lambda grad, feature, *rest: feature.new_empty(feature.shape),
)


MOST_LEVELS = 8


def size_pair(output_size: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) of a pooled output, from one number or two.

    Raises:
        ValueError: not one or two positive numbers.
    """
    pair = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"output_size must be one or two positive integers: {output_size!r}")
    return int(pair[0]), int(pair[1])


def coordinates_like(rois: Tensor, feature: Tensor) -> Tensor:
    """Rois in the type coordinates are computed in: float64 for float64 features, float32 for all others.
    Carries no gradient."""
    return constant(rois, torch.float64 if feature.dtype == torch.float64 else torch.float32)


def multilevel_roi_align(
    features: Sequence[Tensor],
    rois: Tensor,
    *,
    output_size: int | Sequence[int],
    strides: Sequence[float],
    sampling_ratio: int = 0,
    aligned: bool = True,
    valid: Tensor | None = None,
    canonical_scale: float = 224.0,
    canonical_level: float = 4.0,
) -> Tensor:
    """RoIAlign (arXiv 1703.06870) with the level of each roi chosen by its size (FPN, arXiv 1612.03144, eq.
    1).

    ``level = floor(canonical_level + log2(sqrt(area) / canonical_scale) + 1e-6)``, clamped to the levels
    given, where a map of stride s is level log2(s): torchvision's rule. Differentiable in the features, not
    in the rois.

    Args:
        features: L maps ``[B, C, H_l, W_l]``, fine to coarse; float32/64, float16 or bfloat16.
        rois: ``[B, R, 4]`` x1 y1 x2 y2 in image pixels, padded.
        output_size: P x Q.
        strides: pixels of the image a pixel of each map.
        sampling_ratio: samples a bin and axis; 0 takes ceil(bin size).
        aligned: shift by half a pixel, so that pixel centres are at +0.5 (False is the original behaviour,
            with rois at least one pixel wide).
        valid: ``[B, R]`` bool. An invalid roi, like one with a NaN or infinite coordinate, gives zeros and no
            gradient.

    Returns:
        ``[B, R, C, P, Q]``, dtype of the features.

    Raises:
        ValueError: shapes, devices or numbers that do not fit. TypeError: dtypes that do not.
    """
    features = list(features)
    if not features or len(features) != len(strides):
        raise ValueError(f"{len(features)} feature maps need as many strides: {list(strides)}")
    if (
        any(f.dim() != 4 for f in features)
        or rois.dim() != 3
        or rois.shape[-1] != 4
        or any(f.shape[:2] != features[0].shape[:2] for f in features[1:])
        or rois.shape[0] != features[0].shape[0]
    ):
        raise ValueError(
            f"features must be [B, C, H, W], of one B and C, and rois [B, R, 4]: "
            f"{[tuple(f.shape) for f in features]}, {tuple(rois.shape)}"
        )
    if len(features) > MOST_LEVELS:
        raise ValueError(f"at most {MOST_LEVELS} levels, got {len(features)}")
    check_floating("multilevel_roi_align", "features", features[0])
    if any(f.dtype != features[0].dtype for f in features[1:]):
        raise TypeError(f"features must be of one dtype: {[f.dtype for f in features]}")
    if valid is not None:
        check_bool("multilevel_roi_align", "valid", valid)
        if valid.shape != rois.shape[:2]:
            raise ValueError(f"valid must be [B, R] for rois {tuple(rois.shape)}, got {tuple(valid.shape)}")
    check_device("multilevel_roi_align", *features, rois, valid)
    if min(strides) <= 0 or sampling_ratio < 0:
        raise ValueError(
            f"strides must be positive and sampling_ratio not negative: {list(strides)}, {sampling_ratio}"
        )
    P, Q = size_pair(output_size)
    scales = [1.0 / s for s in strides]
    rois = coordinates_like(rois, features[0])
    return _multilevel(
        features,
        rois,
        valid,
        scales,
        P,
        Q,
        sampling_ratio,
        aligned,
        float(canonical_scale),
        float(canonical_level),
    )


def roi_align(
    feature: Tensor,
    rois: Tensor,
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    aligned: bool = False,
) -> Tensor:
    """RoIAlign over one map, as ``torchvision.ops.roi_align``.

    Args:
        feature: ``[B, C, H, W]``.
        rois: ``[R, 5]``: image index, x1 y1 x2 y2. A roi of no image (index outside 0..B-1) or with a NaN or
            infinite coordinate gives zeros.
        output_size, sampling_ratio, aligned: as in ``multilevel_roi_align``; ``spatial_scale`` is 1 / stride.

    Returns:
        ``[R, C, P, Q]``. Differentiable in the feature.

    Raises:
        ValueError: shapes, devices or numbers that do not fit. TypeError: features that are no floating-point numbers.
    """
    if feature.dim() != 4 or rois.dim() != 2 or rois.shape[1] != 5:
        raise ValueError(
            f"feature must be [B, C, H, W] and rois [R, 5]: {tuple(feature.shape)}, {tuple(rois.shape)}"
        )
    if not math.isfinite(spatial_scale) or spatial_scale <= 0:
        raise ValueError(f"spatial_scale must be positive: {spatial_scale}")
    P, Q = size_pair(output_size)
    check_floating("roi_align", "feature", feature)
    check_device("roi_align", feature, rois)
    return _single(
        feature, coordinates_like(rois, feature), spatial_scale, P, Q, max(sampling_ratio, 0), aligned
    )
