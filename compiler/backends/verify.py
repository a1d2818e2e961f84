"""Comparing the detections of two back ends: the same boxes, scores, labels and order, up to ties."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

BOX_TOLERANCE = 0.01
BOX_SHARE = 4e-6  # of a coordinate: of boxes that end far outside of the image, fp32 keeps no more
SCORE_TOLERANCE = 1e-4
MASK_TOLERANCE = (
    0.01  # of the pixels of either mask may differ: those at the threshold; and always this many:
)
MASK_PIXELS = 4


@dataclass(frozen=True)
class Tolerance:
    """How far boxes (pixels) and scores may lie apart, and which share of an image's detections may lack a partner.

    Rounding can lift an overlap over the threshold of the suppression: then a box goes, and another one stays.
    """

    box: float = BOX_TOLERANCE
    score: float = SCORE_TOLERANCE
    alone: float = 0.0


EXACT = Tolerance()
# fp16 keeps three digits: of a logit, hence of a score, and of a distance that is regressed.
HALF = Tolerance(box=2.0, score=0.02, alone=0.1)
DETECTIONS = ("boxes", "scores", "labels", "valid")
MAPS = ("panoptic", "semantic")


@dataclass
class Comparison:
    """How far two results lie apart. `problem` is the first reason why they do not agree, or None."""

    images: int = 0
    detections: int = 0
    box: float = 0.0
    score: float = 0.0
    mask: float = 0.0  # the largest share of pixels of two masks that only one of them has
    values: int = 0  # entries before the selections, compared where nothing is detected
    problem: str | None = None

    def merge(self, other: Comparison) -> None:
        """Take another image's comparison in."""
        self.images += other.images
        self.detections += other.detections
        self.box, self.score = max(self.box, other.box), max(self.score, other.score)
        self.mask = max(self.mask, other.mask)
        self.values += other.values
        self.problem = self.problem or other.problem


def compare(
    expected: Mapping[str, Any],
    found: Mapping[str, Any],
    name: str = "image",
    tolerance: Tolerance = EXACT,
) -> Comparison:
    """Compare the outputs of a batch (`boxes` [B, K, 4], `scores`, `labels`, `valid` [B, K], perhaps `masks`).

    A map of segments or of classes counts as the masks of the detections that it shows.

    Detections correspond by rank; among scores closer than the tolerance any order counts as the same. At the
    end of the list, where the capacity cuts between near-equal scores, either may have been kept.
    """
    result = Comparison()
    for key in (*DETECTIONS, *(k for k in ("masks", *MAPS) if k in expected)):
        if key not in found:
            result.problem = f"the output `{key}` is missing"
            return result
    expected, found = _with_masks_of_maps(expected), _with_masks_of_maps(found)
    keys = (*DETECTIONS, "masks") if "masks" in expected else DETECTIONS
    for b in range(np.asarray(expected["scores"]).shape[0]):
        one = {k: np.asarray(expected[k])[b] for k in keys}
        two = {k: np.asarray(found[k])[b] for k in keys}
        result.merge(_one(one, two, f"{name}[{b}]", tolerance))
    for key in expected:
        if key not in (*keys, *MAPS) and key in found:
            gap = float(
                np.abs(np.asarray(expected[key], np.float64) - np.asarray(found[key], np.float64)).max(
                    initial=0.0
                )
            )
            if gap > 1e-3 and result.problem is None:
                result.problem = f"the output `{key}` differs by {gap:.3g}"
    return result


def _with_masks_of_maps(outputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """`outputs` with `masks` bool [B, K, H, W] where there is a map of segments or of classes."""
    labels_BK = np.asarray(outputs["labels"])
    if "panoptic" in outputs:
        rows_K = np.arange(labels_BK.shape[1]) + 1
        masks = np.asarray(outputs["panoptic"])[:, None] == rows_K[:, None, None]
    elif "semantic" in outputs:
        masks = np.asarray(outputs["semantic"])[:, None] == labels_BK[:, :, None, None]
    else:
        return outputs
    return {**outputs, "masks": masks}


def _one(
    expected: Mapping[str, Any], found: Mapping[str, Any], name: str, tolerance: Tolerance
) -> Comparison:
    a, b = (
        {k: v[np.asarray(x["valid"], bool)] for k, v in x.items() if k != "valid"} for x in (expected, found)
    )
    result = Comparison(1, len(a["scores"]))
    capacity = len(expected["valid"])
    free = np.ones(len(b["scores"]), bool)
    may_be_alone = int(tolerance.alone * max(len(a["scores"]), len(b["scores"])))
    alone = 0
    cut = min(a["scores"].min(initial=np.inf), b["scores"].min(initial=np.inf)) + 2 * tolerance.score
    full = len(a["scores"]) == capacity or len(b["scores"]) == capacity
    for i, score in enumerate(a["scores"]):
        near = free & (np.abs(b["scores"] - score) <= tolerance.score) & (b["labels"] == a["labels"][i])
        gaps = np.where(near, np.abs(b["boxes"] - a["boxes"][i]).max(-1, initial=0.0), np.inf)
        j = int(gaps.argmin()) if len(gaps) else -1
        if j < 0 or gaps[j] > max(tolerance.box, BOX_SHARE * float(np.abs(a["boxes"][i]).max(initial=0.0))):
            if score <= cut and (full or len(a["scores"]) != len(b["scores"])):
                continue
            alone += 1
            if alone <= may_be_alone:
                continue
            best = (
                f"the nearest differs by {gaps[j]:.3g} px"
                if j >= 0 and np.isfinite(gaps[j])
                else "there is none with its label and score"
            )
            result.problem = f"{name}: detection {i} (label {a['labels'][i]}, score {score:.4f}) has no counterpart: {best}"
            return result
        free[j] = False
        result.box = max(result.box, float(gaps[j]))
        result.score = max(result.score, float(abs(b["scores"][j] - score)))
        if "masks" in a:
            apart, either = (
                int((a["masks"][i] ^ b["masks"][j]).sum()),
                int((a["masks"][i] | b["masks"][j]).sum()),
            )
            result.mask = max(result.mask, apart / max(either, 1))
            if apart > max(MASK_PIXELS, MASK_TOLERANCE * either):
                result.problem = f"{name}: the masks of detection {i} differ in {apart} of {either} pixels"
                return result
    extra = [
        j
        for j in np.flatnonzero(free)
        if b["scores"][j] > cut or not (full or len(a["scores"]) != len(b["scores"]))
    ]
    if len(extra) > may_be_alone:
        j = int(extra[0])
        result.problem = f"{name}: an extra detection (label {b['labels'][j]}, score {b['scores'][j]:.4f})"
    return result
