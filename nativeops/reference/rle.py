"""COCO run-length encoding of bitmaps in plain torch, with a fixed capacity so that shapes stay static.

Runs go down the columns, first a run of zeros (of length 0 when the first pixel is set), then ones,
alternating: the uncompressed ``counts`` of pycocotools.

Shape legend: N masks, R run capacity.
"""

from __future__ import annotations

import torch


def rle_encode(masks_NHW: torch.Tensor, capacity: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Runs ``[N, R]`` (int32) and how many of them each mask has ``[N]`` (int64).

    Args:
        masks_NHW: bool or uint8; every non-zero value is set.
        capacity: ``R``. A mask with more runs than that reports its true count and keeps the first ``R``;
            unused entries are 0. A bitmap without pixels has no runs.
    """
    N, H, W = masks_NHW.shape
    runs = torch.zeros((N, capacity + 1), dtype=torch.int32, device=masks_NHW.device)
    if N == 0 or H * W == 0:
        return runs[:, :capacity], torch.zeros(N, dtype=torch.int64, device=masks_NHW.device)
    pixels = (masks_NHW != 0).transpose(1, 2).reshape(N, H * W)
    before = torch.cat([pixels.new_zeros((N, 1)), pixels[:, :-1]], dim=1)
    run = (pixels != before).cumsum(1)
    # The last column collects whatever does not fit.
    runs = runs.scatter_add(1, run.clamp_max(capacity), torch.ones_like(run, dtype=torch.int32))
    return runs[:, :capacity], run[:, -1] + 1


def rle_decode(runs_NR: torch.Tensor, lengths_N: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Bitmaps ``[N, H, W]`` (bool) of runs as :func:`rle_encode` gives them.

    Pixels behind the last run are unset and runs behind the last pixel are ignored; negative runs count as 0.
    """
    N, R = runs_NR.shape
    if N == 0 or R == 0 or height * width == 0:
        return torch.zeros((N, height, width), dtype=torch.bool, device=runs_NR.device)
    used = torch.arange(R, device=runs_NR.device) < lengths_N[:, None]
    ends = torch.where(used, runs_NR.clamp_min(0), 0).cumsum(1)
    pixels = torch.arange(height * width, device=runs_NR.device).expand(N, -1).contiguous()
    run = torch.searchsorted(ends, pixels, right=True)
    on = (run % 2 == 1) & (run < lengths_N[:, None].clamp_max(R))
    return on.reshape(N, width, height).transpose(1, 2).contiguous()
