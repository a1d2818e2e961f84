"""COCO JSON (Lin et al., ECCV 2014): https://cocodataset.org/#format-data."""

from __future__ import annotations

import json
import mmap
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from detc.dsl.diagnostics import error
from detc.runtime.data.records import Annotations, Problem, Segment, Tally, make_record
from detc.runtime.data.sources.labels import ClassMap


def load_json(path: Path) -> dict[str, Any]:
    """The top-level object of a COCO file.

    Raises:
        DetError: DET0903 if it is missing, not JSON, or has no `images`.
    """
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise error("DET0903", f"{path}: no such annotation file") from None
    except (OSError, ValueError) as fault:
        raise error("DET0903", f"{path}: not a JSON file ({fault})") from None
    missing = [k for k in ("images", "categories") if not isinstance(data, dict) or k not in data]
    if missing:
        raise error("DET0903", f"{path}: not a COCO file: it has no `{missing[0]}`")
    return data


def read_categories(path: Path) -> dict[int, str]:
    """Category names by id, without parsing the rest of a (large) file.

    The array after the last top-level looking `"categories"` key is decoded alone; only if that fails is
    the whole file parsed.
    """
    decoder = json.JSONDecoder()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        at = view.rfind(b'"categories"')
        while at >= 0:
            end = view.find(b"]", at)
            text = view[at + len(b'"categories"') : end + 1].decode("utf-8", "replace").lstrip().lstrip(":")
            try:
                found, _ = decoder.raw_decode(text.lstrip())
                return {int(c["id"]): str(c["name"]) for c in found}
            except (ValueError, TypeError, KeyError):
                at = view.rfind(b'"categories"', 0, at)
    return {int(c["id"]): str(c["name"]) for c in load_json(path)["categories"]}


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
