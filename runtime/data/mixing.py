"""Samples made of several: mosaic, mixup, copy-paste."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from detc.runtime.data import pixels
from detc.runtime.data.masks import MaskList
from detc.runtime.data.sample import Sample
from detc.runtime.data.steps.resize import target

Array = np.ndarray[Any, Any]


def fit(height: int, width: int, box_height: int, box_width: int) -> tuple[int, int]:
    """The largest (height, width) of the same shape inside a box; see `steps.resize.target`."""
    return target(height, width, (box_width, box_height), "fit")


def mosaic(tiles: Sequence[Sample], height: int, width: int, centre: tuple[int, int], fill: float) -> Sample:
    """Four samples around a point of a canvas of twice height x width (Bochkovskiy et al., 2020).

    Each is shrunk or enlarged to fit height x width and touches `centre` (x, y) with one corner.
    """
    cx, cy = centre
    canvas = pixels.canvas(2 * height, 2 * width, fill, tiles[0].stored)
    parts = []
    for k, tile in enumerate(tiles):
        sized = tile.resize(*fit(tile.height, tile.width, height, width))
        sized = sized.with_image(sized.image)  # whole, as a cache holds it: with or without, the same pixels
        x = cx - sized.width if k % 2 == 0 else cx
        y = cy - sized.height if k < 2 else cy
        placed = sized.place(*_visible(sized, x, y, 2 * height, 2 * width))
        left, top = max(x, 0), max(y, 0)
        canvas[:, top : top + placed.height, left : left + placed.width] = placed.image
        parts.append(_move(placed, left, top, 2 * height, 2 * width))
    return _joined(parts[0], parts, canvas)


def _visible(sample: Sample, x: int, y: int, height: int, width: int) -> tuple[int, int, int, int]:
    """Arguments of `place` that crop a sample lying at (x, y) to the canvas."""
    w = min(x + sample.width, width) - max(x, 0)
    h = min(y + sample.height, height) - max(y, 0)
    return min(x, 0), min(y, 0), h, w


def _move(sample: Sample, x: int, y: int, height: int, width: int) -> Sample:
    """Boxes and masks of a sample that lies inside a larger canvas at (x, y); pixels are left alone."""
    boxes = None if sample.boxes is None else sample.boxes + np.array([x, y, x, y], np.float32)
    masks = None if sample.masks is None else sample.masks.place(x, y, height, width)
    return replace(sample, boxes=boxes, masks=masks)


def _joined(first: Sample, parts: Sequence[Sample], image: torch.Tensor) -> Sample:
    """The pixels `image` with the objects of all parts."""
    boxes = np.concatenate([p.truth()[0] for p in parts])
    labels = np.concatenate([p.truth()[1] for p in parts])
    masks: MaskList | None = None
    if all(p.masks is not None for p in parts):
        items = tuple(m for p in parts if p.masks is not None for m in p.masks.items)
        masks = MaskList(items, image.shape[1], image.shape[2])
    return replace(
        first,
        stored=image,
        pending=None,
        boxes=boxes,
        labels=labels,
        masks=masks,
        content=tuple(image.shape[1:]),  # type: ignore[arg-type]
    ).drop_degenerate()


def mixup(
    sample: Sample,
    partner: Sample,
    box: tuple[int, int],
    zoom: float,
    flip: bool,
    at: tuple[float, float],
    fill: float,
) -> Sample:
    """The mean of a sample and a partner, with the objects of both, as in YOLOX (Ge et al., 2021).

    Args:
        box: (height, width) that the partner is fitted into, before it is scaled by `zoom`.
        at: where in the room to spare, 0..1 each for x and y, the partner is cut to the sample's size.
    """
    height, width = (max(1, int(n * zoom)) for n in box)
    h, w = fit(partner.height, partner.width, height, width)
    other = partner.resize(h, w).place(0, 0, height, width, fill)
    if flip:
        other = other.flip(horizontal=True)
    x = int(at[0] * max(width - sample.width, 0))
    y = int(at[1] * max(height - sample.height, 0))
    other = other.place(-x, -y, sample.height, sample.width, fill)
    return _joined(sample, [sample, other], pixels.blend(sample.image, other.image))


def copy_paste(sample: Sample, partner: Sample, chosen: Array, smallest: float) -> Sample:
    """Paste objects `chosen` (indices) of a partner over a sample (Ghiasi et al., CVPR 2021).

    Objects of the sample lose what is covered; those left with fewer than `smallest` pixels are dropped.
    """
    if sample.masks is None or partner.masks is None:
        raise ValueError("CopyPaste needs masks: put `Masks()` before it")
    donor = partner.resize(*fit(partner.height, partner.width, sample.height, sample.width))
    donor = donor.place(0, 0, sample.height, sample.width).select(chosen).drop_degenerate()
    assert donor.masks is not None
    if not len(donor.masks):
        return sample
    bitmaps = donor.masks.rasterise()
    cover = bitmaps.any(0)
    image = torch.where(torch.from_numpy(cover)[None], donor.image, sample.image)
    kept = replace(sample, masks=sample.masks.subtract(cover))  # type: ignore[arg-type]
    assert kept.masks is not None
    touched = np.array([not isinstance(m, list) for m in kept.masks.items], bool)
    left = np.array([m.sum() if not isinstance(m, list) else np.inf for m in kept.masks.items])
    boxes, labels = kept.truth()
    boxes = np.where(touched[:, None], kept.masks.boxes(), boxes)
    kept = replace(kept, boxes=boxes, labels=labels).select(left >= smallest)
    return _joined(sample, [kept, donor], image)
