"""Tracks for evaluation: reading MOTChallenge files, and the benchmark's preprocessing.

Legend: T frames, G objects of the truth and P tracked ones in a frame.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from detc.runtime.metrics.voc import pairwise_iou

Array = np.ndarray[Any, Any]
EPS = float(np.finfo(float).eps)
PEDESTRIAN = 1
DISTRACTORS = (2, 7, 8, 12)  # person on vehicle, static person, distractor, reflection (MOT16, MOT17)


@dataclass(frozen=True)
class Frame:
    """Ids (from 0, without gaps over the sequence) and similarity of what is in a frame.

    truth int64 [G], found int64 [P], iou float64 [G, P].
    """

    truth: Array
    found: Array
    iou: Array


@dataclass(frozen=True)
class Tracks:
    """A sequence; `truths`, `founds` count the different ids."""

    frames: tuple[Frame, ...]
    truths: int
    founds: int


Rows = dict[int, list[tuple[float, Array, float, float]]]  # frame -> (id, xyxy, confidence, class)


def read_mot(path: str | Path) -> Rows:
    """A MOTChallenge text file: `frame, id, x, y, w, h, confidence, class, …`.

    Raises:
        ValueError: if a line has fewer than six numbers.
    """
    return parse_mot(Path(path).read_text(encoding="utf-8"), str(path))


def parse_mot(text: str, path: str = "") -> Rows:
    """The same of a text; `path` is what messages call it."""
    rows: Rows = defaultdict(list)
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        fields = [float(v) for v in line.split(",")]
        if len(fields) < 6:
            raise ValueError(f"{path}: line {number}: {len(fields)} numbers, expected 6 or more")
        frame, who, x, y, w, h = fields[:6]
        confidence = fields[6] if len(fields) > 6 else 1.0
        kind = fields[7] if len(fields) > 7 else -1.0
        rows[int(frame)].append((who, np.array([x, y, x + w, y + h]), confidence, kind))
    return rows


def sequence(truth: Rows, found: Rows, *, length: int | None = None, mot17: bool = False) -> Tracks:
    """Pair truth and tracks frame by frame.

    Args:
        length: number of frames; the last one that either mentions by default.
        mot17: apply MOT16/17's rules: tracked boxes that match a distractor are taken out, and only
            pedestrians that are marked to count stay in the truth. Without it the truth stays as it is.
    """
    last = length or max([0, *truth, *found])
    plain: list[tuple[list[float], list[float], Array]] = []
    for t in range(1, last + 1):
        gs, ps = truth.get(t, []), found.get(t, [])
        boxes_g = np.array([b for _, b, _, _ in gs]).reshape(-1, 4)
        boxes_p = np.array([b for _, b, _, _ in ps]).reshape(-1, 4)
        iou = pairwise_iou(boxes_g, boxes_p)
        keep_g, keep_p = np.ones(len(gs), bool), np.ones(len(ps), bool)
        if mot17:
            kinds = np.array([k for *_, k in gs])
            keep_p = _undistracted(iou, kinds)
            keep_g = (kinds == PEDESTRIAN) & (np.array([c for _, _, c, _ in gs]) != 0)
        ids_g = [g[0] for g, keep in zip(gs, keep_g, strict=True) if keep]
        ids_p = [p[0] for p, keep in zip(ps, keep_p, strict=True) if keep]
        plain.append((ids_g, ids_p, iou[keep_g][:, keep_p]))
    number_g, number_p = (_numbers(frame[i] for frame in plain) for i in (0, 1))
    frames = tuple(
        Frame(
            np.array([number_g[i] for i in gs], np.int64), np.array([number_p[i] for i in ps], np.int64), iou
        )
        for gs, ps, iou in plain
    )
    return Tracks(frames, len(number_g), len(number_p))


def _undistracted(iou: Array, kinds: Array) -> Array:
    """Which tracked boxes stay: all but those matched to a distractor."""
    keep = np.ones(iou.shape[1], bool)
    if iou.size:
        rows, columns = assign(np.where(iou < 0.5 - EPS, 0.0, iou))
        keep[columns[np.isin(kinds[rows], DISTRACTORS)]] = False
    return keep


def _numbers(frames: Any) -> dict[float, int]:
    ids = sorted({i for frame in frames for i in frame})
    return {who: number for number, who in enumerate(ids)}


def assign(score: Array) -> tuple[Array, Array]:
    """Rows and columns of the assignment with the highest total score, without pairs that score nothing."""
    rows, columns = linear_sum_assignment(-score)
    real = score[rows, columns] > EPS
    return rows[real], columns[real]


def total(parts: Sequence[dict[str, float]], names: Sequence[str]) -> dict[str, float]:
    """Sums of the named numbers."""
    return {name: float(sum(p[name] for p in parts)) for name in names}
