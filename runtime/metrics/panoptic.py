"""Panoptic quality (Kirillov et al., CVPR 2019, "Panoptic Segmentation").

A predicted segment matches one of the truth of the same class if their IoU exceeds 0.5 (then there is at most
one). PQ of a class is the sum of the matches' IoU over TP + FP / 2 + FN / 2; the mean goes over classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from detc.runtime.data.segment_map import VOID

Array = np.ndarray[Any, Any]


@dataclass
class _Counts:
    iou: float = 0.0
    tp: int = 0
    fp: int = 0
    fn: int = 0


def _no_counts() -> dict[int, _Counts]:
    return defaultdict(_Counts)


@dataclass
class PanopticQuality:
    """Collects images; `things` are the class ids of countable objects, all others are stuff."""

    things: frozenset[int]
    classes: frozenset[int]
    _counts: dict[int, _Counts] = field(default_factory=_no_counts)

    def add(
        self,
        truth: Array,
        truth_segments: Iterable[Mapping[str, Any]],
        found: Array,
        found_segments: Iterable[Mapping[str, Any]],
    ) -> None:
        """Add an image.

        Args:
            truth, found: segment ids, int64 [H, W]; 0 is void.
            truth_segments, found_segments: dicts with `id`, `category_id`, and `iscrowd` in the truth.

        Raises:
            ValueError: if maps and lists of segments do not agree, or a class is unknown.
        """
        if truth.shape != found.shape:
            raise ValueError(f"a prediction of {found.shape} for an image of {truth.shape}")
        wanted = {s["id"]: s for s in truth_segments}
        given = {s["id"]: int(s["category_id"]) for s in found_segments}
        found_areas = _areas(found)
        _check(found_areas, given, self.classes)
        truth_areas = _areas(truth)
        pairs, overlaps = np.unique(np.stack([truth.ravel(), found.ravel()]), axis=1, return_counts=True)
        overlap = {(int(t), int(f)): int(n) for (t, f), n in zip(pairs.T, overlaps, strict=True)}

        hit_truth, hit_found = set(), set()
        for (t, f), both in overlap.items():
            if t not in wanted or f not in given or wanted[t].get("iscrowd"):
                continue
            kind = int(wanted[t]["category_id"])
            if kind != given[f]:
                continue
            union = truth_areas[t] + found_areas[f] - both - overlap.get((VOID, f), 0)
            if both / union > 0.5:
                self._counts[kind].tp += 1
                self._counts[kind].iou += both / union
                hit_truth.add(t)
                hit_found.add(f)
        crowds: dict[int, int] = {}
        for t, segment in wanted.items():
            if segment.get("iscrowd"):
                crowds[int(segment["category_id"])] = t
            elif t not in hit_truth:
                self._counts[int(segment["category_id"])].fn += 1
        for f, kind in given.items():
            if f in hit_found:
                continue
            excused = overlap.get((VOID, f), 0)
            if kind in crowds:
                excused += overlap.get((crowds[kind], f), 0)
            if excused / found_areas[f] <= 0.5:
                self._counts[kind].fp += 1

    def merge(self, other: PanopticQuality) -> None:
        """Add what another one collected."""
        for kind, counts in other._counts.items():
            mine = self._counts[kind]
            mine.iou += counts.iou
            mine.tp, mine.fp, mine.fn = mine.tp + counts.tp, mine.fp + counts.fp, mine.fn + counts.fn

    def by_class(self) -> dict[int, float]:
        """PQ of each class that occurs, as a fraction."""
        rows = {kind: _quality(counts) for kind, counts in sorted(self._counts.items())}
        return {kind: row[0] for kind, row in rows.items() if row is not None}

    def compute(self) -> dict[str, float]:
        """PQ, SQ, RQ over all classes that occur, and with `_things`, `_stuff`, as fractions."""
        out: dict[str, float] = {}
        groups = {"": self.classes, "_things": self.things, "_stuff": self.classes - self.things}
        for suffix, members in groups.items():
            every = [_quality(self._counts[c]) for c in sorted(members) if c in self._counts]
            rows = [r for r in every if r is not None]
            if rows:
                for name, value in zip(("PQ", "SQ", "RQ"), np.mean(rows, axis=0), strict=True):
                    out[name + suffix] = float(value)
        return out


def _areas(ids: Array) -> dict[int, int]:
    values, counts = np.unique(ids, return_counts=True)
    return {int(v): int(n) for v, n in zip(values, counts, strict=True)}


def _check(areas: dict[int, int], given: dict[int, int], classes: frozenset[int]) -> None:
    unlisted = areas.keys() - given.keys() - {VOID}
    absent = given.keys() - areas.keys()
    unknown = set(given.values()) - classes
    for what, which in (
        ("segments in the map are not listed", unlisted),
        ("listed segments are not in the map", absent),
        ("class ids are unknown", unknown),
    ):
        if which:
            raise ValueError(f"prediction: {what}: {sorted(which)[:5]}")


def _quality(c: _Counts) -> tuple[float, float, float] | None:
    """(PQ, SQ, RQ) of a class, None if it occurs neither in truth nor in predictions."""
    total = c.tp + c.fp / 2 + c.fn / 2
    if not total:
        return None
    return c.iou / total, c.iou / c.tp if c.tp else 0.0, c.tp / total
