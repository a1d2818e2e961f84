"""Comparing the tracks of two back ends, frame by frame: the same boxes under the same ids, up to naming."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from detc.compiler.backends.verify import BOX_TOLERANCE, SCORE_TOLERANCE

FIELDS = ("boxes", "scores", "labels", "ids", "valid")


class SameTracks:
    """Takes the frames of a batch of videos in order. Which id a track has may differ, its continuity may not."""

    def __init__(self) -> None:
        self.names: dict[tuple[int, int], int] = {}
        self.back: dict[tuple[int, int], int] = {}
        self.frames = self.tracks = 0
        self.box = 0.0

    def compare(self, expected: Mapping[str, Any], found: Mapping[str, Any], name: str) -> str | None:
        """The first reason why the tracks [B, N] of this frame do not agree with all before, or None."""
        a, b = ({k: np.asarray(x[k]) for k in FIELDS} for x in (expected, found))
        self.frames += 1
        for video in range(len(a["valid"])):
            one = {k: v[video][a["valid"][video]] for k, v in a.items()}
            two = {k: v[video][b["valid"][video]] for k, v in b.items()}
            problem = self._video(video, one, two)
            if problem is not None:
                return f"{name}[{video}]: {problem}"
        return None

    def _video(self, video: int, one: dict[str, Any], two: dict[str, Any]) -> str | None:
        if len(one["ids"]) != len(two["ids"]):
            return f"{len(one['ids'])} tracks and {len(two['ids'])}"
        free = np.ones(len(two["ids"]), bool)
        for i, id in enumerate(one["ids"]):
            near = free & (two["labels"] == one["labels"][i])
            near &= np.abs(two["scores"] - one["scores"][i]) <= SCORE_TOLERANCE
            gaps = np.where(near, np.abs(two["boxes"] - one["boxes"][i]).max(-1, initial=0.0), np.inf)
            known = self.names.get((video, int(id)))
            if known is not None:  # of several on one spot, the one with its name
                gaps = np.where(two["ids"] == known, gaps, np.inf)
            j = int(gaps.argmin())
            if gaps[j] > BOX_TOLERANCE:
                return f"track {id} has no counterpart"
            other = int(two["ids"][j])
            if self.back.setdefault((video, other), int(id)) != int(id):
                return f"track {id} continues as another track"
            self.names[video, int(id)] = other
            free[j] = False
            self.tracks += 1
            self.box = max(self.box, float(gaps[j]))
        return None
