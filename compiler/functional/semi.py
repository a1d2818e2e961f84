"""Pseudo labels, box jitter, boxes between views.

Boxes are xyxy in pixels. Shape legend: B images, K detections, T times, N = K * T asked boxes, P points of all
levels, C classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detc.compiler.functional.normaliser import any_process
from detc.compiler.functional.sample import take_rows


def pseudo_labels(
    found: dict[str, Tensor],
    scatter_BK: Tensor | None = None,
    *,
    score: float,
    spread: float | None,
    below: float = 1.0,
) -> dict[str, Tensor]:
    """`PseudoLabels`: detections of score in (score, below], of scatter below `spread`, as truth [B, K]."""
    valid_BK = found["valid"] & (found["scores"] > score) & (found["scores"] <= below)
    if scatter_BK is not None and spread is not None:
        valid_BK = valid_BK & (scatter_BK < spread)
    return {"boxes": found["boxes"].detach(), "labels": found["labels"], "valid": valid_BK}


def jitter_boxes(found: dict[str, Tensor], *, times: int, amount: float) -> dict[str, Tensor]:
    """`JitterBoxes`: proposals [B, K * times]; those of one detection stand together."""
    boxes_BK4 = found["boxes"].detach()
    sides_BK4 = (boxes_BK4[..., 2:] - boxes_BK4[..., :2]).clamp(min=1.0).repeat(1, 1, 2)
    noise_BKT4 = torch.rand(*boxes_BK4.shape[:2], times, 4, device=boxes_BK4.device) * 2 - 1
    moved_BKT4 = boxes_BK4[:, :, None] + noise_BKT4 * amount * sides_BK4[:, :, None]
    return {
        "boxes": moved_BKT4.flatten(1, 2),
        "scores": found["scores"].repeat_interleave(times, 1),
        "valid": found["valid"].repeat_interleave(times, 1),
    }


def scatter(found: dict[str, Tensor], again: Any) -> Tensor:
    """`Scatter`: [B, K] of detections [B, K] and boxes [B, K * T, 4], or [B, K * T, C, 4] for each class."""
    boxes = again["boxes"] if isinstance(again, dict) else again
    batch, count = found["labels"].shape
    times = boxes.shape[1] // count
    if boxes.dim() == 4:
        label_BN = found["labels"].clamp(max=boxes.shape[2] - 1).repeat_interleave(times, 1)
        boxes = boxes.gather(2, label_BN[:, :, None, None].expand(-1, -1, 1, 4)).squeeze(2)
    again_BKT4 = boxes.detach().float().view(batch, count, times, 4)
    sides_BK = (found["boxes"][..., 2:] - found["boxes"][..., :2]).sum(-1).clamp(min=2.0)
    return (again_BKT4.std(2) / (0.5 * sides_BK)[..., None]).mean(-1)


def any_object(truth: dict[str, Tensor]) -> Tensor:
    """`AnyObject`: 1.0 if any row of the whole batch is valid, else 0.0."""
    return any_process(truth["valid"].any()).float()


def inverse(matrix_B33: Tensor) -> Tensor:
    """The inverses of 3x3 matrices, by cross products of their columns."""
    a, b, c = matrix_B33.unbind(-1)
    rows = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], -2)
    return rows / (a * rows[:, 0]).sum(-1)[:, None, None]


def map_boxes(boxes_BK4: Tensor, matrix_B33: Tensor) -> Tensor:
    """Bounds [B, K, 4] of the boxes' corners under homographies."""
    x1, y1, x2, y2 = boxes_BK4.unbind(-1)
    corners_BK43 = torch.stack(
        [torch.stack([x, y, torch.ones_like(x)], -1) for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))],
        -2,
    )
    moved_BK43 = corners_BK43 @ matrix_B33.transpose(1, 2)[:, None]
    xy_BK42 = moved_BK43[..., :2] / moved_BK43[..., 2:]
    return torch.cat([xy_BK42.amin(-2), xy_BK42.amax(-2)], -1)


