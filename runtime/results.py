"""What a detector found in one image: a result that prints, filters, draws and converts.

    found = detc.load("runs/quickstart").predict("street.jpg")[0]
    print(found)                      # street.jpg, 640 x 480: 3 person, 1 car …
    found.filter(0.5).draw().save("street_drawn.jpg")

Shape suffixes: N detections, H and W the image's height and width.

What a model says of every pixel (panoptic and semantic segmentation) is a map `segments`, whose numbers are those
of the detections: 0 is nothing, i + 1 is detection i.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Detection:
    """One object: `box` is (x1, y1, x2, y2) in pixels of the original image."""

    box: tuple[float, float, float, float]
    score: float
    label: int
    name: str
    mask: Array | None = field(default=None, repr=False, compare=False)

    @property
    def area(self) -> float:
        """The box's area in square pixels."""
        x1, y1, x2, y2 = self.box
        return max(x2 - x1, 0.0) * max(y2 - y1, 0.0)


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects found in one image, best first.

    Attributes:
        boxes: float32 [N, 4], x1 y1 x2 y2 in pixels of the original image.
        scores: float32 [N], 0 to 1.
        labels: int64 [N], indices into `classes`.
        classes: class names, in the order of the training set.
        size: (height, width) of the original image in pixels.
        masks: bool [N, H, W] in the original image, or None.
        name: the file's path, or "image 3" for the fourth of a list of arrays.
        source: what was given to `predict`, so that `draw()` needs no argument.
        segments: int32 [H, W], which detection each pixel belongs to, plus 1; or None.
    """

    boxes: Array
    scores: Array
    labels: Array
    classes: tuple[str, ...]
    size: tuple[int, int]
    masks: Array | None = None
    name: str = ""
    source: Any = field(default=None, repr=False)
    segments: Array | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "boxes", np.asarray(self.boxes, np.float32).reshape(-1, 4))
        object.__setattr__(self, "scores", np.asarray(self.scores, np.float32).reshape(-1))
        object.__setattr__(self, "labels", np.asarray(self.labels, np.int64).reshape(-1))
        counts = {"boxes": len(self.boxes), "scores": len(self.scores), "labels": len(self.labels)}
        if self.masks is not None:
            counts["masks"] = len(self.masks)
        if len(set(counts.values())) > 1:
            raise ValueError(f"a result needs as many of each: {counts}")

    # --- access ----------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Detection: ...
    @overload
    def __getitem__(self, index: slice | Array | list[Any]) -> Detections: ...
    def __getitem__(self, index: Any) -> Detection | Detections:
        """`d[0]` is one `Detection`; a slice, a list of indices or a boolean mask gives `Detections`."""
        if isinstance(index, int | np.integer):
            x1, y1, x2, y2 = (float(v) for v in self.boxes[index])
            label = int(self.labels[index])
            mask = self.mask(range(len(self))[index])
            return Detection((x1, y1, x2, y2), float(self.scores[index]), label, self.class_name(label), mask)
        index = index if isinstance(index, slice) else np.asarray(index, None if len(index) else np.int64)
        return replace(
            self,
            boxes=self.boxes[index],
            scores=self.scores[index],
            labels=self.labels[index],
            masks=None if self.masks is None else self.masks[index],
            segments=None if self.segments is None else renumbered(self.segments, len(self), index),
        )

    def mask(self, index: int) -> Array | None:
        """The pixels of one detection, bool [H, W]; None where only boxes are known."""
        if self.masks is not None:
            found: Array = self.masks[index]
            return found
        return None if self.segments is None else self.segments == index + 1

    @property
    def names(self) -> list[str]:
        """The class name of each detection."""
        return [self.class_name(int(i)) for i in self.labels]

    def class_name(self, label: int) -> str:
        """The name of class `label`, or `class 7` where the names are not known."""
        return self.classes[label] if 0 <= label < len(self.classes) else f"class {label}"

    def filter(
        self, score: float = 0.0, *, classes: Sequence[str | int] | None = None, limit: int | None = None
    ) -> Detections:
        """Keep detections of at least `score`, of the named classes, and at most `limit` of them.

        Raises:
            ValueError: if a class name is not one of the model's.
        """
        keep = self.scores >= score
        if classes is not None:
            keep &= np.isin(self.labels, [self._class_index(c) for c in classes])
        kept = np.flatnonzero(keep)
        if limit is not None:
            kept = np.sort(kept[np.argsort(-self.scores[kept], kind="stable")[:limit]])
        return self[kept]

    def _class_index(self, wanted: str | int) -> int:
        if isinstance(wanted, int):
            return wanted
        if wanted not in self.classes:
            from detc.dsl.diagnostics import did_you_mean

            raise ValueError(f"the model has no class `{wanted}`{did_you_mean(wanted, self.classes)}")
        return self.classes.index(wanted)

    # --- looking at it ---------------------------------------------------------------------------

    def summary(self) -> str:
        """`3 person, 1 car`, or `nothing`; the most frequent class first."""
        counts = Counter(self.names).most_common()
        return ", ".join(f"{n} {name}" for name, n in counts) or "nothing"

    def __repr__(self) -> str:
        return f"<Detections {self.name or 'image'}: {self.summary()}>"

    def __str__(self) -> str:
        height, width = self.size
        lines = [f"{self.name or 'image'}, {width} x {height}: {self.summary()}"]
        longest = max((len(n) for n in self.names), default=0)
        for found in self[:20]:
            x1, y1, x2, y2 = found.box
            lines.append(
                f"  {found.name:<{longest}}  {found.score:.3f}  ({x1:.1f}, {y1:.1f}) - ({x2:.1f}, {y2:.1f})"
            )
        if len(self) > 20:
            lines.append(f"  … and {len(self) - 20} more")
        return "\n".join(lines)

    def draw(self, image: Any = None, **options: Any) -> Image.Image:
        """Draw the detections; `image` is a path, array or PIL image, by default the predicted one.

        Options are those of `detc.runtime.draw.draw`.

        Raises:
            ValueError: if no image is given and none was remembered.
        """
        from detc.runtime.draw import draw

        image = self.source if image is None else image
        if image is None:
            raise ValueError("this result does not remember its image: call draw(image)")
        return draw(image, self, **options)

    # --- conversions -----------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """A plain dict of numbers and strings, ready for JSON; masks become COCO RLE."""
        height, width = self.size
        objects: list[dict[str, Any]] = []
        for found in self:
            entry: dict[str, Any] = {
                "box": [round(v, 3) for v in found.box],
                "score": round(found.score, 6),
                "label": found.label,
                "name": found.name,
            }
            if found.mask is not None:
                entry["mask"] = _rle(found.mask)
            objects.append(entry)
        return {"image": self.name, "width": width, "height": height, "objects": objects}

    def to_coco(self, image_id: int | str, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """COCO result entries (`bbox` is x, y, width, height).

        Args:
            image_id: the image's id in the annotation file.
            category_ids: the file's category id of each class; by default 1 for the first class and so on.
        """
        entries = []
        for found in self:
            x1, y1, x2, y2 = found.box
            category = found.label + 1 if category_ids is None else int(category_ids[found.label])
            entry: dict[str, Any] = {
                "image_id": image_id,
                "category_id": category,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": found.score,
            }
            if found.mask is not None:
                entry["segmentation"] = _rle(found.mask)
            entries.append(entry)
        return entries

    def to_panoptic(self, file_name: str = "", category_ids: Sequence[int] | None = None) -> dict[str, Any]:
        """COCO's panoptic entry: `file_name` and `segments_info`; the map itself is `segments`.

        Args:
            file_name: of the PNG of segment numbers.
            category_ids: as for `to_coco`.

        Raises:
            ValueError: if the model gives no map.
        """
        if self.segments is None:
            raise ValueError("there is no map of segments in this result")
        numbers, areas = np.unique(self.segments[self.segments > 0], return_counts=True)
        infos = []
        for number, area in zip(numbers.tolist(), areas.tolist(), strict=True):
            label = int(self.labels[number - 1])
            category = label + 1 if category_ids is None else int(category_ids[label])
            infos.append({"id": number, "category_id": category, "area": area, "iscrowd": 0})
        return {"file_name": file_name, "segments_info": infos}

    def to_supervision(self) -> Any:
        """A `supervision.Detections` with `class_name` in its data.

        Raises:
            ImportError: if supervision is not installed.
        """
        import supervision

        masks = [mask for mask in map(self.mask, range(len(self))) if mask is not None]
        return supervision.Detections(
            xyxy=self.boxes.copy(),
            confidence=self.scores.copy(),
            class_id=self.labels.copy(),
            mask=np.stack(masks).astype(bool) if masks else None,
            data={"class_name": np.array(self.names, dtype=str)},
        )

    @property
    def stem(self) -> str:
        """The name without folder and suffix, for output files."""
        return Path(self.name).stem.replace(" ", "_") or "image"


def renumbered(segments: Array, count: int, index: Any) -> Array:
    """A map of segments after a choice among `count` detections: those that are left out become 0."""
    table = np.zeros(count + 1, np.int32)
    kept = np.arange(count)[index]
    table[kept + 1] = np.arange(len(kept)) + 1
    out: Array = table[segments]
    return out


def _rle(mask: Array) -> dict[str, Any]:
    """Compressed COCO run lengths of one bool mask [H, W]."""
    from pycocotools import mask as coco

    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(v) for v in encoded["size"]], "counts": encoded["counts"].decode("ascii")}
