"""Object masks that move with the image: polygons as long as possible, bitmaps where they must be.

Flips, crops, scalings and affine maps act on the points of polygons, which costs next to nothing; pixels are
only filled at the end (`MaskList.rasterise`), with the rules of COCO's own mask code. Run-length codes and
masks that something was cut out of are bitmaps of the whole canvas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detc.runtime.data.segment_map import MapSegment

Array = np.ndarray[Any, Any]
Mask = list[Array] | Array  # polygons, float64 [P, 2] each, or a bool bitmap [H, W]


def polygon_area(points: Array) -> float:
    """The area inside a polygon, float64 [P, 2] (shoelace formula)."""
    x, y = points[:, 0], points[:, 1]
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def clip_polygon(points: Array, box: tuple[float, float, float, float]) -> Array:
    """The part of a polygon inside an axis-aligned box (Sutherland & Hodgman, 1974); perhaps empty."""
    for axis, bound, sign in ((0, box[0], 1.0), (1, box[1], 1.0), (0, box[2], -1.0), (1, box[3], -1.0)):
        if len(points) == 0:
            break
        inside = sign * (points[:, axis] - bound)
        if (inside >= 0).all():
            continue
        nxt, inside_nxt = np.roll(points, -1, 0), np.roll(inside, -1)
        out: list[Array] = []
        for p, q, a, b in zip(points, nxt, inside, inside_nxt, strict=True):
            if a >= 0:
                out.append(p)
            if (a >= 0) != (b >= 0):
                crossing = p + (q - p) * (a / (a - b))
                crossing[axis] = bound
                out.append(crossing)
        points = np.array(out, np.float64).reshape(-1, 2)
    return points if len(points) >= 3 else np.zeros((0, 2), np.float64)


def decode_rle(code: dict[str, Any], height: int, width: int) -> Array:
    """A COCO run-length code, compressed or not, as a bool bitmap [H, W].

    Raises:
        ValueError: if the code is of another size.
    """
    from pycocotools import mask as coco_mask

    if list(code["size"]) != [height, width]:
        raise ValueError(f"a mask of {code['size']} on an image of {[height, width]}")
    if isinstance(code["counts"], list):
        code = coco_mask.frPyObjects(code, height, width)
    return coco_mask.decode(code).astype(bool)


def fill_polygons(polygons: Sequence[Array], height: int, width: int) -> Array:
    """Union of the polygons as a bool bitmap [H, W], by COCO's rules."""
    from pycocotools import mask as coco_mask

    flat = [p.reshape(-1).tolist() for p in polygons if len(p) >= 3]
    if not flat:
        return np.zeros((height, width), bool)
    flat = [p if len(p) > 4 else p + p[-2:] for p in flat]  # four numbers would be read as a box
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(flat, height, width))).astype(bool)


