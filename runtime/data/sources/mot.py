"""MOTChallenge folders: a folder a sequence, with `img1/`, `gt/gt.txt`, `det/det.txt`, `seqinfo.ini`."""

from __future__ import annotations

from configparser import ConfigParser
from configparser import Error as IniError
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detc.dsl.diagnostics import error
from detc.runtime.data.records import Annotations, Problem, Record, Tally, make_record

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@dataclass(frozen=True)
class Sequence:
    """One folder. `frames` are image files in order; `rate` frames a second."""

    name: str
    folder: Path
    frames: tuple[Path, ...]
    rate: float = 30.0
    length: int = 0
    size: tuple[int, int] | None = None  # (width, height), as seqinfo.ini says

    @property
    def truth(self) -> Path | None:
        """The ground truth's file, if there is one."""
        return _file(self.folder / "gt" / "gt.txt")

    @property
    def detections(self) -> Path | None:
        """The file of public detections, if there is one."""
        return _file(self.folder / "det" / "det.txt")


def _file(path: Path) -> Path | None:
    return path if path.is_file() else None


def read_sequence(folder: Path) -> Sequence:
    """The sequence in a folder, or a folder of images as one.

    Raises:
        DetError: DET0903 if its seqinfo.ini cannot be read.
    """
    info: dict[str, str] = {}
    if (folder / "seqinfo.ini").is_file():
        parser = ConfigParser()
        try:
            parser.read(folder / "seqinfo.ini", encoding="utf-8")
            info = dict(parser["Sequence"])
        except (IniError, KeyError, UnicodeDecodeError) as fault:
            raise error("DET0903", f"{folder / 'seqinfo.ini'} is no MOTChallenge header: {fault}") from None
    inner = folder / info.get("imdir", "img1")
    place = inner if inner.is_dir() else folder
    frames = tuple(sorted(p for p in place.iterdir() if p.suffix.lower() in SUFFIXES))
    try:
        size = (int(info["imwidth"]), int(info["imheight"])) if "imwidth" in info else None
        length = int(info.get("seqlength", len(frames)))
        rate = float(info.get("framerate", 30))
    except (KeyError, ValueError) as fault:
        raise error("DET0903", f"{folder / 'seqinfo.ini'}: {fault} is no number") from None
    return Sequence(folder.name, folder, frames, rate, length, size)


def find_sequences(folder: Path) -> list[Sequence]:
    """The sequences of a folder: itself, or its subfolders, by name."""
    if not folder.is_dir():
        raise error("DET0903", f"there is no folder {folder}")
    own = read_sequence(folder)
    if own.frames or own.truth or own.detections:
        return [own]
    inner = [read_sequence(p) for p in sorted(folder.iterdir()) if p.is_dir()]
    found = [s for s in inner if s.frames or s.truth or s.detections]
    if not found:
        raise error(
            "DET0903",
            f"{folder} holds no sequence",
            help="a sequence is a folder of images, or one with img1/, gt/gt.txt or det/det.txt",
        )
    return found


def read_truth(path: Path) -> dict[int, list[tuple[int, tuple[float, float, float, float], float, int]]]:
    """Rows of gt.txt by frame: id, xyxy box, whether it counts, class number (1-based; 1 if not given)."""
    from detc.runtime.metrics.tracks import read_mot

    try:
        rows = read_mot(path)
    except ValueError as fault:
        raise error("DET0903", str(fault)) from None
    return {
        frame: [(int(w), tuple(map(float, b)), c, int(k) if k >= 1 else 1) for w, b, c, k in items]  # type: ignore[misc]
        for frame, items in rows.items()
    }


def read_mot_split(folder: Path, split: str, classes: tuple[str, ...]) -> Annotations:
    """All frames of a split's sequences as images; ids are `<sequence>/<frame>`."""
    tally = Tally()
    records: list[Record] = []
    for sequence in find_sequences(folder):
        truth: dict[int, list[Any]] = read_truth(sequence.truth) if sequence.truth else {}
        if sequence.truth is None:
            tally.problems.append(Problem(str(sequence.folder), "no gt/gt.txt: its frames have no truth"))
        for number, path in enumerate(sequence.frames, 1):
            objects = []
            name = f"{sequence.name}/{path.stem}"
            for _, box, counts, kind in truth.get(number, ()):
                if kind > len(classes):
                    tally.drop_box(f"class number {kind}, and there are {len(classes)} names", name)
                    continue
                objects.append({"box": box, "label": kind - 1, "ignore": counts == 0})
            records.append(make_record(name, str(path), sequence.size, objects, tally, file=name))
    return Annotations(split, classes, records, tally)
