"""Images of a folder, without truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detc.dsl.diagnostics import error
from detc.runtime.data.records import Annotations, Record

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def read_folder(root: str, classes: tuple[str, ...]) -> Annotations:
    """A record for each image file below `root`, in order of their paths.

    Raises:
        DetError: DET0903 if there is no such folder, or no image in it.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise error("DET0903", f"{folder}: no such folder of images")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not files:
        raise error("DET0903", f"{folder}: no image in it (looked for {', '.join(sorted(SUFFIXES))})")
    return Annotations("train", classes, [_record(p, p.relative_to(folder).as_posix()) for p in files])


def _record(path: Path, name: str) -> Record:
    nothing = np.zeros(0)
    flags = np.zeros(0, bool)
    return Record(
        id=name,
        path=str(path),
        width=None,  # known once it is decoded
        height=None,
        boxes=np.zeros((0, 4)),
        labels=nothing.astype(np.int64),
        areas=nothing,
        crowd=flags,
        ignore=flags.copy(),
        normalized=True,
    )
