"""From objects to classes: one mask for all that is of a class, and maps of class numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from detc.runtime.data.masks import Mask, MaskList, fill_polygons, from_segments
from detc.runtime.data.records import Record
from detc.runtime.data.sample import Sample

Array = np.ndarray[Any, Any]
UNKNOWN = -1  # in maps of class numbers: pixels of no class, or of a crowd


def join_classes(sample: Sample) -> Sample:
    """One object for each class that occurs, in order of labels: masks are joined, boxes go around them.

    Raises:
        ValueError: if the sample has no masks.
    """
    if sample.masks is None or sample.labels is None:
        raise ValueError("classes are joined by their masks, and no step has read those")
    labels = np.unique(sample.labels)
    masks = sample.masks
    items = tuple(_union(masks.select(sample.labels == label)) for label in labels)
    joined = MaskList(items, masks.height, masks.width)
    return replace(sample, masks=joined, labels=labels, boxes=joined.boxes())


def _union(masks: MaskList) -> Mask:
    polygons = [m for m in masks.items if isinstance(m, list)]
    if len(polygons) == len(masks):
        return [points for mask in polygons for points in mask]
    out = np.zeros((masks.height, masks.width), bool)
    for mask in masks.items:
        out |= fill_polygons(mask, masks.height, masks.width) if isinstance(mask, list) else mask
    return out


def class_map(record: Record, height: int, width: int) -> Array:
    """Class numbers int16 [height, width] of a record; `UNKNOWN` where no object is, or a crowd.

    Later objects lie on top of earlier ones.

    Raises:
        ValueError: if the record has no masks.
    """
    if record.segments is None:
        raise ValueError(f"{record.path}: its annotations have no masks")
    out = np.full((height, width), UNKNOWN, np.int16)
    for mask, label, counts in zip(
        _bitmaps(record, height, width), record.labels, record.trainable, strict=True
    ):
        out[mask] = label if counts else UNKNOWN
    return out


def segment_map(record: Record, height: int, width: int) -> tuple[Array, list[dict[str, Any]]]:
    """Segment numbers int32 [height, width] of a record, 0 where nothing is, and what each number stands for.

    Object i has number i + 1; difficult objects are void. Later objects lie on top of earlier ones, and one
    that they hide is left out of the list.

    Returns:
        The map, and dicts with `id`, `category_id` (the label) and `iscrowd`.

    Raises:
        ValueError: if the record has no masks.
    """
    if record.segments is None:
        raise ValueError(f"{record.path}: its annotations have no masks")
    out = np.zeros((height, width), np.int32)
    for i, mask in enumerate(_bitmaps(record, height, width)):
        out[mask] = 0 if record.ignore[i] else i + 1
    infos = [
        {"id": i, "category_id": int(record.labels[i - 1]), "iscrowd": int(record.crowd[i - 1])}
        for i in np.unique(out).tolist()
        if i
    ]
    return out, infos


def _bitmaps(record: Record, height: int, width: int) -> Array:
    assert record.segments is not None
    return from_segments(record.segments, height, width).rasterise()
