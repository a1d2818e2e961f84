"""Matching the tracks of a video with the detections of a frame.

A match is `detection` [B, N], the detection of each track, and `track` [B, K], the track of each detection,
both int64 with -1 for none.

Shape legend: B videos, N track slots, K detections.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detc.compiler.functional.dense_assign import pairwise_iou
from detc.compiler.functional.tracks import status
from detc.nativeops import ops


def match_tracks(
    tracks: dict[str, Tensor],
    detections: dict[str, Tensor],
    matches: dict[str, Tensor] | None = None,
    *,
    above: float,
    below: float | None,
    iou: float,
    of: list[str],
    fuse: bool,
    by_class: bool,
) -> dict[str, Tensor]:
    """`MatchTracks`: one round of association by overlap, over what earlier rounds (`matches`) left.

    Args:
        above, below: detections with above <= score < below take part; None: no upper limit.
        iou: the least similarity of a pair.
        of: tracks that take part, see `tracks.status`.
        fuse: similarity is IoU times the detection's score, instead of IoU alone.
        by_class: only pairs of one class.

    Returns:
        The matches of earlier rounds and of this one: of all ways to match, the one with the greatest sum of
        similarities beyond `iou`, which is what an assignment with a limit on the cost gives.
    """
    scores = detections["scores"]
    rows_BN, columns_BK = status(tracks, of), detections["valid"] & (scores >= above)
    if below is not None:
        columns_BK = columns_BK & (scores < below)
    if matches is not None:
        rows_BN = rows_BN & (matches["detection"] < 0)
        columns_BK = columns_BK & (matches["track"] < 0)
    similar_BNK = pairwise_iou(tracks["boxes"], detections["boxes"])
    if fuse:
        similar_BNK = similar_BNK * scores[:, None]
    if by_class:
        same_BNK = tracks["labels"][:, :, None] == detections["labels"][:, None]
        similar_BNK = torch.where(same_BNK, similar_BNK, torch.zeros_like(similar_BNK))
    gain_BNK = (similar_BNK - iou).clamp(min=0)
    found = ops.linear_assignment(-gain_BNK, row_valid_BN=rows_BN, col_valid_BM=columns_BK)
    detection_BN = _kept(found.col_of_row, gain_BNK > 0)
    track_BK = _kept(found.row_of_col, (gain_BNK > 0).transpose(1, 2))
    if matches is not None:
        detection_BN = torch.maximum(detection_BN, matches["detection"])
        track_BK = torch.maximum(track_BK, matches["track"])
    return {"detection": detection_BN, "track": track_BK}


def _kept(partner_BN: Tensor, good_BNK: Tensor) -> Tensor:
    """Partners whose pair is good; -1 otherwise."""
    good_BN = good_BNK.gather(2, partner_BN.clamp(min=0)[..., None])[..., 0]
    return torch.where((partner_BN >= 0) & good_BN, partner_BN, -1)
