"""What a data source delivers: one `Record` an image, and a tally of everything that was not used.

Boxes are xyxy in pixels of the original image, the left edge of the first pixel being 0.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from detc.dsl.diagnostics import DetError, Diagnostic
from detc.runtime.data.segment_map import MapSegment

Array = np.ndarray[Any, Any]
# polygons, float64 [P, 2] each, or a COCO run-length code, or a part of a segment map
Segment = list[Array] | dict[str, Any] | MapSegment


@dataclass
class Record:
    """One annotated image.

    Attributes:
        id: what predictions are reported under; unique in a split.
        path: the image file.
        width, height: as the annotations state them; None where they do not (YOLO txt).
        boxes: float64 [N, 4], as annotated (they may stick out of the image); `labels` int64 [N];
            `areas` float64 [N], as annotated (COCO's are mask areas).
        crowd: bool [N], regions of many objects: never trained on, special in COCO's evaluation.
        ignore: bool [N], difficult objects: never trained on, neither hit nor miss in evaluation.
        segments: outlines of each object, or None if the source has none.
        normalized: boxes and polygons are fractions of the image's size, to be scaled once it is known.
    """

    id: int | str
    path: str
    width: int | None
    height: int | None
    boxes: Array
    labels: Array
    areas: Array
    crowd: Array
    ignore: Array
    segments: list[Segment] | None = None
    normalized: bool = False

    @property
    def trainable(self) -> Array:
        """bool [N]: neither crowd nor difficult."""
        return ~(self.crowd | self.ignore)

    def chosen(self, keep: Array, labels: Array) -> Record:
        """This record with the objects `keep` (bool [N]) alone, under other `labels` [number kept]."""
        segments = None
        if self.segments is not None:
            segments = [s for s, k in zip(self.segments, keep, strict=True) if k]
        return replace(
            self,
            boxes=self.boxes[keep],
            labels=labels.astype(np.int64),
            areas=self.areas[keep],
            crowd=self.crowd[keep],
            ignore=self.ignore[keep],
            segments=segments,
        )

    def bare(self) -> Record:
        """This record without its objects."""
        nothing = np.zeros(len(self.labels), bool)
        return replace(self.chosen(nothing, self.labels[nothing]), segments=None)

    def scaled(self, width: int, height: int) -> Record:
        """This record with its size filled in and its coordinates in pixels.

        Where the annotations did not state the size, boxes outside of the image come to light now, and go.
        """
        if not self.normalized:
            if self.width and self.height:
                return self
            known = replace(self, width=width, height=height)
            inside: Array = np.all((self.boxes[:, :2] < (width, height)) & (self.boxes[:, 2:] > 0), axis=1)
            return known if inside.all() else known.chosen(inside, self.labels[inside])
        grow = np.array([width, height], np.float64)
        segments = None
        if self.segments is not None:
            segments = [[p * grow for p in s] if isinstance(s, list) else s for s in self.segments]
        boxes = self.boxes * np.tile(grow, 2)
        areas = self.areas * width * height
        return Record(
            self.id, self.path, width, height, boxes, self.labels, areas, self.crowd, self.ignore, segments
        )


@dataclass(frozen=True)
class Problem:
    """A file that could not be used, and why."""

    file: str
    reason: str

    def diagnostic(self, severity: str = "error") -> Diagnostic:
        """As DET0904."""
        text = 'set `on_error = "skip"` in the data declaration to go on without such files'
        help_ = text if severity == "error" else None
        return Diagnostic("DET0904", severity, f"{self.file}: {self.reason}", help=help_)

    def error(self) -> DetError:
        """As an exception, for `on_error = "stop"`."""
        return DetError(self.diagnostic())


@dataclass
class Tally:
    """What was read, kept and dropped; counts by reason, so that nothing vanishes unsaid."""

    images: Counter[str] = field(default_factory=Counter)
    boxes: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    examples: dict[str, str] = field(default_factory=dict)

    def drop_box(self, reason: str, file: str, count: int = 1) -> None:
        """Count boxes that are not used; the first file of each reason is remembered."""
        if count:
            self.boxes[reason] += count
            self.examples.setdefault(reason, file)

    def drop_image(self, reason: str, count: int = 1) -> None:
        """Count images that are not used."""
        if count:
            self.images[reason] += count

    def merge(self, other: Tally) -> None:
        """Add the counts of `other`."""
        self.images += other.images
        self.boxes += other.boxes
        self.problems += other.problems
        self.examples = {**other.examples, **self.examples}

    def lines(self) -> list[str]:
        """The tally in words, one line a reason; empty if everything was used."""
        lines = []
        for reason, n in self.images.most_common():
            lines.append(f"{n} {'image' if n == 1 else 'images'} dropped: {reason}")
        for reason, n in self.boxes.most_common():
            what = "box" if n == 1 else "boxes"
            lines.append(f"{n} {what} dropped: {reason} (first in {self.examples[reason]})")
        return lines


@dataclass
class Annotations:
    """All that a source knows of a split.

    Attributes:
        classes: the class space that the labels index.
        stuff: labels of classes without objects that can be counted (sky, grass).
    """

    split: str
    classes: tuple[str, ...]
    records: list[Record]
    tally: Tally = field(default_factory=Tally)
    stuff: frozenset[int] = frozenset()


def make_record(
    id: int | str,
    path: str,
    size: tuple[int, int] | None,
    objects: list[dict[str, Any]],
    tally: Tally,
    *,
    file: str,
    normalized: bool = False,
    with_segments: bool = False,
) -> Record:
    """Build a record from raw objects, dropping and counting boxes that no detector can learn from.

    Args:
        size: (width, height) if known.
        objects: dicts with `box` (4 floats xyxy), `label`, and perhaps `area`, `crowd`, `ignore`, `segment`.
        tally: gets the dropped boxes.
        file: the name that the tally's examples carry.
        normalized: coordinates are fractions of the image's size.
        with_segments: whether the record carries `segments`.
    """
    width, height = (1, 1) if normalized else (size or (None, None))
    kept = []
    for item in objects:
        x1, y1, x2, y2 = item["box"]
        if not np.isfinite([x1, y1, x2, y2]).all():
            tally.drop_box("coordinates are not finite", file)
        elif x2 <= x1 or y2 <= y1:
            tally.drop_box("width or height is zero or negative", file)
        elif width is not None and height is not None and (x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0):
            tally.drop_box("outside the image", file)
        else:
            kept.append(item)
    boxes = np.array([item["box"] for item in kept], np.float64).reshape(-1, 4)
    plain = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    areas = np.array([item.get("area", a) for item, a in zip(kept, plain, strict=True)], np.float64)
    return Record(
        id=id,
        path=path,
        width=size[0] if size else None,
        height=size[1] if size else None,
        boxes=boxes,
        labels=np.array([item["label"] for item in kept], np.int64),
        areas=areas.reshape(-1),
        crowd=np.array([bool(item.get("crowd")) for item in kept], bool),
        ignore=np.array([bool(item.get("ignore")) for item in kept], bool),
        segments=[item["segment"] for item in kept] if with_segments else None,
        normalized=normalized,
    )
