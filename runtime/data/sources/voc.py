"""Pascal VOC XML (Everingham et al., IJCV 2010)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from detc.runtime.data.records import Annotations, Problem, Tally, make_record
from detc.runtime.data.sources.labels import ClassMap
from detc.runtime.data.sources.text import read_text

if TYPE_CHECKING:
    from detc.runtime.data.sources.schema import PascalVoc

SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".bmp")


def image_names(path: Path) -> list[str]:
    """The names in an image list; lines whose second column is -1 are left out.

    Raises:
        DetError: DET0903 if the list is missing or no text.
    """
    rows = [line.split() for line in read_text(path, "image list").splitlines()]
    return [row[0] for row in rows if row and not (len(row) > 1 and row[1] == "-1")]


def read_names(source: PascalVoc) -> list[str] | None:
    """All class names in the XML files of the declared splits; unreadable files are left to `read_voc`."""
    names: set[str] = set()
    for split in source.splits():
        where = getattr(source, split)
        listed = source.path(where.list)
        for name in image_names(listed) if listed.is_file() else ():
            try:
                tree = ElementTree.parse(source.path(where.ann, f"{name}.xml"))
            except (OSError, ElementTree.ParseError):
                continue
            names.update(n for n in (_text(o, "name") for o in tree.iterfind("object")) if n)
    return sorted(names) or None


def read_voc(source: PascalVoc, split: str, classes: tuple[str, ...]) -> Annotations:
    """Read the XML files of the images that the split's list names."""
    where = getattr(source, split)
    tally = Tally()
    parsed = []
    listed = image_names(source.path(where.list))
    tally.drop_image("listed more than once", len(listed) - len(set(listed)))
    for name in dict.fromkeys(listed):
        file = source.path(where.ann, f"{name}.xml")
        try:
            parsed.append((name, file, *_parse(file, source)))
        except FileNotFoundError:
            tally.problems.append(Problem(str(file), "no such file"))
        except (ElementTree.ParseError, ValueError, OSError) as fault:
            tally.problems.append(Problem(str(file), f"broken annotation ({fault})"))
    space = ClassMap(
        classes, (o["name"] for *_, objects in parsed for o in objects), str(source.path(where.list))
    )
    records = []
    for name, file, size, filename, objects in parsed:
        kept = []
        for item in objects:
            item["label"] = space.index(item["name"])
            if item["label"] is None:
                tally.drop_box(space.reason(item["name"]), file.name)
            else:
                kept.append(item)
        path = _image_path(source.path(where.images), name, filename)
        records.append(make_record(name, str(path), size, kept, tally, file=file.name))
    return Annotations(split, classes, records, tally)


def _image_path(folder: Path, name: str, filename: str | None) -> Path:
    """The listed name with the first suffix that exists; the XML's own `filename` as a second choice."""
    for suffix in SUFFIXES:
        if (folder / (name + suffix)).is_file():
            return folder / (name + suffix)
    if filename and (folder / filename).is_file():
        return folder / filename
    return folder / (name + SUFFIXES[0])


def _parse(file: Path, source: PascalVoc) -> tuple[tuple[int, int] | None, str | None, list[dict[str, Any]]]:
    root = ElementTree.parse(file).getroot()
    size = root.find("size")
    wh = None if size is None else (_number(size, "width"), _number(size, "height"))
    known = (int(wh[0]), int(wh[1])) if wh and wh[0] > 0 and wh[1] > 0 else None
    objects = []
    for item in root.iterfind("object"):
        box = item.find("bndbox")
        name = _text(item, "name")
        if box is None or not name:
            raise ValueError("an object has no " + ("<name>" if box is not None else "<bndbox>"))
        x1, y1, x2, y2 = (_number(box, k) for k in ("xmin", "ymin", "xmax", "ymax"))
        if x2 > x1 and y2 > y1:  # else it stays invalid, and is counted as such
            x1, y1 = x1 - source.first, y1 - source.first
        hard = source.difficult == "ignore" and (_text(item, "difficult") or "0").strip() == "1"
        objects.append({"name": name, "box": (x1, y1, x2, y2), "ignore": hard})
    return known, _text(root, "filename"), objects


def _text(node: ElementTree.Element, tag: str) -> str | None:
    found = node.findtext(tag)
    return found.strip() if found else None


def _number(node: ElementTree.Element, tag: str) -> float:
    found = _text(node, tag)
    if found is None:
        raise ValueError(f"no <{tag}> in <{node.tag}>")
    try:
        value = float(found)
    except ValueError:
        raise ValueError(f"<{tag}> is `{found}`, not a number") from None
    if node.tag == "size" and not math.isfinite(value):
        raise ValueError(f"<{tag}> is {found}")
    return value
