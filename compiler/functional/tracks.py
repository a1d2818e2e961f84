"""The tracks of a video as padded tensors: beginning, moving, ending and reporting them.

A set of tracks is a dict of tensors with N slots for each of B videos; a slot that is not `valid` is free.

============  ====================  ========================================================================
`boxes`       [B, N, 4] float       the last estimate, xyxy in pixels
`scores`      [B, N] float          of the detection matched last
`labels`      [B, N] int64          likewise
`valid`       [B, N] bool           the slot holds a track
`ids`         [B, N] int64          1, 2, 3 … in the order of birth; 0 in a free slot
`mean`        [B, N, 4] float       the filter's position, see `kalman`
`velocity`    [B, N, 4] float       its change a frame
`covariance`  [B, N, 4, 3] float    (position variance, covariance, velocity variance) of each coordinate
`age`         [B, N] int64          frames since the last match
`hits`        [B, N] int64          matches in a row; the detection that began the track does not count
`confirmed`   [B, N] bool           the track is trusted to outlive a frame without a match
`born`        [B, N] int64          the frame that it began in
`last_id`     [B] int64             the highest id given out so far
`frame`       [B] int64             frames seen so far
============  ====================  ========================================================================

Videos of a batch are independent; no shape depends on how many objects there are.
Shape legend: B videos, N track slots, K detections.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detc.compiler.functional.dense_assign import pairwise_iou
from detc.compiler.functional.kalman import kalman_begin, kalman_correct, kalman_predict, mean_to_boxes


def no_tracks(like: Tensor, *, cap: int) -> dict[str, Tensor]:
    """`NoTracks`: `cap` free slots for each video of the batch of `like`."""
    b, device = like.shape[0], like.device
    whole = {"dtype": torch.int64, "device": device}
    return {
        "boxes": torch.zeros((b, cap, 4), device=device),
        "scores": torch.zeros((b, cap), device=device),
        "labels": torch.zeros((b, cap), **whole),  # type: ignore[call-overload]
        "valid": torch.zeros((b, cap), dtype=torch.bool, device=device),
        "ids": torch.zeros((b, cap), **whole),  # type: ignore[call-overload]
        "mean": torch.zeros((b, cap, 4), device=device),
        "velocity": torch.zeros((b, cap, 4), device=device),
        "covariance": torch.zeros((b, cap, 4, 3), device=device),
        "age": torch.zeros((b, cap), **whole),  # type: ignore[call-overload]
        "hits": torch.zeros((b, cap), **whole),  # type: ignore[call-overload]
        "confirmed": torch.zeros((b, cap), dtype=torch.bool, device=device),
        "born": torch.zeros((b, cap), **whole),  # type: ignore[call-overload]
        "last_id": torch.zeros((b,), **whole),  # type: ignore[call-overload]
        "frame": torch.zeros((b,), **whole),  # type: ignore[call-overload]
    }


def status(tracks: dict[str, Tensor], of: list[str]) -> Tensor:
    """[B, N] bool: valid tracks that are "new" (not confirmed), "tracked" (matched in the last frame) or
    "lost" (not matched in it), whichever `of` names."""
    new, seen = ~tracks["confirmed"], tracks["age"] == 0
    parts = {"new": new, "tracked": ~new & seen, "lost": ~new & ~seen}
    chosen = torch.zeros_like(new)
    for name in of:
        chosen = chosen | parts[name]
    return tracks["valid"] & chosen


def predict(tracks: dict[str, Tensor], *, motion: str, of: list[str]) -> dict[str, Tensor]:
    """`KalmanPredict`: the tracks one frame later, by their velocities.

    Args:
        motion: what `mean` holds, see `kalman`.
        of: which tracks move, see `status`; the others stay as they are.
    """
    moves_BN = status(tracks, of)
    lost_BN = status(tracks, ["lost"])
    mean, velocity, covariance = kalman_predict(
        tracks["mean"], tracks["velocity"], tracks["covariance"], lost_BN, motion
    )
    boxes = mean_to_boxes(mean, motion)
    return {
        **tracks,
        "boxes": torch.where(moves_BN[..., None], boxes, tracks["boxes"]),
        "mean": torch.where(moves_BN[..., None], mean, tracks["mean"]),
        "velocity": torch.where(moves_BN[..., None], velocity, tracks["velocity"]),
        "covariance": torch.where(moves_BN[..., None, None], covariance, tracks["covariance"]),
    }


def update(
    tracks: dict[str, Tensor],
    detections: dict[str, Tensor],
    matches: dict[str, Tensor],
    *,
    motion: str,
    keep: int,
) -> dict[str, Tensor]:
    """`UpdateTracks`: matched tracks are corrected by their detections; the others grow older, and end.

    Args:
        matches: `detection` [B, N], the detection of each track, -1 for none.
        keep: frames that a confirmed track may go without a match; a new one ends at the first.
    """
    index_BN = matches["detection"]
    hit_BN = (index_BN >= 0) & tracks["valid"]
    found = take(detections, index_BN.clamp(min=0), ("boxes", "scores", "labels"))
    mean, velocity, covariance = kalman_correct(
        tracks["mean"], tracks["velocity"], tracks["covariance"], found["boxes"], motion
    )
    age = torch.where(hit_BN, 0, tracks["age"] + 1)
    limit = torch.where(tracks["confirmed"], keep, 0)
    valid = tracks["valid"] & (age <= limit)
    hit4, old = (hit_BN & valid)[..., None], valid[..., None]

    def chosen(new: Tensor, before: Tensor, hit: Tensor, stays: Tensor) -> Tensor:
        return torch.where(hit, new, torch.where(stays, before, torch.zeros_like(before)))

    hit2 = hit4[..., 0]
    return {
        "boxes": chosen(mean_to_boxes(mean, motion), tracks["boxes"], hit4, old),
        "scores": chosen(found["scores"], tracks["scores"], hit2, valid),
        "labels": chosen(found["labels"], tracks["labels"], hit2, valid),
        "valid": valid,
        "ids": torch.where(valid, tracks["ids"], 0),
        "mean": chosen(mean, tracks["mean"], hit4, old),
        "velocity": chosen(velocity, tracks["velocity"], hit4, old),
        "covariance": chosen(covariance, tracks["covariance"], hit4[..., None], old[..., None]),
        "age": torch.where(valid, age, 0),
        "hits": torch.where(hit2, tracks["hits"] + 1, 0),
        "confirmed": tracks["confirmed"] & valid,
        "born": torch.where(valid, tracks["born"], 0),
        "last_id": tracks["last_id"],
        "frame": tracks["frame"] + 1,
    }


def start(
    tracks: dict[str, Tensor],
    detections: dict[str, Tensor],
    matches: dict[str, Tensor],
    *,
    motion: str,
    above: float,
    confirm: int,
) -> dict[str, Tensor]:
    """`StartTracks`: detections that no track took begin tracks in the free slots, in their order.

    Args:
        matches: `track` [B, K], the track of each detection, -1 for none.
        above: the least score that begins a track.
        confirm: matches in a row that confirm a track; in the first `confirm` frames all are.

    When all slots are taken, the last detections (those that score lowest) begin none.
    """
    fresh_BK = detections["valid"] & (matches["track"] < 0) & (detections["scores"] >= above)
    k = fresh_BK.shape[1]
    rank_K = torch.arange(k, device=fresh_BK.device)
    order_BK = torch.where(fresh_BK, rank_K, rank_K + k).argsort(1)  # fresh ones first, otherwise in order
    free_BN = ~tracks["valid"]
    place_BN = free_BN.to(torch.int64).cumsum(1) - 1  # which fresh one a free slot takes
    begins_BN = free_BN & (place_BN < fresh_BK.sum(1, keepdim=True))
    index_BN = order_BK.gather(1, place_BN.clamp(0, k - 1))
    found = take(detections, index_BN, ("boxes", "scores", "labels"))
    mean, covariance = kalman_begin(found["boxes"], motion)
    wide, frame = begins_BN[..., None], tracks["frame"][:, None]
    hits = torch.where(begins_BN, 0, tracks["hits"])
    valid = tracks["valid"] | begins_BN
    trusted = (hits >= confirm) | (begins_BN & (frame <= confirm))
    return {
        "boxes": torch.where(wide, found["boxes"], tracks["boxes"]),
        "scores": torch.where(begins_BN, found["scores"], tracks["scores"]),
        "labels": torch.where(begins_BN, found["labels"], tracks["labels"]),
        "valid": valid,
        "ids": torch.where(begins_BN, tracks["last_id"][:, None] + place_BN + 1, tracks["ids"]),
        "mean": torch.where(wide, mean, tracks["mean"]),
        "velocity": torch.where(wide, torch.zeros_like(mean), tracks["velocity"]),
        "covariance": torch.where(wide[..., None], covariance, tracks["covariance"]),
        "age": torch.where(begins_BN, 0, tracks["age"]),
        "hits": hits,
        "confirmed": valid & (tracks["confirmed"] | trusted),
        "born": torch.where(begins_BN, frame, tracks["born"]),
        "last_id": tracks["last_id"] + begins_BN.sum(1),
        "frame": tracks["frame"],
    }


def remove_twins(tracks: dict[str, Tensor], *, iou: float) -> dict[str, Tensor]:
    """`RemoveTwins`: of a seen and a lost track that overlap by more than `iou`, the one that lived longer stays."""
    seen, lost = (tracks["valid"] & (tracks["age"] == 0), tracks["valid"] & (tracks["age"] > 0))
    life_BN = tracks["frame"][:, None] - tracks["age"] - tracks["born"]
    twins_BNN = (pairwise_iou(tracks["boxes"], tracks["boxes"]) > iou) & seen[:, :, None] & lost[:, None, :]
    longer_BNN = life_BN[:, :, None] > life_BN[:, None, :]  # the seen one (rows) lived longer
    gone_BN = (twins_BNN & ~longer_BNN).any(2) | (twins_BNN & longer_BNN).any(1)
    valid = tracks["valid"] & ~gone_BN
    return {
        **tracks,
        "valid": valid,
        "ids": torch.where(valid, tracks["ids"], 0),
        "confirmed": tracks["confirmed"] & valid,
    }


def report(tracks: dict[str, Tensor], *, hits: int) -> dict[str, Tensor]:
    """`ReportTracks`: detections with ids, one for each track that was matched in this frame.

    Args:
        hits: matches in a row that a track needs to be reported; fewer do in the first `hits` frames.

    Returns:
        `boxes` [B, N, 4], `scores`, `labels`, `ids`, `valid` [B, N], in the order of the slots.
    """
    early = tracks["frame"][:, None] <= hits
    valid = tracks["valid"] & (tracks["age"] == 0) & ((tracks["hits"] >= hits) | early)
    return {
        "boxes": tracks["boxes"] * valid[..., None],
        "scores": torch.where(valid, tracks["scores"], 0.0),
        "labels": torch.where(valid, tracks["labels"], 0),
        "valid": valid,
        "ids": torch.where(valid, tracks["ids"], 0),
    }


def take(fields: dict[str, Tensor], index_BN: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
    """The rows `index_BN` of some fields [B, K, …] of detections."""
    picked = {}
    for name in names:
        value = fields[name]
        if value.dim() == 3:
            picked[name] = value.gather(1, index_BN[..., None].expand(-1, -1, value.shape[-1]))
        else:
            picked[name] = value.gather(1, index_BN)
    return picked
