"""Boxes as tensors: clipping, and the (dx, dy, dw, dh) code of R-CNN.

Boxes are xyxy in pixels, without the "+1" of old. Shape legend: B images, N boxes, C classes.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

SMALLEST = 1e-6  # pixels; widths below it (padding slots) are raised to it, so that no code is infinite
LARGEST_GROWTH = math.log(1000.0 / 16)


def clip_boxes(boxes: Tensor, size_B2: Tensor) -> Tensor:
    """Boxes [B, ..., 4] moved inside their images; `size_B2` holds (height, width)."""
    size = size_B2.to(boxes.dtype)
    ones = [1] * (boxes.dim() - 2)
    high = size.flip(-1).repeat(1, 2).view(size.shape[0], *ones, 4)
    return torch.minimum(boxes.clamp(min=0), high)


def large_enough(boxes: Tensor, min_size: float, strict: bool = False) -> Tensor:
    """True where both sides are at least (with `strict`: more than) `min_size` pixels: [...] of [..., 4]."""
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    if strict:
        return (width > min_size) & (height > min_size)
    return (width >= min_size) & (height >= min_size)


def encode_deltas(anchors: Tensor, boxes: Tensor, std: list[float]) -> Tensor:
    """The code [..., 4] that turns `anchors` into `boxes` (both [..., 4]); Girshick et al., 2014, appendix C.

    `std` divides dx, dy, dw, dh; torchvision's `weights` are its reciprocals. Sides are taken as at least
    `SMALLEST`, so padding slots give finite numbers.
    """
    width, height = _sides(anchors)
    to_width, to_height = _sides(boxes)
    dx = ((boxes[..., 0] + 0.5 * to_width) - (anchors[..., 0] + 0.5 * width)) / width
    dy = ((boxes[..., 1] + 0.5 * to_height) - (anchors[..., 1] + 0.5 * height)) / height
    deltas = torch.stack((dx, dy, torch.log(to_width / width), torch.log(to_height / height)), -1)
    return deltas / deltas.new_tensor(std)


def decode_deltas(anchors: Tensor, deltas: Tensor, std: list[float]) -> Tensor:
    """The inverse of `encode_deltas`; growth is limited to 1000 / 16, as in Detectron and torchvision."""
    width, height = anchors[..., 2] - anchors[..., 0], anchors[..., 3] - anchors[..., 1]
    deltas = deltas * deltas.new_tensor(std)
    center_x = deltas[..., 0] * width + (anchors[..., 0] + 0.5 * width)
    center_y = deltas[..., 1] * height + (anchors[..., 1] + 0.5 * height)
    half_w = 0.5 * torch.exp(deltas[..., 2].clamp(max=LARGEST_GROWTH)) * width
    half_h = 0.5 * torch.exp(deltas[..., 3].clamp(max=LARGEST_GROWTH)) * height
    return torch.stack((center_x - half_w, center_y - half_h, center_x + half_w, center_y + half_h), -1)


def _sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    return width.clamp(min=SMALLEST), height.clamp(min=SMALLEST)


def delta_encode(boxes: Any, target: Any, *, std: list[float]) -> Any:
    """`DeltaEncode`: the code of the target's boxes relative to `boxes`.

    Args:
        boxes: [B, N, 4] or [N, 4], or proposals with such `boxes`.
        target: boxes [B, N, 4]; or matched truth with `boxes` [B, N, 4] and `labels` [B, N].

    Returns:
        [B, N, 4]; for matched truth its `labels`, `deltas`: a dict of `values` [B, N, 4] and `labels`, and
        its `index`, if it has one.
    """
    anchors = boxes["boxes"] if isinstance(boxes, dict) else boxes
    if isinstance(target, dict):
        values, labels = encode_deltas(anchors, target["boxes"], std), target["labels"]
        more = {"index": target["index"]} if "index" in target else {}
        return {"labels": labels, "deltas": {"values": values, "labels": labels}, **more}
    return encode_deltas(anchors, target, std)


def delta_decode(boxes: Any, deltas: Any, image: dict[str, Tensor], *, std: list[float], clip: bool) -> Any:
    """`DeltaDecode`: move and scale `boxes` by `deltas`.

    Args:
        boxes: anchors [N, 4], boxes [B, N, 4], or proposals.
        deltas: [B, N, 4]; [B, N, C, 4] for a box per class; or a list of maps [B, 4 A, H, W].
        image: whose size limits the boxes when `clip`.

    Returns:
        Boxes of the shape of `deltas`. Proposals in give proposals out, cut from the gradient; slots that
        sampling had filled with the truth itself (`given`) are no longer valid.
    """
    if isinstance(deltas, list):
        deltas = torch.cat([d.permute(0, 2, 3, 1).reshape(d.shape[0], -1, 4) for d in deltas], 1)
    anchors = boxes["boxes"] if isinstance(boxes, dict) else boxes
    if deltas.dim() == 4:
        anchors = anchors.unsqueeze(-2)
    moved = decode_deltas(anchors, deltas, std)
    if clip:
        moved = clip_boxes(moved, image["size"])
    if not isinstance(boxes, dict):
        return moved
    valid = boxes["valid"]
    if "given" in boxes:
        valid = valid & ~boxes["given"]
    return {"boxes": moved.detach(), "scores": boxes["scores"], "valid": valid}
