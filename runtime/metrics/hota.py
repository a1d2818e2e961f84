"""HOTA (Luiten et al., IJCV 2021): detection and association weigh the same, over several IoU thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from detc.runtime.metrics.tracks import EPS, Tracks

Array = np.ndarray[Any, Any]
ALPHAS = np.arange(0.05, 0.99, 0.05)


@dataclass(frozen=True)
class HotaCounts:
    """One sequence's numbers at each threshold, float64 [19]; association as sums over true positives."""

    tp: Array
    fn: Array
    fp: Array
    iou: Array
    ass: Array
    ass_recall: Array
    ass_precision: Array


def hota_counts(tracks: Tracks) -> HotaCounts:
    """Match each frame by IoU times how well object and track agree over the sequence, then count."""
    seen_g, seen_p = np.zeros((tracks.truths, 1)), np.zeros((1, tracks.founds))
    potential = np.zeros((tracks.truths, tracks.founds))
    for frame in tracks.frames:
        rest = frame.iou.sum(0)[None] + frame.iou.sum(1)[:, None] - frame.iou
        soft = np.divide(frame.iou, rest, out=np.zeros_like(frame.iou), where=rest > EPS)
        potential[frame.truth[:, None], frame.found[None]] += soft
        seen_g[frame.truth] += 1
        seen_p[0, frame.found] += 1
    alignment = potential / np.maximum(seen_g + seen_p - potential, EPS)

    tp, fn, fp, iou = (np.zeros(len(ALPHAS)) for _ in range(4))
    matches = np.zeros((len(ALPHAS), tracks.truths, tracks.founds))
    for frame in tracks.frames:
        rows, columns = linear_sum_assignment(-alignment[frame.truth[:, None], frame.found[None]] * frame.iou)
        overlap = frame.iou[rows, columns]
        hit = overlap[None] >= ALPHAS[:, None] - EPS
        count = hit.sum(1)
        tp += count
        fn += len(frame.truth) - count
        fp += len(frame.found) - count
        iou += (overlap[None] * hit).sum(1)
        matches[:, frame.truth[rows], frame.found[columns]] += hit
    union = np.maximum(1, seen_g + seen_p - matches)
    return HotaCounts(
        tp, fn, fp, iou,
        (matches**2 / union).sum((1, 2)),
        (matches**2 / np.maximum(1, seen_g)).sum((1, 2)),
        (matches**2 / np.maximum(1, seen_p)).sum((1, 2)),
    )  # fmt: skip


def hota(parts: Sequence[HotaCounts]) -> dict[str, float]:
    """HOTA, DetA, AssA, LocA and their recalls and precisions, means over the thresholds."""
    whole = {k: np.sum([getattr(p, k) for p in parts], axis=0) for k in HotaCounts.__dataclass_fields__}
    tp, fn, fp = whole["tp"], whole["fn"], whole["fp"]
    det = tp / np.maximum(1, tp + fn + fp)
    ass = whole["ass"] / np.maximum(1, tp)
    values = {
        "HOTA": np.sqrt(det * ass),
        "DetA": det,
        "AssA": ass,
        "LocA": np.maximum(1e-10, whole["iou"]) / np.maximum(1e-10, tp),
        "DetRe": tp / np.maximum(1, tp + fn),
        "DetPr": tp / np.maximum(1, tp + fp),
        "AssRe": whole["ass_recall"] / np.maximum(1, tp),
        "AssPr": whole["ass_precision"] / np.maximum(1, tp),
    }
    return {name: float(v.mean()) for name, v in values.items()}
