"""One image with its truth on the way through a pipeline. Its methods move pixels, boxes and masks together.

Samples are values: every method returns a new one, so that a step may look at other samples of the batch.
Boxes are float32 [N, 4] xyxy in pixels of the present canvas; pixel edges lie at integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from detc.runtime.data import pixels
from detc.runtime.data.masks import MaskList, from_segments
from detc.runtime.data.records import Record

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Pending:
    """A resize to height x width that has not been done yet: a crop after it needs a part only."""

    height: int
    width: int


@dataclass(frozen=True)
class Sample:
    """Truth and pixels.

    Attributes:
        record: what the source knows of the (first) image.
        stored: pixels, uint8 (training) or float (evaluation) [3, H, W], before `pending`; use `image`.
        content: (height, width) without padding.
        matrix: 3x3, from pixels of the image file to the present canvas; meaningless after mixing images.
        boxes, labels: None until a step has read them.
        masks: None until a step has read them.
    """

    record: Record
    stored: torch.Tensor = field(default_factory=lambda: torch.empty(3, 0, 0, dtype=torch.uint8))
    content: tuple[int, int] = (0, 0)
    matrix: Array = field(default_factory=lambda: np.eye(3))
    boxes: Array | None = None
    labels: Array | None = None
    masks: MaskList | None = None
    pending: Pending | None = None

    @property
    def height(self) -> int:
        """Rows of the canvas."""
        return self.pending.height if self.pending else self.stored.shape[1]

    @property
    def width(self) -> int:
        """Columns of the canvas."""
        return self.pending.width if self.pending else self.stored.shape[2]

    @property
    def image(self) -> torch.Tensor:
        """The pixels of the canvas, [3, H, W]."""
        if self.pending is None:
            return self.stored
        return pixels.resize(self.stored, self.pending.height, self.pending.width)

    def with_image(self, image: torch.Tensor) -> Sample:
        """Other pixels of the same geometry."""
        return replace(self, stored=image, pending=None)

    def load(self) -> Sample:
        """Decode the image file.

        Raises:
            ImageError: see `pixels.load_pixels`.
        """
        record = self.record
        declared = (record.width, record.height) if record.width and record.height else None
        image = pixels.load_pixels(record.path, declared)
        height, width = image.shape[1:]
        return replace(self, record=record.scaled(width, height), stored=image, content=(height, width))

    def read_boxes(self) -> Sample:
        """Take boxes and labels from the record: all but crowds and difficult objects. Boxes are clipped."""
        record, keep = self.record, self.record.trainable
        if record.width is None or record.height is None:
            raise ValueError("boxes are read after the image: put `Load()` before `Boxes()`")
        limit = np.array([record.width, record.height] * 2, np.float64)
        boxes = map_boxes(np.clip(record.boxes[keep], 0, limit), self.matrix)
        return replace(self, boxes=boxes, labels=record.labels[keep])

    def read_masks(self) -> Sample:
        """Take outlines from the record, for the objects that `read_boxes` takes.

        Raises:
            ValueError: if the source has no outlines, or a run-length code is of another size.
        """
        record = self.record
        if record.segments is None or record.width is None or record.height is None:
            raise ValueError("its annotations have no masks")
        kept = [s for s, keep in zip(record.segments, record.trainable, strict=True) if keep]
        masks = from_segments(kept, record.height, record.width)
        if not np.array_equal(self.matrix, np.eye(3)):
            masks = masks.warp(self.matrix, self.height, self.width)
        return replace(self, masks=masks)

    def truth(self) -> tuple[Array, Array]:
        """Boxes and labels; empty ones if no step has read them."""
        if self.boxes is None or self.labels is None:
            return np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
        return self.boxes, self.labels

    def select(self, keep: Array) -> Sample:
        """Keep some of the objects (bool [N] or indices)."""
        if self.boxes is None or self.labels is None:
            return self
        masks = self.masks.select(keep) if self.masks is not None else None
        return replace(self, boxes=self.boxes[keep], labels=self.labels[keep], masks=masks)

    def flip(self, horizontal: bool) -> Sample:
        """Mirror left-right, or top-bottom. Not for padded samples."""
        extent = self.width if horizontal else self.height
        matrix = np.eye(3)
        i = 0 if horizontal else 1
        matrix[i, i], matrix[i, 2] = -1.0, extent
        boxes = self.boxes
        if boxes is not None:
            boxes = boxes.copy()
            boxes[:, [i, i + 2]] = extent - boxes[:, [i + 2, i]]
        return replace(
            self,
            stored=pixels.flip(self.image, horizontal),
            pending=None,
            boxes=boxes,
            masks=self.masks.flip(horizontal) if self.masks is not None else None,
            matrix=matrix @ self.matrix,
        )

    def resize(self, height: int, width: int) -> Sample:
        """Stretch to another size; pixels wait until they are asked for."""
        if (height, width) == (self.height, self.width):
            return self
        sx, sy = width / self.width, height / self.height
        boxes = self.boxes
        if boxes is not None:  # rounding must not push a box out of the canvas
            edges = np.array([width, height, width, height], np.float32)
            boxes = np.minimum(boxes * np.array([sx, sy, sx, sy], np.float32), edges)
        return replace(
            self,
            stored=self.image,
            pending=Pending(height, width),
            boxes=boxes,
            masks=self.masks.resize(height, width) if self.masks is not None else None,
            matrix=np.diag([sx, sy, 1.0]) @ self.matrix,
            content=(height, width),
        )

    def place(self, x: int, y: int, height: int, width: int, fill: Sequence[float] | float = 0) -> Sample:
        """Put the canvas at (x, y) of a new one of height x width; negative x, y crop. Boxes are clipped.

        Objects that are left without a box of positive size are still there: see `drop_degenerate`.
        """
        x1, y1 = max(x, 0), max(y, 0)
        x2, y2 = min(x + self.width, width), min(y + self.height, height)
        part, window = self._window(x1 - x, y1 - y, max(x2 - x, x1 - x), max(y2 - y, y1 - y))
        if (x1, y1, x2, y2) == (0, 0, width, height):
            image = part
        else:
            image = pixels.canvas(height, width, fill, part)
            image[:, y1 : y1 + part.shape[1], x1 : x1 + part.shape[2]] = part
        # `window` maps the canvas to the part that was taken; (x1, y1) is where that part lies now
        matrix = np.array([[1.0, 0, x1], [0, 1.0, y1], [0, 0, 1.0]]) @ window
        boxes, masks = self.boxes, self.masks
        if boxes is not None:
            boxes = map_boxes(boxes, matrix)
            np.clip(boxes[:, 0::2], 0, width, out=boxes[:, 0::2])
            np.clip(boxes[:, 1::2], 0, height, out=boxes[:, 1::2])
        if masks is not None:
            masks = (
                masks.place(x, y, height, width)
                if self.pending is None
                else masks.warp(matrix, height, width)
            )
        return replace(
            self, stored=image, pending=None, boxes=boxes, masks=masks, matrix=matrix @ self.matrix,
            content=(height, width),
        )  # fmt: skip

    def _window(self, x1: int, y1: int, x2: int, y2: int) -> tuple[torch.Tensor, Array]:
        """Pixels [y1:y2, x1:x2] of the canvas, and the map from the canvas to them.

        With a resize pending, whole source pixels are cut out and only they are resized: the scale then
        differs from the nominal one by less than a source pixel over the window, and the map says so.
        """
        shift = np.array([[1.0, 0, -x1], [0, 1.0, -y1], [0, 0, 1.0]])
        if self.pending is None or self.stored.dtype != torch.uint8 or x2 <= x1 or y2 <= y1:
            return self.image[:, y1:y2, x1:x2], shift
        sx, sy = self.stored.shape[2] / self.width, self.stored.shape[1] / self.height
        u1, u2 = _whole(x1 * sx, x2 * sx, self.stored.shape[2])
        v1, v2 = _whole(y1 * sy, y2 * sy, self.stored.shape[1])
        part = pixels.resize(self.stored[:, v1:v2, u1:u2], y2 - y1, x2 - x1)
        gx, gy = (x2 - x1) / (u2 - u1), (y2 - y1) / (v2 - v1)
        return part, np.array([[sx * gx, 0, -u1 * gx], [0, sy * gy, -v1 * gy], [0, 0, 1.0]])

    def pad(self, height: int, width: int, fill: Sequence[float] | float) -> Sample:
        """Enlarge the canvas to the right and the bottom; `content` stays."""
        if (height, width) == (self.height, self.width):
            return self
        masks = self.masks.place(0, 0, height, width) if self.masks is not None else None
        return replace(self, stored=pixels.pad(self.image, height, width, fill), pending=None, masks=masks)

    def warp(self, matrix: Array, height: int, width: int, fill: float) -> Sample:
        """Affine map onto a canvas of height x width; boxes become the bounds of their turned corners."""
        boxes = self.boxes
        if boxes is not None:
            boxes = map_boxes(boxes, matrix)
            np.clip(boxes[:, 0::2], 0, width, out=boxes[:, 0::2])
            np.clip(boxes[:, 1::2], 0, height, out=boxes[:, 1::2])
        return replace(
            self,
            stored=pixels.warp(self.image, matrix, height, width, fill),
            pending=None,
            boxes=boxes,
            masks=self.masks.warp(matrix, height, width) if self.masks is not None else None,
            matrix=matrix @ self.matrix,
            content=(height, width),
        )

    def boxes_from_masks(self) -> Sample:
        """Tighten boxes to their masks; an object whose mask is gone gets an empty box."""
        return self if self.masks is None else replace(self, boxes=self.masks.boxes())

    def drop_degenerate(
        self, smallest: float = 1.0, share: float = 0.0, before: Array | None = None
    ) -> Sample:
        """Drop boxes with a side below `smallest` pixels, or less than `share` of their area `before`."""
        if self.boxes is None or not len(self.boxes):
            return self
        w, h = self.boxes[:, 2] - self.boxes[:, 0], self.boxes[:, 3] - self.boxes[:, 1]
        keep = (w >= smallest) & (h >= smallest)
        if share > 0 and before is not None:
            keep &= w * h >= share * before
        if self.masks is not None:
            keep &= np.array(
                [bool(len(m)) if isinstance(m, list) else bool(m.any()) for m in self.masks.items], bool
            )
        return self if keep.all() else self.select(keep)


def _whole(start: float, stop: float, limit: int) -> tuple[int, int]:
    """The integer range nearest to [start, stop), at least one long, inside [0, limit]."""
    first = min(max(round(start), 0), limit - 1)
    return first, min(max(round(stop), first + 1), limit)


def map_boxes(boxes: Array, matrix: Array) -> Array:
    """Bounds of the boxes' corners [N, 4] under a 3x3 affine map, float32 [N, 4]."""
    if matrix[0, 1] == 0 and matrix[1, 0] == 0 and matrix[0, 0] > 0 and matrix[1, 1] > 0:
        grow = np.array([matrix[0, 0], matrix[1, 1]] * 2)
        return (boxes * grow + np.array([matrix[0, 2], matrix[1, 2]] * 2)).astype(np.float32)
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2).astype(np.float64)
    moved = corners @ matrix[:2, :2].T + matrix[:2, 2]
    return np.concatenate([moved.min(1), moved.max(1)], 1).astype(np.float32)