@dataclass(frozen=True)
class MaskList:
    """Masks of the objects of one sample; `height`, `width` is their canvas. Methods return new lists."""

    items: tuple[Mask, ...]
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.items)

    def select(self, keep: Array) -> MaskList:
        """The masks at the indices, or where a bool array is True."""
        indices = np.flatnonzero(keep) if keep.dtype == bool else keep
        return MaskList(tuple(self.items[i] for i in indices), self.height, self.width)

    def join(self, other: MaskList) -> MaskList:
        """Both lists' masks, on this list's canvas."""
        assert (self.height, self.width) == (other.height, other.width)
        return MaskList(self.items + other.items, self.height, self.width)

    def flip(self, horizontal: bool) -> MaskList:
        """Mirror left-right, or top-bottom."""
        axis, extent = (0, self.width) if horizontal else (1, self.height)

        def one(mask: Mask) -> Mask:
            if not isinstance(mask, list):
                return mask[:, ::-1] if horizontal else mask[::-1]
            out = []
            for points in mask:
                turned = points.copy()
                turned[:, axis] = extent - turned[:, axis]
                out.append(turned)
            return out

        return MaskList(tuple(one(m) for m in self.items), self.height, self.width)

    def resize(self, height: int, width: int) -> MaskList:
        """Stretch to another canvas."""
        if (height, width) == (self.height, self.width):
            return self
        factor = np.array([width / self.width, height / self.height])

        def one(mask: Mask) -> Mask:
            if isinstance(mask, list):
                return [p * factor for p in mask]
            rows = ((np.arange(height) + 0.5) / factor[1]).astype(int)
            columns = ((np.arange(width) + 0.5) / factor[0]).astype(int)
            return mask[rows[:, None], columns[None]]

        return MaskList(tuple(one(m) for m in self.items), height, width)

    def place(self, x: int, y: int, height: int, width: int) -> MaskList:
        """On a canvas of height x width whose origin is moved so that the old one lies at (x, y).

        Negative x, y crop. What leaves the canvas is cut off.
        """

        def one(mask: Mask) -> Mask:
            if isinstance(mask, list):
                moved = (clip_polygon(p + (x, y), (0.0, 0.0, float(width), float(height))) for p in mask)
                return [p for p in moved if len(p)]
            out = np.zeros((height, width), bool)
            y1, x1 = max(y, 0), max(x, 0)
            y2, x2 = min(y + mask.shape[0], height), min(x + mask.shape[1], width)
            if y2 > y1 and x2 > x1:
                out[y1:y2, x1:x2] = mask[y1 - y : y2 - y, x1 - x : x2 - x]
            return out

        return MaskList(tuple(one(m) for m in self.items), height, width)

    def warp(self, matrix: Array, height: int, width: int) -> MaskList:
        """Map points by a 3x3 affine `matrix` onto a canvas of height x width."""
        inverse = np.linalg.inv(matrix)

        def one(mask: Mask) -> Mask:
            if isinstance(mask, list):
                moved = (p @ matrix[:2, :2].T + matrix[:2, 2] for p in mask)
                cut = (clip_polygon(p, (0.0, 0.0, float(width), float(height))) for p in moved)
                return [p for p in cut if len(p)]
            ys, xs = np.mgrid[0:height, 0:width] + 0.5
            u = np.floor(inverse[0, 0] * xs + inverse[0, 1] * ys + inverse[0, 2]).astype(int)
            v = np.floor(inverse[1, 0] * xs + inverse[1, 1] * ys + inverse[1, 2]).astype(int)
            there = (u >= 0) & (v >= 0) & (u < mask.shape[1]) & (v < mask.shape[0])
            out = np.zeros((height, width), bool)
            out[there] = mask[v[there], u[there]]
            return out

        return MaskList(tuple(one(m) for m in self.items), height, width)

    def subtract(self, cover: Array) -> MaskList:
        """Cut a bool bitmap [H, W] out of every mask that it touches."""
        out: list[Mask] = []
        for mask in self.items:
            bitmap = mask if not isinstance(mask, list) else fill_polygons(mask, self.height, self.width)
            out.append(bitmap & ~cover if (bitmap & cover).any() else mask)
        return MaskList(tuple(out), self.height, self.width)

    def boxes(self) -> Array:
        """Tight boxes, float32 [N, 4]; zeros for an empty mask."""
        out = np.zeros((len(self.items), 4), np.float32)
        for i, mask in enumerate(self.items):
            if isinstance(mask, list):
                if mask:
                    points = np.concatenate(mask)
                    out[i] = (*points.min(0), *points.max(0))
            elif mask.any():
                rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
                out[i] = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        return out

    def rasterise(self) -> Array:
        """bool [N, H, W]."""
        out = np.zeros((len(self.items), self.height, self.width), bool)
        for i, mask in enumerate(self.items):
            out[i] = fill_polygons(mask, self.height, self.width) if isinstance(mask, list) else mask
        return out


def from_segments(segments: Sequence[Any], height: int, width: int) -> MaskList:
    """Masks of a record's `segments`; run-length codes are decoded, parts of segment maps are read.

    Raises:
        ValueError: if a code is of another size than the image.
    """
    return MaskList(tuple(_mask(s, height, width) for s in segments), height, width)


def _mask(segment: Any, height: int, width: int) -> Mask:
    if isinstance(segment, list):
        return segment
    if isinstance(segment, MapSegment):
        return segment.bitmap(height, width)
    return decode_rle(segment, height, width)
