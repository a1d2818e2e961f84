"""Short clips of the built-in sample set: shapes that move over a still background, in MOTChallenge's format.

    ROOT/<split>/clip-0000/img1/000001.jpg …   gt/gt.txt   seqinfo.ini

Made from a seed alone, clip by clip.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from detc.runtime.data.shapes import CLASSES, Outline, coverage, outline, pose
from detc.runtime.data.synth import _paint, read_marker
from detc.runtime.data.textures import background, develop

Array = np.ndarray[Any, Any]
VERSION = 1
MARKER = "synth.json"
SEEN = 0.25  # objects that show less of themselves are not annotated
RATE = 10  # frames a second, as `seqinfo.ini` says


@dataclass(frozen=True)
class ClipSettings:
    """What a set of clips is made from; sizes in pixels."""

    train: int = 16
    val: int = 4
    frames: int = 30
    seed: int = 0
    width: int = 192
    height: int = 192
    most_objects: int = 5
    fastest: float = 4.0  # pixels a frame
    clips: int = VERSION


@dataclass(frozen=True)
class Mover:
    """An object: its outline around the origin, where it is, and how far it moves a frame."""

    kind: str
    shape: Outline
    place: tuple[float, float]
    speed: tuple[float, float]
    texture: int

    def moved(self, width: int, height: int) -> Mover:
        """The object a frame later; its centre bounces off the borders."""

        def along(at: float, by: float, limit: int) -> tuple[float, float]:
            by = by if 0 <= at + by <= limit else -by
            return at + by, by

        (x, dx), (y, dy) = map(along, self.place, self.speed, (width, height))
        return replace(self, place=(x, y), speed=(dx, dy))

    def outline(self) -> Outline:
        """The outline where the object is."""
        hole = self.shape.hole
        return Outline(self.shape.outer + self.place, None if hole is None else hole + self.place)


def generate_clips(
    root: str | Path,
    clips: int = 16,
    seed: int = 0,
    *,
    val: int = 4,
    frames: int = 30,
    width: int = 192,
    height: int = 192,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make clips under `root`, unless they are there already with the same settings.

    Args:
        clips, val: clips in the splits `train` and `val`.
        progress: called with (done, total) after each.

    Returns:
        `root`.

    Raises:
        ValueError: if `root` holds something else, or a number is too small.
    """
    settings = ClipSettings(clips, val, frames, seed, width, height)
    if clips < 1 or val < 0 or frames < 2 or min(width, height) < 64:
        raise ValueError(f"clips need frames >= 2 and sides >= 64, not {settings}")
    root = Path(root)
    if read_marker(root) == asdict(settings):
        return root
    if root.exists() and any(root.iterdir()) and read_marker(root) is None:
        raise ValueError(f"{root} is not empty and holds no sample set; choose another folder")
    part = root.with_name(root.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    jobs = [("train", i) for i in range(clips)] + [("val", i) for i in range(val)]
    with ProcessPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for done, _ in enumerate(
            pool.map(_make, *zip(*[(part, settings, s, i) for s, i in jobs], strict=True)), 1
        ):
            if progress is not None:
                progress(done, len(jobs))
    (part / MARKER).write_text(json.dumps(asdict(settings), indent=1) + "\n")
    if root.exists():
        shutil.rmtree(root)
    part.rename(root)
    return root


def _make(part: Path, settings: ClipSettings, split: str, index: int) -> None:
    """Draw one clip and write it."""
    from PIL import Image

    rng = np.random.default_rng([settings.seed, ("train", "val").index(split), index, 7])
    name = f"clip-{index:04d}"
    folder = part / split / name
    (folder / "img1").mkdir(parents=True)
    (folder / "gt").mkdir()
    w, h = settings.width, settings.height
    still = background(h, w, rng)
    light = int(rng.integers(2**31))
    movers = [_mover(settings, rng) for _ in range(int(rng.integers(2, settings.most_objects + 1)))]
    rows = []
    for frame in range(1, settings.frames + 1):
        pixels, boxes = _frame(still, movers, light)
        Image.fromarray(pixels).save(folder / "img1" / f"{frame:06d}.jpg", quality=92)
        for number, (box, seen) in enumerate(boxes, 1):
            if seen >= SEEN:
                x1, y1, x2, y2 = box
                kind = CLASSES.index(movers[number - 1].kind) + 1
                rows.append(f"{frame},{number},{x1},{y1},{x2 - x1},{y2 - y1},1,{kind},{seen:.3f}\n")
        movers = [m.moved(w, h) for m in movers]
    (folder / "gt" / "gt.txt").write_text("".join(rows))
    lines = {
        "name": name,
        "imDir": "img1",
        "frameRate": RATE,
        "seqLength": settings.frames,
        "imWidth": w,
        "imHeight": h,
        "imExt": ".jpg",
    }
    (folder / "seqinfo.ini").write_text("[Sequence]\n" + "".join(f"{k}={v}\n" for k, v in lines.items()))


def _mover(settings: ClipSettings, rng: np.random.Generator) -> Mover:
    kind = CLASSES[int(rng.integers(len(CLASSES)))]
    radius = min(settings.width, settings.height) * rng.uniform(0.09, 0.18)
    angle, fast = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, settings.fastest)
    return Mover(
        kind,
        pose(outline(kind, rng), radius, (0.0, 0.0), rng),
        (float(rng.uniform(0.15, 0.85) * settings.width), float(rng.uniform(0.15, 0.85) * settings.height)),
        (float(fast * np.cos(angle)), float(fast * np.sin(angle))),
        int(rng.integers(2**31)),
    )


def _frame(
    still: Array, movers: list[Mover], light: int
) -> tuple[Array, list[tuple[tuple[int, int, int, int], float]]]:
    """A frame, uint8 [H, W, 3], and of each object the box inside the frame and the share that shows.

    Later objects lie on top.
    """
    image = still.copy()
    h, w = image.shape[:2]
    masks: list[Array] = []
    sizes: list[float] = []
    boxes: list[tuple[int, int, int, int]] = []
    for mover in movers:
        alpha, inside = coverage(mover.outline(), h, w)
        mask = alpha > 0.5
        masks = [m & ~mask for m in masks]
        masks.append(mask)
        sizes.append(float(mask.sum()) / max(inside, 1e-6))
        if not mask.any():
            boxes.append((0, 0, 0, 0))
            continue
        _paint(image, alpha, np.random.default_rng(mover.texture))
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        boxes.append((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))
    seen = [float(m.sum()) / max(s, 1.0) for m, s in zip(masks, sizes, strict=True)]
    return develop(image, np.random.default_rng(light)), list(zip(boxes, seen, strict=True))
