"""COCO's panoptic format: a JSON of segments and a PNG of segment numbers for every image.

Kirillov et al., CVPR 2019; https://cocodataset.org/#format-data, section 4.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detc.runtime.data.records import Annotations, Problem, Record, Tally, make_record
from detc.runtime.data.segment_map import MapSegment
from detc.runtime.data.sources.coco_header import load_json
from detc.runtime.data.sources.labels import ClassMap


def read_panoptic(ann: Path, maps: Path, images: Path, split: str, classes: tuple[str, ...]) -> Annotations:
    """Read a panoptic file; every segment, of things and of stuff, is an object with a mask.

    Args:
        ann: the JSON file. maps: the folder of its PNGs. images: the folder of the pictures.
    """
    data = load_json(ann)
    tally = Tally()
    names = {int(c["id"]): str(c["name"]) for c in data["categories"]}
    space = ClassMap(classes, names.values(), str(ann))
    pictures = {one.get("id"): one for one in data["images"]}
    records: list[Record] = []
    for entry in data.get("annotations", ()):
        file = str(entry.get("file_name", "an entry"))
        try:
            picture = pictures.pop(entry["image_id"])
            size = (int(picture["width"]), int(picture["height"]))
            path = str(maps / file)
            objects = []
            for segment in entry["segments_info"]:
                name = names[int(segment["category_id"])]
                label = space.index(name)
                if label is None:
                    tally.drop_box(space.reason(name), file)
                else:
                    objects.append(_object(segment, label, path))
            where = str(images / picture["file_name"])
            records.append(
                make_record(entry["image_id"], where, size, objects, tally, file=file, with_segments=True)
            )
        except (KeyError, TypeError, ValueError) as fault:
            tally.problems.append(Problem(str(ann), f"entry of {file} is broken ({_say(fault)})"))
    tally.drop_image("they have no segment map", len(pictures))
    stuff = {str(c["name"]) for c in data["categories"] if not c.get("isthing", 1)}
    return Annotations(
        split, classes, records, tally, frozenset(i for i, n in enumerate(classes) if n in stuff)
    )


def _object(segment: dict[str, Any], label: int, path: str) -> dict[str, Any]:
    x, y, w, h = (float(v) for v in segment["bbox"])
    return {
        "box": (x, y, x + w, y + h),
        "label": label,
        "area": float(segment.get("area", w * h)),
        "crowd": bool(segment.get("iscrowd", 0)),
        "segment": MapSegment(path, int(segment["id"])),
    }


def _say(fault: Exception) -> str:
    return f"no field or image {fault}" if isinstance(fault, KeyError) else str(fault)
