"""CLEAR MOT (Bernardin & Stiefelhagen, EURASIP JIVP 2008), with MOTChallenge's conventions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detc.runtime.metrics.tracks import EPS, Tracks, assign, total

COUNTS = ("CLR_TP", "CLR_FN", "CLR_FP", "IDSW", "MT", "PT", "ML", "Frag", "iou_sum")


def clear_counts(tracks: Tracks, threshold: float = 0.5) -> dict[str, float]:
    """The numbers of one sequence that add up over sequences.

    A match of the frame before is kept while its IoU is at least `threshold`; the rest is matched to the
    highest total IoU. An id switch is a match to another track than the object's last one, however long ago.
    Objects tracked in more than 80 % of their frames are mostly tracked, in less than 20 % mostly lost.
    """
    n = dict.fromkeys(COUNTS, 0.0)
    present, matched, starts = (np.zeros(tracks.truths) for _ in range(3))
    last_ever = np.full(tracks.truths, -1)
    last_frame = np.full(tracks.truths, -1)
    for frame in tracks.frames:
        present[frame.truth] += 1
        if not len(frame.truth) or not len(frame.found):
            n["CLR_FN"] += len(frame.truth)
            n["CLR_FP"] += len(frame.found)
            continue
        keeps = frame.found[None] == last_frame[frame.truth][:, None]
        score = np.where(frame.iou < threshold - EPS, 0.0, 1000.0 * keeps + frame.iou)
        rows, columns = assign(score)
        who, track = frame.truth[rows], frame.found[columns]
        before = last_ever[who]
        n["IDSW"] += int(((before >= 0) & (before != track)).sum())
        untracked = last_frame < 0
        last_ever[who] = track
        last_frame[:] = -1
        last_frame[who] = track
        starts += untracked & (last_frame >= 0)
        matched[who] += 1
        n["CLR_TP"] += len(rows)
        n["CLR_FN"] += len(frame.truth) - len(rows)
        n["CLR_FP"] += len(frame.found) - len(rows)
        n["iou_sum"] += float(frame.iou[rows, columns].sum())
    share = matched[present > 0] / present[present > 0]
    n["MT"] = float((share > 0.8).sum())
    n["PT"] = float((share >= 0.2).sum()) - n["MT"]
    n["ML"] = float(tracks.truths) - n["MT"] - n["PT"]
    n["Frag"] = float((starts[starts > 0] - 1).sum())
    return n


def clear(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    """MOTA, MOTP, recall, precision and the counts, over one or several sequences' `clear_counts`."""
    n = total(parts, COUNTS)
    objects = max(1.0, n["CLR_TP"] + n["CLR_FN"])
    out = {
        "MOTA": (n["CLR_TP"] - n["CLR_FP"] - n["IDSW"]) / objects,
        "MOTP": n.pop("iou_sum") / max(1.0, n["CLR_TP"]),
        "CLR_Re": n["CLR_TP"] / objects,
        "CLR_Pr": n["CLR_TP"] / max(1.0, n["CLR_TP"] + n["CLR_FP"]),
    }
    return {**out, **n}
