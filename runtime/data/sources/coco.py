"""COCO JSON (Lin et al., ECCV 2014): https://cocodataset.org/#format-data."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np

from detc.runtime.data.records import Annotations, Problem, Record, Segment, Tally, make_record
from detc.runtime.data.sources.coco_header import category_names, load_json
from detc.runtime.data.sources.labels import ClassMap

Box = tuple[float, float, float, float]


def read_coco(ann: Path, images: Path, split: str, classes: tuple[str, ...]) -> Annotations:
    """Read a COCO file; images are looked for in the folder `images`."""
    data = load_json(ann)
    tally = Tally()
    names = category_names(data["categories"], ann)
    space = ClassMap(classes, names.values(), str(ann))
    by_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    nowhere = 0
    for one in data.get("annotations", ()):
        key = _image_id(one, "image_id")
        if key is None:
            nowhere += 1
        else:
            by_image[key].append(one)

    records: list[Record] = []
    files: dict[Any, str] = {}
    for number, image in enumerate(data["images"]):
        own = by_image.pop(_image_id(image, "id"), ())
        try:
            key, file, size = _image(image)
            if key in files:
                raise ValueError(f"its id {key} is that of {files[key]} too")
            files[key] = file
            objects = []
            for one in own:
                label = space.index(_category(one, names))
                if label is None:
                    tally.drop_box(space.reason(_category(one, names)), file)
                else:
                    objects.append(_object(one, label, size))
            path = str(images / file)
            records.append(make_record(key, path, size, objects, tally, file=file, with_segments=True))
        except ValueError as fault:
            name = image.get("file_name") if isinstance(image, dict) else None
            tally.problems.append(
                Problem(str(ann), f"entry of {name or f'image number {number}'} is broken ({fault})")
            )
    nowhere += sum(len(v) for v in by_image.values())
    tally.drop_box("of an image that the file does not list", str(ann), nowhere)
    return Annotations(split, classes, records, tally)


def _image_id(entry: Any, field: str) -> Any:
    """None if the entry has none that can be looked for."""
    key = entry.get(field) if isinstance(entry, dict) else None
    return key if isinstance(key, Hashable) else None


def _image(entry: Any) -> tuple[Any, str, tuple[int, int] | None]:
    """Id, file name and size of an image; a size of which a side is missing or 0 is not known.

    Raises:
        ValueError: if the entry is no image's.
    """
    if not isinstance(entry, dict):
        raise ValueError(f"{_short(entry)} instead of fields")
    key, file = _image_id(entry, "id"), entry.get("file_name")
    if key is None:
        raise ValueError(f"its `id` is {_short(entry['id'])}" if "id" in entry else "no field 'id'")
    if not isinstance(file, str) or not file:
        raise ValueError(
            f"its `file_name` is {_short(file)}" if "file_name" in entry else "no field 'file_name'"
        )
    sides = [_number(entry.get(k) or 0, k) for k in ("width", "height")]
    if min(sides) < 0:
        raise ValueError(f"a size of {sides[0]:g}x{sides[1]:g}")
    return key, file, (int(sides[0]), int(sides[1])) if min(sides) >= 1 else None


def _category(one: dict[str, Any], names: dict[int, str]) -> str:
    found = one.get("category_id")
    name = names.get(found) if isinstance(found, int | float) else None  # type: ignore[arg-type]
    if name is None:
        missing = "category_id" not in one
        reason = "no field 'category_id'" if missing else f"there is no category {_short(found)}"
        raise ValueError(f"{_which(one)}: {reason}")
    return name


def _object(one: dict[str, Any], label: int, size: tuple[int, int] | None) -> dict[str, Any]:
    """What `make_record` takes.

    Raises:
        ValueError: naming the annotation and the field.
    """
    try:
        raw = one.get("bbox")
        if not isinstance(raw, list) or len(raw) != 4:
            raise ValueError(f"`bbox` is {_short(raw)}" if "bbox" in one else "no field 'bbox'")
        x, y, w, h = (_number(v, "bbox") for v in raw)
        area = _number(one["area"], "area") if one.get("area") is not None else w * h
        crowd = _number(one.get("iscrowd") or 0, "iscrowd") != 0
        ignore = _number(one.get("ignore") or 0, "ignore") != 0 and not crowd
        segment = _segment(one.get("segmentation"), (x, y, x + w, y + h), size)
    except ValueError as fault:
        raise ValueError(f"{_which(one)}: {fault}") from fault
    return {
        "box": (x, y, x + w, y + h), "label": label, "area": area, "crowd": crowd, "ignore": ignore,
        "segment": segment,
    }  # fmt: skip


def _segment(raw: Any, box: Box, size: tuple[int, int] | None) -> Segment:
    """Polygons as [P, 2] arrays; an object without an outline gets its box's."""
    if isinstance(raw, dict) and raw:
        return _run_lengths(raw, size)
    if raw is not None and not isinstance(raw, list | dict):
        raise ValueError(f"`segmentation` is {_short(raw)}")
    polygons = [p for p in map(_polygon, raw or ()) if len(p) >= 3]
    if polygons:
        return polygons
    x1, y1, x2, y2 = box
    return [np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float64)]


def _polygon(raw: Any) -> np.ndarray[Any, Any]:
    try:
        points = np.array(raw, np.float64).reshape(-1, 2)
    except (TypeError, ValueError):
        raise ValueError(f"a polygon of `segmentation` is {_short(raw)}") from None
    if not np.isfinite(points).all():
        raise ValueError("a polygon of `segmentation` has points that are not finite")
    return points


def _run_lengths(code: dict[str, Any], size: tuple[int, int] | None) -> dict[str, Any]:
    """A run-length code that can be decoded: pycocotools trusts what it is given."""
    sides, counts = code.get("size"), code.get("counts")
    if not isinstance(sides, list) or len(sides) != 2 or not all(isinstance(n, int) for n in sides):
        raise ValueError(f"the `size` of its run-length code is {_short(sides)}")
    if size is not None and sides != [size[1], size[0]]:
        raise ValueError(f"a run-length code of {sides[1]}x{sides[0]} on an image of {size[0]}x{size[1]}")
    if isinstance(counts, list):
        if not all(isinstance(n, int) and n >= 0 for n in counts) or sum(counts) != sides[0] * sides[1]:
            raise ValueError(f"its run lengths do not make {sides[0] * sides[1]} pixels")
    elif not isinstance(counts, str) or not counts:
        raise ValueError(f"the `counts` of its run-length code are {_short(counts)}")
    return code


def _number(value: Any, field: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"`{field}` is {_short(value)}, not a number") from None
    if field != "bbox" and not math.isfinite(number):  # boxes that are not finite are dropped and counted
        raise ValueError(f"`{field}` is {number}")
    return number


def _which(one: dict[str, Any]) -> str:
    return f"annotation {_short(one['id'])}" if "id" in one else "an annotation"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