def to_view(
    found: dict[str, Tensor], here: dict[str, Any], there: dict[str, Any], *, min_size: float
) -> dict[str, Tensor]:
    """`ToView`: boxes seen in the view `here`, where they are in the view `there`, clipped to its content."""
    matrix_B33 = there["matrix"].float() @ inverse(here["matrix"].float())
    boxes_BK4 = map_boxes(found["boxes"].float(), matrix_B33)
    limit_B14 = there["image"]["size"].flip(-1).repeat(1, 2)[:, None].to(boxes_BK4.dtype)
    boxes_BK4 = torch.minimum(boxes_BK4.clamp(min=0), limit_B14)
    large_BK = ((boxes_BK4[..., 2:] - boxes_BK4[..., :2]) >= min_size).all(-1)
    kept: dict[str, Tensor] = {k: found[k] for k in ("labels", "scores") if k in found}
    return {"boxes": boxes_BK4, **kept, "valid": found["valid"] & large_BK}


def inside(boxes: dict[str, Tensor], height: int, width: int) -> Tensor:
    """Which pixels' centres lie in any valid box [B, K], bool [B, H, W]."""
    x1_BK, y1_BK, x2_BK, y2_BK = boxes["boxes"].unbind(-1)
    x_W = torch.arange(width, device=x1_BK.device) + 0.5
    y_H = torch.arange(height, device=x1_BK.device) + 0.5
    in_BKW = (x_W >= x1_BK[..., None]) & (x_W < x2_BK[..., None]) & boxes["valid"][..., None]
    in_BKH = (y_H >= y1_BK[..., None]) & (y_H < y2_BK[..., None])
    # a sum over boxes of products of rows and columns, not K masks of the image's size
    return torch.einsum("bkh,bkw->bhw", in_BKH.float(), in_BKW.float()) > 0


def cover(
    seen: dict[str, Tensor],
    hidden: dict[str, Tensor],
    shown: dict[str, Tensor] | None = None,
    *,
    fill: float,
) -> dict[str, Tensor]:
    """`Cover`: the image {pixels [B, C, H, W], size} with the boxes of `hidden` painted over, but for `shown`."""
    height, width = seen["pixels"].shape[-2:]
    painted_BHW = inside(hidden, height, width)
    if shown is not None:
        painted_BHW = painted_BHW & ~inside(shown, height, width)
    return {**seen, "pixels": seen["pixels"].masked_fill(painted_BHW[:, None], fill)}


def at_points(
    levels: list[Tensor],
    boxes_BP4: Tensor,
    asked: dict[str, Tensor],
    *,
    strides: list[float],
    offset: float,
    size: float,
) -> Tensor:
    """`AtPoints`: of the boxes [B, P, 4] of all points those at the asked boxes' centres, [B, N, 4].

    Args:
        levels: maps of the pyramid that the points come from, for their sizes.
        strides: of the levels.
        offset: where in its cell a point lies.
        size: longer sides, in strides, of the boxes that a level is for.
    """
    asked_BN4 = asked["boxes"]
    side_BN = (asked_BN4[..., 2:] - asked_BN4[..., :2]).amax(-1).clamp(min=1.0)
    center_BN2 = (asked_BN4[..., :2] + asked_BN4[..., 2:]) / 2
    gaps, places, start = [], [], 0
    for level_BCHW, stride in zip(levels, strides, strict=True):
        height, width = level_BCHW.shape[-2:]
        cell_BN2 = (center_BN2 / stride - offset).round().long()
        x_BN, y_BN = cell_BN2[..., 0].clamp(0, width - 1), cell_BN2[..., 1].clamp(0, height - 1)
        places.append(start + y_BN * width + x_BN)
        gaps.append((side_BN / (size * stride)).log2().abs())
        start = start + height * width
    level_BN = torch.stack(gaps, -1).argmin(-1)
    place_BN = torch.stack(places, -1).gather(-1, level_BN[..., None]).squeeze(-1)
    return take_rows(boxes_BP4, place_BN)
