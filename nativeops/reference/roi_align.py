"""RoIAlign (He et al. 2017, arXiv 1703.06870) in pure torch, written with its separable weights.

A bin averages bilinear samples, and a bilinear sample's weights are a product of one weight along y and one
along x. So the whole op is ``out[r, c, p, q] = sum_yx Wy[r, p, y] * feature[image(r), c, y, x] * Wx[r, q,
x]``, and the backward is the same sum turned round.

B images, R rois (an image), C channels, H x W a feature map, P x Q the output, L levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_CHUNK = 32  # rois at a time: the intermediate is [chunk, P, C, W]


def roi_levels(
    rois: Tensor, num_levels: int, scales: Sequence[float], canonical_scale: float, canonical_level: float
) -> Tensor:
    """The level of each roi ``[..., 4]`` (Lin et al. 2017, eq. 1, as torchvision rounds it), int64 ``[...]``
    in ``0..L-1``."""
    lowest = -torch.log2(torch.tensor(scales[0], dtype=torch.float64)).round().item()
    size = torch.sqrt((rois[..., 2] - rois[..., 0]) * (rois[..., 3] - rois[..., 1]))
    level = (
        torch.floor(
            canonical_level + torch.log2(size / canonical_scale) + torch.tensor(1e-6, dtype=rois.dtype)
        )
        - lowest
    )
    return level.nan_to_num(0.0).clamp(0, num_levels - 1).long()


def axis_weights(
    start: Tensor, end: Tensor, size: int, bins: int, sampling_ratio: int, aligned: bool
) -> tuple[Tensor, Tensor]:
    """Summed bilinear weights of one axis: ``[R, bins, size]``, and how many samples a bin has ``[R]``.

    ``start``, ``end`` are the roi's ends in feature coordinates (half a pixel taken off when aligned).
    """
    length = end - start if aligned else (end - start).clamp(min=1)
    step = length / bins
    samples = torch.full_like(length, sampling_ratio) if sampling_ratio > 0 else torch.ceil(length / bins)
    # A sample further than a pixel outside the map counts as zero; beyond these many none can be inside.
    most = int(samples.clamp(0, 2 * (size + 2) * bins + 2).amax().item()) if samples.numel() else 0
    weights = start.new_zeros(len(start), bins, size)
    cell = torch.arange(size, device=start.device, dtype=start.dtype)
    first = start[:, None] + torch.arange(bins, device=start.device, dtype=start.dtype) * step[:, None]
    if sampling_ratio <= 0 and most > 64:
        # Rois many times the map: skip the samples before it (positions grow with the sample).
        skip = torch.floor(((-1 - first) / step[:, None]) * samples[:, None] - 1).clamp(min=0).nan_to_num(0.0)
        most = min(most, 2 * (size + 4))
    else:
        skip = torch.zeros_like(first)
    for i in range(most):
        number = skip + i
        at = first + (number + 0.5) * step[:, None] / samples[:, None]
        inside = (number < samples[:, None]) & (at >= -1) & (at <= size)
        at = at.clamp(0, size - 1)
        hat = (1 - (at[:, :, None] - cell).abs()).clamp(min=0)
        weights += torch.where(inside[:, :, None], hat, 0)
    return weights, samples


def _weights(
    boxes_R4: Tensor,
    scale: float,
    height: int,
    width: int,
    pooled: tuple[int, int],
    sampling_ratio: int,
    aligned: bool,
) -> tuple[Tensor, Tensor]:
    """Wy ``[R, P, H]`` (with the division by the number of samples) and Wx ``[R, Q, W]``."""
    ends = boxes_R4 * scale - (0.5 if aligned else 0.0)
    x_weights, x_count = axis_weights(ends[:, 0], ends[:, 2], width, pooled[1], sampling_ratio, aligned)
    y_weights, y_count = axis_weights(ends[:, 1], ends[:, 3], height, pooled[0], sampling_ratio, aligned)
    return y_weights / (x_count * y_count).clamp(min=1)[:, None, None], x_weights


def _usable(boxes: Tensor, images: Tensor, batch: int) -> Tensor:
    return boxes.isfinite().all(-1) & (images >= 0) & (images < batch)


def _groups(
    features: Sequence[Tensor], images: Tensor, boxes: Tensor, usable: Tensor, levels: Tensor
) -> list[tuple[int, int, Tensor]]:
    """(level, image, indices of its rois) in chunks; rois that are not usable are in none."""
    out = []
    for level in range(len(features)):
        for image in range(features[0].shape[0]):
            mine = (usable & (levels == level) & (images == image)).nonzero().squeeze(1)
            out += [(level, image, part) for part in mine.split(_CHUNK) if len(part)]
    return out


def _forward(
    features: Sequence[Tensor],
    images: Tensor,
    boxes: Tensor,
    usable: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    pooled: tuple[int, int],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    C, compute = features[0].shape[1], boxes.dtype
    out = torch.zeros(len(boxes), C, *pooled, dtype=compute, device=boxes.device)
    for level, image, part in _groups(features, images, boxes, usable, levels):
        feature = features[level][image].to(compute)
        Wy, Wx = _weights(
            boxes[part], scales[level], feature.shape[1], feature.shape[2], pooled, sampling_ratio, aligned
        )
        out[part] = torch.einsum("rpcx,rqx->rcpq", torch.einsum("rpy,cyx->rpcx", Wy, feature), Wx)
    return out.to(features[0].dtype)


def _backward(
    grad: Tensor,
    features: Sequence[Tensor],
    images: Tensor,
    boxes: Tensor,
    usable: Tensor,
    levels: Tensor,
    scales: Sequence[float],
    pooled: tuple[int, int],
    sampling_ratio: int,
    aligned: bool,
) -> list[Tensor]:
    compute = boxes.dtype
    out = [torch.zeros(f.shape, dtype=compute, device=f.device) for f in features]
    for level, image, part in _groups(features, images, boxes, usable, levels):
        height, width = features[level].shape[2:]
        Wy, Wx = _weights(boxes[part], scales[level], height, width, pooled, sampling_ratio, aligned)
        out[level][image] += torch.einsum(
            "rpy,rpcx->cyx", Wy, torch.einsum("rcpq,rqx->rpcx", grad[part].to(compute), Wx)
        )
    return [o.to(f.dtype) for o, f in zip(out, features, strict=True)]


def _padded(
    features: Sequence[Tensor],
    rois_BR4: Tensor,
    valid_BR: Tensor | None,
    scales: Sequence[float],
    canonical_scale: float,
    canonical_level: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    B, R, _ = rois_BR4.shape
    boxes = rois_BR4.reshape(-1, 4)
    images = torch.arange(B, device=boxes.device).repeat_interleave(R)
    usable = _usable(boxes, images, B)
    if valid_BR is not None:
        usable = usable & valid_BR.reshape(-1)
    return images, boxes, usable, roi_levels(boxes, len(features), scales, canonical_scale, canonical_level)


def multilevel_roi_align(
    features: Sequence[Tensor],
    rois_BR4: Tensor,
    valid_BR: Tensor | None,
    scales: Sequence[float],
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
    canonical_scale: float,
    canonical_level: float,
) -> Tensor:
    """See ``detc.nativeops.ops.multilevel_roi_align``: ``[B, R, C, P, Q]``."""
    images, boxes, usable, levels = _padded(
        features, rois_BR4, valid_BR, scales, canonical_scale, canonical_level
    )
    out = _forward(
        features,
        images,
        boxes,
        usable,
        levels,
        scales,
        (pooled_height, pooled_width),
        sampling_ratio,
        aligned,
    )
    return out.reshape(*rois_BR4.shape[:2], *out.shape[1:])


def multilevel_roi_align_backward(
    grad: Tensor,
    features: Sequence[Tensor],
    rois_BR4: Tensor,
    valid_BR: Tensor | None,
    scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
    canonical_scale: float,
    canonical_level: float,
) -> list[Tensor]:
    """Gradients of the features; ``features`` are there for their shapes."""
    images, boxes, usable, levels = _padded(
        features, rois_BR4, valid_BR, scales, canonical_scale, canonical_level
    )
    P, Q = grad.shape[-2:]
    return _backward(
        grad.flatten(0, 1),
        features,
        images,
        boxes,
        usable,
        levels,
        scales,
        (P, Q),
        sampling_ratio,
        aligned,
    )


def roi_align(
    feature: Tensor,
    rois_R5: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """See ``detc.nativeops.ops.roi_align``: ``[R, C, P, Q]``."""
    images, boxes, usable, levels = _listed(feature, rois_R5)
    return _forward(
        [feature],
        images,
        boxes,
        usable,
        levels,
        [spatial_scale],
        (pooled_height, pooled_width),
        sampling_ratio,
        aligned,
    )


def roi_align_backward(
    grad: Tensor, feature: Tensor, rois_R5: Tensor, spatial_scale: float, sampling_ratio: int, aligned: bool
) -> Tensor:
    """Gradient of the feature; ``feature`` is there for its shape."""
    images, boxes, usable, levels = _listed(feature, rois_R5)
    P, Q = grad.shape[-2:]
    return _backward(
        grad, [feature], images, boxes, usable, levels, [spatial_scale], (P, Q), sampling_ratio, aligned
    )[0]


def _listed(feature: Tensor, rois_R5: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    images = rois_R5[:, 0].nan_to_num(-1.0, posinf=-1.0, neginf=-1.0).clamp(-1, 2**31 - 1).long()
    boxes = rois_R5[:, 1:]
    return images, boxes, _usable(boxes, images, feature.shape[0]), torch.zeros_like(images)
