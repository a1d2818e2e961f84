"""IDF1 (Ristani et al., ECCV 2016 workshops): one track to one object over the whole sequence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from detc.runtime.metrics.tracks import Tracks, total

COUNTS = ("IDTP", "IDFN", "IDFP")


def identity_counts(tracks: Tracks, threshold: float = 0.5) -> dict[str, float]:
    """IDTP, IDFN, IDFP of one sequence: the assignment of tracks to objects with the fewest errors.

    Objects and tracks may stay alone, at the price of all their frames.
    """
    g, p = tracks.truths, tracks.founds
    together = np.zeros((g, p))
    seen_g, seen_p = np.zeros(g), np.zeros(p)
    for frame in tracks.frames:
        rows, columns = np.nonzero(frame.iou >= threshold)
        together[frame.truth[rows], frame.found[columns]] += 1
        seen_g[frame.truth] += 1
        seen_p[frame.found] += 1
    never = 1e10
    misses, ghosts = np.zeros((g + p, g + p)), np.zeros((g + p, g + p))
    ghosts[g:, :p] = misses[:g, p:] = never
    misses[:g, :p] = seen_g[:, None] - together
    ghosts[:g, :p] = seen_p[None] - together
    misses[np.arange(g), p + np.arange(g)] = seen_g
    ghosts[g + np.arange(p), np.arange(p)] = seen_p
    rows, columns = linear_sum_assignment(misses + ghosts)
    missed, ghostly = float(misses[rows, columns].sum()), float(ghosts[rows, columns].sum())
    return {"IDTP": float(seen_g.sum()) - missed, "IDFN": missed, "IDFP": ghostly}


def identity(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    """IDF1, IDR, IDP and the counts, over one or several sequences' `identity_counts`."""
    n = total(parts, COUNTS)
    return {
        "IDF1": n["IDTP"] / max(1.0, n["IDTP"] + 0.5 * n["IDFP"] + 0.5 * n["IDFN"]),
        "IDR": n["IDTP"] / max(1.0, n["IDTP"] + n["IDFN"]),
        "IDP": n["IDTP"] / max(1.0, n["IDTP"] + n["IDFP"]),
        **n,
    }
