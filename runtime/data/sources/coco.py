"""COCO JSON (Lin et al., ECCV 2014): https://cocodataset.org/#format-data."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from detc.runtime.data.records import Annotations, Problem, Segment, Tally, make_record
from detc.runtime.data.sources.coco_header import load_json
from detc.runtime.data.sources.labels import ClassMap


def read_coco(ann: Path, images: Path, split: str, classes: tuple[str, ...]) -> Annotations:
    """Read a COCO file; images are looked for in the folder `images`."""
    data = load_json(ann)
    tally = Tally()
    names = {int(c["id"]): str(c["name"]) for c in data["categories"]}
    space = ClassMap(classes, names.values(), str(ann))
    by_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for one in data.get("annotations", ()):
        by_image[one.get("image_id")].append(one)

    records = []
    for image in data["images"]:
        file = str(image.get("file_name", f"image {image.get('id')}"))
        try:
            size = (int(image["width"]), int(image["height"])) if "width" in image else None
            objects = []
            for one in by_image.pop(image["id"], ()):
                label = space.index(names[one["category_id"]])
                if label is None:
                    tally.drop_box(space.reason(names[one["category_id"]]), file)
                    continue
                objects.append(_object(one, label))
            path = str(images / image["file_name"])
            records.append(
                make_record(image["id"], path, size, objects, tally, file=file, with_segments=True)
            )
        except (KeyError, TypeError, ValueError) as fault:
            tally.problems.append(Problem(str(ann), f"entry of {file} is broken ({_say(fault)})"))
    orphans = sum(len(v) for v in by_image.values())
    tally.drop_box("of an image that the file does not list", str(ann), orphans)
    return Annotations(split, classes, records, tally)


def _object(one: dict[str, Any], label: int) -> dict[str, Any]:
    x, y, w, h = (float(v) for v in one["bbox"])
    area = float(one["area"]) if one.get("area") is not None else w * h
    crowd = bool(one.get("iscrowd", 0))
    segment = _segment(one.get("segmentation"), (x, y, x + w, y + h))
    ignore = bool(one.get("ignore", 0)) and not crowd
    return {
        "box": (x, y, x + w, y + h), "label": label, "area": area, "crowd": crowd, "ignore": ignore,
        "segment": segment,
    }  # fmt: skip


def _segment(raw: Any, box: tuple[float, float, float, float]) -> Segment:
    """Polygons as [P, 2] arrays; an object without an outline gets its box's."""
    if isinstance(raw, dict):
        return raw
    polygons = [np.array(p, np.float64).reshape(-1, 2) for p in raw or () if len(p) >= 6]
    if polygons:
        return polygons
    x1, y1, x2, y2 = box
    return [np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float64)]


def _say(fault: Exception) -> str:
    return f"no field {fault}" if isinstance(fault, KeyError) else str(fault)
