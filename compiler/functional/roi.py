"""Features of regions.

Shape legend: B images, K regions, C channels, S output size.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from detc.nativeops import ops


def roi_align(
    feats: list[Tensor],
    rois: Any,
    *,
    size: int,
    strides: list[float],
    sampling: int,
    aligned: bool,
    canonical_size: float,
    canonical_level: float,
) -> Tensor:
    """`RoIAlign` over a pyramid: each region from the level that fits its size.

    Args:
        feats: maps [B, C, H, W], finest first; those beyond `strides` are not used.
        rois: boxes [B, K, 4] in pixels of the input, or proposals; slots that are not valid give zeros.

    Returns:
        [B, K, C, size, size].
    """
    boxes_BK4, valid_BK = (rois["boxes"], rois["valid"]) if isinstance(rois, dict) else (rois, None)
    return ops.multilevel_roi_align(
        feats[: len(strides)],
        boxes_BK4.to(feats[0].dtype),
        output_size=size,
        strides=strides,
        sampling_ratio=sampling,
        aligned=aligned,
        valid=valid_BK,
        canonical_scale=canonical_size,
        canonical_level=canonical_level,
    )
