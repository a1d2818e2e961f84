"""Points on the grids of a pyramid, and boxes as distances from points.

Shape legend: B images, C channels, H height, W width, N points of all levels.
"""

from __future__ import annotations

import torch
from torch import Tensor


def point_grid(
    levels: list[Tensor],
    image: dict[str, Tensor] | None = None,
    *,
    strides: list[float],
    offset: float,
    measured: bool = False,
) -> dict[str, Tensor]:
    """The positions of all levels in pixels of the input, by level, row, column.

    Args:
        levels: maps [B, C, H, W], finest first.
        image: needed with `measured`, for its height and width.
        strides: the nominal stride of each level.
        offset: where in its cell a point lies, in cells: 0 the corner, 0.5 the centre.
        measured: step by the image's size divided by the map's and rounded down, which is how torchvision
            places points on levels whose size was rounded.

    Returns:
        `xy` [N, 2] and `stride` [N], the nominal one, both float32.
    """
    xy, stride = [], []
    for level_BCHW, nominal in zip(levels, strides, strict=True):
        height, width = level_BCHW.shape[-2:]
        step_y: float | int = nominal
        step_x: float | int = nominal
        if measured:
            assert image is not None
            rows, columns = image["pixels"].shape[-2:]
            step_y, step_x = rows // height, columns // width
        device = level_BCHW.device
        y_H = (torch.arange(height, device=device, dtype=torch.float32) + offset) * step_y
        x_W = (torch.arange(width, device=device, dtype=torch.float32) + offset) * step_x
        grid_HW2 = torch.stack((x_W.expand(height, width), y_H[:, None].expand(height, width)), -1)
        xy.append(grid_HW2.reshape(-1, 2))
        stride.append(torch.full((height * width,), float(nominal), device=device))
    return {"xy": torch.cat(xy), "stride": torch.cat(stride)}


def flat(levels: Tensor | list[Tensor], width: int) -> Tensor:
    """Predictions [B, N, width], whether they come as such or as maps [B, A * width, H, W] of all levels."""
    if isinstance(levels, Tensor):
        return levels
    rows = [x_BCHW.permute(0, 2, 3, 1).reshape(x_BCHW.shape[0], -1, width) for x_BCHW in levels]
    return rows[0] if len(rows) == 1 else torch.cat(rows, 1)


def distance_decode(
    points: dict[str, Tensor],
    ltrb: Tensor | list[Tensor],
    image: dict[str, Tensor] | None = None,
    *,
    by_stride: bool = False,
    clip: bool = False,
) -> Tensor:
    """Boxes [B, N, 4] (xyxy, pixels) from each point's distances to the left, top, right and bottom side.

    `ltrb` is [B, N, 4] or maps [B, 4, H, W] of all levels, in pixels, or in strides with `by_stride`.
    `clip` limits the boxes to the image's content.
    """
    ltrb_BN4 = flat(ltrb, 4).float()
    if by_stride:
        ltrb_BN4 = ltrb_BN4 * points["stride"][:, None]
    xy_N2 = points["xy"]
    boxes_BN4 = torch.cat((xy_N2 - ltrb_BN4[..., :2], xy_N2 + ltrb_BN4[..., 2:]), -1)
    return _clipped(boxes_BN4, image) if clip else boxes_BN4


def _clipped(boxes_BN4: Tensor, image: dict[str, Tensor] | None) -> Tensor:
    assert image is not None
    limit_B14 = image["size"].flip(-1).repeat(1, 2)[:, None].to(boxes_BN4.dtype)
    return torch.minimum(boxes_BN4.clamp(min=0), limit_B14)


def center_decode(
    points: dict[str, Tensor],
    shift: Tensor | list[Tensor],
    size: Tensor | list[Tensor],
    image: dict[str, Tensor] | None = None,
    *,
    unit: str = "stride",
    clip: bool = False,
) -> Tensor:
    """Boxes [B, N, 4] (xyxy, pixels) from the way to their centre, in strides, and their width and height.

    `shift` and `size` are [B, N, 2] or maps [B, 2, H, W] of all levels. `unit` says what sizes count in:
    "stride", "pixel", or "image", the content's width and height.
    """
    shift_BN2, size_BN2 = flat(shift, 2).float(), flat(size, 2).float()
    stride_N1 = points["stride"][:, None]
    if unit == "image":
        assert image is not None
        size_BN2 = size_BN2 * image["size"].flip(-1)[:, None].to(size_BN2.dtype)
    elif unit == "stride":
        size_BN2 = size_BN2 * stride_N1
    center_BN2 = points["xy"] + shift_BN2 * stride_N1
    boxes_BN4 = torch.cat((center_BN2 - size_BN2 / 2, center_BN2 + size_BN2 / 2), -1)
    return _clipped(boxes_BN4, image) if clip else boxes_BN4


def distances_to(points_N2: Tensor, boxes_BG4: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Signed distances from every point to each box's left, top, right and bottom side, each [B, G, N]."""
    x_N, y_N = points_N2[:, 0], points_N2[:, 1]
    x0, y0, x1, y1 = (c[..., None] for c in boxes_BG4.unbind(-1))
    return x_N - x0, y_N - y0, x1 - x_N, y1 - y_N


def inside(points_N2: Tensor, boxes_BG4: Tensor) -> Tensor:
    """True where a point lies strictly inside a box: [B, G, N]."""
    x_N, y_N = points_N2[:, 0], points_N2[:, 1]
    x0, y0, x1, y1 = (c[..., None] for c in boxes_BG4.unbind(-1))
    return (x_N > x0) & (x_N < x1) & (y_N > y0) & (y_N < y1)
