"""The built-in sample set: shapes on textured backgrounds, in COCO format with masks, perhaps panoptic maps.

Made from a seed alone, image by image, so that it is the same on every machine and with any number of
processes (up to the JPEG encoder's rounding).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detc.runtime.data.grounds import STUFF, ground
from detc.runtime.data.segment_map import write_ids
from detc.runtime.data.shapes import CLASSES, coverage, outline, polygons, pose
from detc.runtime.data.textures import background, develop, surface

Array = np.ndarray[Any, Any]
VERSION = 1
MARKER = "synth.json"
SMALLEST_SEGMENT = 16  # pixels; what is less is void in panoptic maps


@dataclass(frozen=True)
class Settings:
    """What a sample set is made from; sizes are sides in pixels.

    panoptic: the backgrounds are regions of `grounds.STUFF`, and there are panoptic maps.
    """

    train: int = 600
    val: int = 100
    seed: int = 0
    smallest: int = 160
    largest: int = 256
    most_objects: int = 7
    version: int = VERSION
    panoptic: bool = False


def generate(
    root: str | Path,
    images: int = 600,
    seed: int = 0,
    *,
    val: int = 100,
    smallest: int = 160,
    largest: int = 256,
    panoptic: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make the sample set under `root`, unless it is there already with the same settings.

    Writes `train/`, `val/` (JPEG), `annotations/train.json`, `annotations/val.json`; with `panoptic` also
    `annotations/panoptic_train.json` and a PNG for each image in `annotations/panoptic_train/`, the same for val.

    Args:
        images, val: images in the two splits.
        workers: processes; as many as there are cores by default.
        progress: called with (done, total) now and then.

    Returns:
        `root`.

    Raises:
        ValueError: if `root` holds something else, or sizes are out of order.
    """
    settings = Settings(images, val, seed, smallest, largest, panoptic=panoptic)
    if not 32 <= smallest <= largest or images < 1 or val < 0:
        raise ValueError(f"a sample set needs images >= 1 and 32 <= smallest <= largest, not {settings}")
    root = Path(root)
    if read_marker(root) == asdict(settings):
        return root
    if root.exists() and any(root.iterdir()) and read_marker(root) is None:
        raise ValueError(f"{root} is not empty and holds no sample set; choose another folder")
    part = root.with_name(root.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    maps = [f"annotations/panoptic_{split}" for split in ("train", "val") if panoptic]
    for name in ("train", "val", "annotations", *maps):
        (part / name).mkdir(parents=True)
    _fill(part, settings, workers, progress)
    (part / MARKER).write_text(json.dumps(asdict(settings), indent=1) + "\n")
    if root.exists():
        shutil.rmtree(root)
    part.rename(root)
    return root


def read_marker(root: Path) -> dict[str, Any] | None:
    """The settings of the sample set under `root`, or None if there is none."""
    try:
        found = json.loads((root / MARKER).read_text())
    except (OSError, ValueError):
        return None
    # a set that was made before a setting existed has that setting's default
    return {**asdict(Settings()), **found} if isinstance(found, dict) else None


def _fill(
    part: Path, settings: Settings, workers: int | None, progress: Callable[[int, int], None] | None
) -> None:
    jobs = [("train", i) for i in range(settings.train)] + [("val", i) for i in range(settings.val)]
    entries: dict[str, list[dict[str, Any]]] = {"train": [], "val": []}
    workers = workers or os.cpu_count() or 1
    with ProcessPoolExecutor(workers) as pool:
        results = pool.map(_make, *zip(*[(part, settings, s, i) for s, i in jobs], strict=True), chunksize=10)
        for done, ((split, _), entry) in enumerate(zip(jobs, results, strict=True), 1):
            entries[split].append(entry)
            if progress is not None and (done % 20 == 0 or done == len(jobs)):
                progress(done, len(jobs))
    for split, items in entries.items():
        (part / "annotations" / f"{split}.json").write_text(json.dumps(_coco(items)))
        if settings.panoptic:
            (part / "annotations" / f"panoptic_{split}.json").write_text(json.dumps(_panoptic(items)))


def _coco(entries: list[dict[str, Any]]) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i, entry in enumerate(entries, 1):
        images.append({"id": i, **entry["image"]})
        for item in entry["objects"]:
            annotations.append({"id": len(annotations) + 1, "image_id": i, "iscrowd": 0, **item})
    categories = [{"id": i, "name": name, "supercategory": "shape"} for i, name in enumerate(CLASSES, 1)]
    return {
        "info": {"description": "detc sample set"},
        "categories": categories,
        "images": images,
        "annotations": annotations,
    }


def _panoptic(entries: list[dict[str, Any]]) -> dict[str, Any]:
    names = [*((n, "shape", 1) for n in CLASSES), *((n, "ground", 0) for n in STUFF)]
    return {
        "info": {"description": "detc sample set, panoptic"},
        "categories": [
            {"id": i, "name": name, "supercategory": group, "isthing": thing}
            for i, (name, group, thing) in enumerate(names, 1)
        ],
        "images": [{"id": i, **entry["image"]} for i, entry in enumerate(entries, 1)],
        "annotations": [
            {
                "image_id": i,
                "file_name": entry["image"]["file_name"].replace(".jpg", ".png"),
                "segments_info": entry["segments"],
            }
            for i, entry in enumerate(entries, 1)
        ],
    }


def _make(part: Path, settings: Settings, split: str, index: int) -> dict[str, Any]:
    """Draw one image, write it, and return its annotation."""
    from PIL import Image

    rng = np.random.default_rng([settings.seed, ("train", "val").index(split), index])
    height, width = (int(n) for n in rng.integers(settings.smallest, settings.largest + 1, 2))
    if settings.panoptic:
        behind, region = ground(height, width, rng)
    else:
        behind, region = background(height, width, rng), np.zeros((0, 0), np.int64)
    pixels, masks, kinds = draw(behind, rng, settings.most_objects)
    name = f"{index:06d}.jpg"
    Image.fromarray(pixels).save(part / split / name, quality=int(rng.integers(75, 96)))
    objects = []
    for mask, kind in zip(masks, kinds, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        x, y = int(columns[0]), int(rows[0])
        objects.append(
            {
                "category_id": CLASSES.index(kind) + 1,
                "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
                "area": int(mask.sum()),
                "segmentation": polygons(mask),
            }
        )
    entry = {"image": {"file_name": name, "width": width, "height": height}, "objects": objects}
    if settings.panoptic:
        ids, entry["segments"] = _segments(masks, kinds, region)
        write_ids(part / "annotations" / f"panoptic_{split}" / f"{index:06d}.png", ids)
    return entry


def _segments(masks: list[Array], kinds: list[str], region: Array) -> tuple[Array, list[dict[str, Any]]]:
    """Segment numbers [H, W], and COCO's description of each: objects first, then what is seen of the ground."""
    ids = np.zeros(region.shape, np.int64)
    segments: list[dict[str, Any]] = []
    parts = [(CLASSES.index(kind), mask) for kind, mask in zip(kinds, masks, strict=True)]
    free = ~np.any(masks, axis=0)
    parts += [(len(CLASSES) + k, free & (region == k)) for k in range(len(STUFF))]
    for category, mask in parts:
        if int(mask.sum()) < SMALLEST_SEGMENT:
            continue
        number = len(segments) + 1
        ids[mask] = number
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        x, y = int(columns[0]), int(rows[0])
        box = [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]
        segments.append(
            {
                "id": number,
                "category_id": category + 1,
                "bbox": box,
                "area": int(mask.sum()),
                "iscrowd": 0,
            }
        )
    return ids, segments


def draw(behind: Array, rng: np.random.Generator, most: int) -> tuple[Array, list[Array], list[str]]:
    """`behind` (float32 [H, W, 3], painted over) with 1 to `most` objects.

    Returns:
        The image, uint8 [H, W, 3], the objects' visible masks, bool [H, W], and their classes.

    Later objects lie on top. None hides more than 25 % of another, and at least 85 % of each lies inside.
    """
    image = behind
    height, width = image.shape[:2]
    masks: list[Array] = []
    full: list[int] = []
    kinds: list[str] = []
    for _ in range(int(rng.integers(1, most + 1))):
        for _ in range(12):
            kind = CLASSES[int(rng.integers(len(CLASSES)))]
            radius = min(height, width) * rng.uniform(0.13, 0.28)
            centre = (rng.uniform(0, width), rng.uniform(0, height))
            shape = pose(outline(kind, rng), radius, centre, rng)
            alpha, share = coverage(shape, height, width)
            mask = alpha > 0.5
            hidden = [int((m & ~mask).sum()) < 0.75 * f for m, f in zip(masks, full, strict=True)]
            if share < 0.85 or not mask.any() or any(hidden):
                continue
            _paint(image, alpha, rng)
            masks = [m & ~mask for m in masks]
            masks.append(mask)
            full.append(int(mask.sum()))
            kinds.append(kind)
            break
    return develop(image, rng), masks, kinds


def _paint(image: Array, alpha: Array, rng: np.random.Generator) -> None:
    """Lay an object over the image, in place, with a soft shadow beside it."""
    from PIL import Image, ImageFilter

    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    margin = 12  # for the shadow: its offset and three times its softness
    part = (
        slice(max(rows[0] - margin, 0), rows[-1] + 1 + margin),
        slice(max(columns[0] - margin, 0), columns[-1] + 1 + margin),
    )
    view, cover = image[part], alpha[part]
    height, width = cover.shape
    blurred = Image.fromarray((cover * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(3))
    dy, dx = (int(n) for n in rng.integers(-3, 4, 2))
    moved = blurred.transform((width, height), Image.Transform.AFFINE, (1, 0, -dx, 0, 1, -dy))
    shadow = np.asarray(moved, np.float32) / 255
    view *= 1 - np.float32(rng.uniform(0.1, 0.45)) * shadow[..., None]
    opaque = cover[..., None] * np.float32(rng.uniform(0.88, 1.0))
    view += opaque * (surface(height, width, rng) - view)
