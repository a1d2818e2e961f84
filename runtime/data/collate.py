"""From samples to a batch of few shapes.

Legend: B images, G capacity for objects, H and W the batch's canvas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from detc.runtime.data.sample import Sample

Array = np.ndarray[Any, Any]
OBJECTS = (16, 32, 64, 128, 256, 512, 1024)


def object_bucket(count: int) -> int:
    """The capacity G for at most `count` objects an image."""
    for size in OBJECTS:
        if count <= size:
            return size
    return -(-count // OBJECTS[-1]) * OBJECTS[-1]


def canvas_size(samples: Sequence[Sample], align: int, bucket: int) -> tuple[int, int]:
    """(H, W) for a batch: the largest of each side, rounded up to multiples of `align` and `bucket`."""
    step = align * -(-bucket // align)
    height, width = max(s.height for s in samples), max(s.width for s in samples)
    if all((s.height, s.width) == (height, width) for s in samples) and bucket <= 1:
        step = align
    return -(-height // step) * step, -(-width // step) * step


def collate(
    samples: Sequence[Sample],
    *,
    align: int = 1,
    bucket: int = 1,
    fill: Sequence[float] | float = 0.0,
) -> dict[str, Any]:
    """A batch in the form that the graphs take.

    Returns:
        `image`: `pixels` uint8 (or float, in evaluation) [B, 3, H, W] RGB, `size` float [B, 2] (height,
        width of the content); `truth`: `boxes` float [B, G, 4] xyxy, `labels` int64 [B, G], `valid` bool
        [B, G], and `masks` bool [B, G, H, W] if the samples have them; `meta`: a list of dicts with `id`,
        `path`, `size` (height, width of the file), `matrix` (3x3, file to canvas) and `canvas` (height, width).
    """
    height, width = canvas_size(samples, align, bucket)
    count = len(samples)
    capacity = object_bucket(max(len(s.truth()[0]) for s in samples))
    images = [s.image for s in samples]
    pixels = _filled(count, height, width, fill, images[0].dtype)
    sizes = torch.zeros(count, 2)
    boxes = torch.zeros(count, capacity, 4)
    labels = torch.zeros(count, capacity, dtype=torch.int64)
    valid = torch.zeros(count, capacity, dtype=torch.bool)
    with_masks = all(s.masks is not None for s in samples)
    masks = torch.zeros(count, capacity, height, width, dtype=torch.bool) if with_masks else None
    for b, (sample, image) in enumerate(zip(samples, images, strict=True)):
        pixels[b, :, : image.shape[1], : image.shape[2]] = image
        sizes[b] = torch.tensor(sample.content)
        boxes_N4, labels_N = sample.truth()
        n = len(boxes_N4)
        boxes[b, :n] = torch.from_numpy(np.ascontiguousarray(boxes_N4, np.float32))
        labels[b, :n] = torch.from_numpy(np.ascontiguousarray(labels_N, np.int64))
        valid[b, :n] = True
        if masks is not None and sample.masks is not None and n:
            raster = sample.masks.rasterise()
            masks[b, :n, : raster.shape[1], : raster.shape[2]] = torch.from_numpy(raster)
    truth = {"boxes": boxes, "labels": labels, "valid": valid}
    if masks is not None:
        truth["masks"] = masks
    meta = [
        {
            "id": s.record.id,
            "path": s.record.path,
            "size": (s.record.height, s.record.width),
            "matrix": s.matrix.tolist(),
            "canvas": (height, width),
        }
        for s in samples
    ]
    return {"image": {"pixels": pixels, "size": sizes}, "truth": truth, "meta": meta}


def _filled(
    count: int, height: int, width: int, fill: Sequence[float] | float, dtype: torch.dtype
) -> torch.Tensor:
    colour = torch.tensor([fill] * 3 if isinstance(fill, (int, float)) else fill, dtype=torch.float32)
    colour = (colour.round() if dtype == torch.uint8 else colour).to(dtype)
    return colour[None, :, None, None].repeat(count, 1, height, width)


def to_original(boxes: torch.Tensor, meta: Mapping[str, Any]) -> torch.Tensor:
    """Boxes [K, 4] on the canvas, back in pixels of the image file. Not for mixed samples."""
    matrix = meta["matrix"]
    scale = boxes.new_tensor([matrix[0][0], matrix[1][1]]).repeat(2)
    shift = boxes.new_tensor([matrix[0][2], matrix[1][2]]).repeat(2)
    back = (boxes - shift) / scale
    if matrix[0][0] < 0:
        back = back[:, [2, 1, 0, 3]]
    if matrix[1][1] < 0:
        back = back[:, [0, 3, 2, 1]]
    return back
