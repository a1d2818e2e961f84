"""Small data sets and pipelines for tests, and the way to the shared real data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detc.compiler.spec import DataSource, DataSpec, NamedStep, Step
from detc.runtime.data.records import Record
from detc.runtime.data.sources import CocoJson

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def shared(name: str) -> Path:
    """A folder of the shared data; skips the test, saying so, where it is not."""
    if not (SHARED / name).is_dir():
        pytest.skip(f"the shared data set {name} is not here (looked in ../shared/data)")
    return SHARED / name


def steps(**named: Step) -> tuple[NamedStep, ...]:
    """A pipeline."""
    return tuple(NamedStep(name, step) for name, step in named.items())


def spec(
    source: DataSource, classes: tuple[str, ...], train: Any, val: Any = None, **fields: Any
) -> DataSpec:
    """A data declaration with one or two pipelines."""
    more = {k: fields.pop(k) for k in ("late",) if k in fields}
    return DataSpec(
        "Test",
        classes,
        source,
        {"train": train, "val": val or train, **more},
        fields={"workers": 0, **fields},
    )


def record(
    path: str = "x.jpg", boxes: Any = (), size: tuple[int, int] = (40, 30), segments: Any = None
) -> Record:
    """A record with all labels 0."""
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    n = len(boxes)
    flags = np.zeros(n, bool)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return Record(1, path, *size, boxes, np.zeros(n, np.int64), areas, flags, flags.copy(), segments)


def write_coco(
    root: Path, count: int = 8, *, seed: int = 0, size: tuple[int, int] = (48, 36), vary: bool = False
) -> CocoJson:
    """A COCO set of random images with one or two coloured rectangles (PNG, so that pixels are exact)."""
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for i in range(count):
        width, height = (size[1], size[0]) if vary and i % 2 else size
        pixels = rng.integers(0, 80, (height, width, 3)).astype(np.uint8)
        for k in range(1 + i % 2):
            w, h = (int(n) for n in rng.integers(6, 14, 2))
            x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
            pixels[y : y + h, x : x + w] = (255, 200, 150 + k)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i + 1,
                    "category_id": 3 + 4 * k,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )
        Image.fromarray(pixels).save(root / f"{i}.png")
        images.append({"id": i + 1, "file_name": f"{i}.png", "width": width, "height": height})
    categories = [{"id": 3, "name": "one"}, {"id": 7, "name": "two"}]
    text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    (root / "ann.json").write_text(text)
    split = {"images": "", "ann": "ann.json"}
    return CocoJson(root=str(root), train=split, val=split)
