"""YOLO text labels, boxes and polygons, and the names in a `data.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from detc.dsl.diagnostics import error
from detc.runtime.data.masks import polygon_area
from detc.runtime.data.records import Annotations, Problem, Tally, make_record
from detc.runtime.data.sources.text import read_text
from detc.runtime.images import SUFFIXES

if TYPE_CHECKING:
    from detc.runtime.data.sources.schema import YoloTxt


def read_yaml_names(path: Path) -> list[str]:
    """The class names of a `data.yaml` (`names:` a list or a mapping by index) or of a plain list.

    Raises:
        DetError: DET0903 if there are no names in it.
    """
    text = read_text(path, "file of class names")
    if path.suffix not in (".yaml", ".yml"):
        return [line.strip() for line in text.splitlines() if line.strip()]
    import yaml

    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as fault:
        reason = getattr(fault, "problem", None) or str(fault).splitlines()[0]
        raise error("DET0903", f"{path}: not a YAML file ({reason})") from None
    names = data.get("names") if isinstance(data, dict) else None
    if isinstance(names, dict):
        names = {int(k) if str(k).isdecimal() else k: v for k, v in names.items()}
        wrong = sorted(map(repr, set(names) - set(range(len(names)))))
        if wrong:
            raise error(
                "DET0903", f"{path}: `names` has an entry {wrong[0]}, expected are 0 to {len(names) - 1}"
            )
        names = [names[k] for k in range(len(names))]
    if not isinstance(names, list) or not names:
        raise error("DET0903", f"{path}: no `names` in it")
    return [str(n) for n in names]


def read_yolo(source: YoloTxt, split: str, classes: tuple[str, ...]) -> Annotations:
    """Read the label files of a split. A class index is mapped through the `data` file's names if given."""
    where = getattr(source, split)
    own = source.read_classes() or list(classes)
    to_label = {i: classes.index(n) for i, n in enumerate(own) if n in classes}
    tally, records = Tally(), []
    for image in _images(source.path(where.images)):
        label_file = _label_path(source, where, image)
        try:
            objects = _parse(label_file, to_label, own, tally)
        except (OSError, ValueError) as fault:
            tally.problems.append(Problem(str(label_file), f"broken annotation ({fault})"))
            continue
        records.append(
            make_record(
                image.stem, str(image), None, objects, tally, file=label_file.name, normalized=True,
                with_segments=True,
            )
        )  # fmt: skip
    stems = {r.id for r in records}
    if len(stems) != len(records):  # two folders with equal file names
        for record in records:
            record.id = record.path
    return Annotations(split, classes, records, tally)


def _images(where: Path) -> list[Path]:
    if where.is_dir():
        return sorted(p for p in where.rglob("*") if p.suffix.lower() in SUFFIXES)
    if where.is_file():
        lines = dict.fromkeys(line.strip() for line in read_text(where, "list of images").splitlines())
        return [Path(p) if Path(p).is_absolute() else where.parent / p for p in lines if p]
    raise error("DET0903", f"{where}: no such folder or list of images")


def _label_path(source: YoloTxt, where: Any, image: Path) -> Path:
    """By the YOLO convention the last `images` in the path becomes `labels`."""
    if where.labels is not None:
        folder, base = source.path(where.labels), source.path(where.images)
        inside = image.parent.relative_to(base) if base.is_dir() else Path()
        return folder / inside / f"{image.stem}.txt"
    parts = list(image.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _parse(file: Path, to_label: dict[int, int], own: list[str], tally: Tally) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    objects = []
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        try:
            values = [float(v) for v in fields]
        except ValueError:
            raise ValueError(f"line {number}: not numbers") from None
        if not 0 <= values[0] < len(own) or values[0] != int(values[0]):
            raise ValueError(f"line {number}: class {fields[0]}; there are 0 to {len(own) - 1}")
        index = int(values[0])
        box, segment = _geometry(values[1:], number)
        area = polygon_area(segment[0]) if np.isfinite(segment[0]).all() else 0.0
        label = to_label.get(index)
        if label is None:
            tally.drop_box(f"class `{own[index]}` is not in `classes`", file.name)
        else:
            objects.append({"box": box, "label": label, "segment": segment, "area": area})
    return objects


def _geometry(values: list[float], number: int) -> tuple[tuple[float, ...], list[Any]]:
    """Box xyxy and polygon, both as fractions."""
    if len(values) == 4:
        cx, cy, w, h = values
        box = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
        x1, y1, x2, y2 = box
        return box, [np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float64)]
    if len(values) < 6 or len(values) % 2:
        raise ValueError(f"line {number}: {len(values)} coordinates are neither a box (4) nor a polygon")
    points = np.array(values, np.float64).reshape(-1, 2)
    return (*points.min(0), *points.max(0)), [points]
