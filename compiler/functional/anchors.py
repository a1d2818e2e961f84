"""Anchor boxes on the grids of feature maps.

Shape legend: B images, C channels, H height, W width, N anchors of all levels, A anchors of one cell.
"""

from __future__ import annotations

import torch
from torch import Tensor


def grid_anchors(
    feats: list[Tensor],
    image: dict[str, Tensor] | None = None,
    *,
    cells: list[list[list[float]]],
    strides: list[float] | None,
) -> Tensor:
    """Boxes [N, 4], xyxy in pixels of the input, ordered by level, row, column, then anchor of the cell.

    Args:
        feats: a map [B, C, H, W] for each level.
        image: needed when `strides` is None: the stride is then the image's height (width) divided by the
            map's and rounded down, which is how torchvision places its anchors on levels whose size was
            rounded.
        cells: for each level the anchors [A, 4] of the cell whose centre is at the origin.
        strides: pixels between two cells, for each level.
    """
    levels = []
    for level, x_BCHW in enumerate(feats):
        height, width = x_BCHW.shape[-2:]
        if strides is None:
            assert image is not None
            rows, columns = image["pixels"].shape[-2:]
            step: tuple[float, float] = (rows // height, columns // width)
        else:
            step = (strides[level], strides[level])
        base_A4 = torch.tensor(cells[level], dtype=torch.float32, device=x_BCHW.device)
        y_H = torch.arange(height, device=x_BCHW.device, dtype=torch.float32) * step[0]
        x_W = torch.arange(width, device=x_BCHW.device, dtype=torch.float32) * step[1]
        y_HW, x_HW = y_H[:, None].expand(height, width), x_W[None, :].expand(height, width)
        shift_HW4 = torch.stack((x_HW, y_HW, x_HW, y_HW), -1)
        levels.append((shift_HW4[:, :, None] + base_A4).reshape(-1, 4))
    return torch.cat(levels)
