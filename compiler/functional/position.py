"""Positions of tokens: the grid of a padded pyramid, sine codes, level embeddings.

Shape legend: B images, S positions of all levels, L levels, N boxes, H rows, W columns, C channels, F numbers of
one coordinate's code.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

EPS = 1e-6


def level_grid(levels: list[Tensor], image: dict[str, Tensor], *, padded: bool = True) -> dict[str, Tensor]:
    """`LevelGrid`: which cells are content, and where on it they lie.

    A cell is content if the pixel that nearest-neighbour resizing takes for it is.

    Args:
        levels: maps [B, C, H, W].
        image: `pixels`, whose size the maps' cells divide, and `size` [B, 2] (height, width) of the content.
        padded: false takes everything as content.

    Returns:
        `valid` [B, S] bool, `ratio` [B, L, 2] (of width, of height), `points` [B, S, 2] (x, y).
    """
    pixels_BCHW, size_B2 = image["pixels"], image["size"].float()
    valid, ratio, points = [], [], []
    for level_BCHW in levels:
        height, width = level_BCHW.shape[-2:]
        inside, count, center = [], [], []
        for axis, (cells, whole) in enumerate(zip((height, width), pixels_BCHW.shape[-2:], strict=True)):
            index_N = torch.arange(cells, device=size_B2.device, dtype=torch.float32)
            pixel_N = torch.floor(index_N * (whole / cells))
            inside_BN = pixel_N < size_B2[:, axis, None]
            if not padded:
                inside_BN = torch.ones_like(inside_BN)
            count_B1 = inside_BN.sum(1, keepdim=True).float()
            inside.append(inside_BN)
            count.append(count_B1 / cells)
            center.append((index_N + 0.5) / count_B1)
        batch = size_B2.shape[0]
        valid.append((inside[0][:, :, None] & inside[1][:, None]).flatten(1))
        ratio.append(torch.cat((count[1], count[0]), 1))
        y_BHW = center[0][:, :, None].expand(batch, height, width)
        x_BHW = center[1][:, None].expand(batch, height, width)
        points.append(torch.stack((x_BHW, y_BHW), -1).flatten(1, 2))
    return {"valid": torch.cat(valid, 1), "ratio": torch.stack(ratio, 1), "points": torch.cat(points, 1)}


def sine_position(
    levels: list[Tensor], grid: dict[str, Tensor], *, width: int, temperature: float, offset: float
) -> Tensor:
    """`SinePosition`: [B, S, width], y's code before x's, sine and cosine taking turns.

    Position i of n cells of content has the angle 2 pi (i + 1 + offset) / n; beyond the content it stays at
    that of its last cell.
    """
    codes = []
    for level, x_BCHW in enumerate(levels):
        height, columns = x_BCHW.shape[-2:]
        parts = []
        for axis, cells in ((1, height), (0, columns)):
            count_B1 = (grid["ratio"][:, level, axis, None] * cells).round()
            place_N = torch.arange(1, cells + 1, device=count_B1.device, dtype=torch.float32)
            place_BN = torch.minimum(place_N, count_B1) + offset
            parts.append(_sine(place_BN / (count_B1 + EPS) * (2 * math.pi), width // 2, temperature))
        y_BHF, x_BWF = parts
        y_BHWF = y_BHF[:, :, None].expand(-1, -1, columns, -1)
        x_BHWF = x_BWF[:, None].expand(-1, height, -1, -1)
        codes.append(torch.cat((y_BHWF, x_BHWF), -1).flatten(1, 2))
    return torch.cat(codes, 1)


def _sine(angle: Tensor, width: int, temperature: float) -> Tensor:
    """[..., width]: sines and cosines in turn, of `angle` [...] divided by growing powers of `temperature`."""
    power_F = torch.arange(width // 2, device=angle.device, dtype=torch.float32) * (2 / width)
    scaled = angle[..., None] / temperature**power_F
    return torch.stack((scaled.sin(), scaled.cos()), -1).flatten(-2)


def box_position(boxes: Tensor, *, width: int, temperature: float, order: str) -> Tensor:
    """`BoxPosition`: [..., D] fractions to [..., D width], in float32."""
    boxes = boxes.float()
    if order == "yxwh":
        boxes = torch.cat((boxes[..., 1:2], boxes[..., :1], boxes[..., 2:]), -1)
    return _sine(boxes * (2 * math.pi), width, temperature).flatten(-2)


class LevelEmbedding(nn.Module):
    """One learned row a level, repeated over the level's positions."""

    def __init__(self, levels: int, channels: int, std: float) -> None:
        super().__init__()
        self.levels, self.channels, self.std = levels, channels, std
        self.value = nn.Parameter(torch.empty(levels, channels))
        nn.init.normal_(self.value, std=std)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """[S, C]."""
        sizes = [x.shape[-2] * x.shape[-1] for x in levels]
        return torch.cat([self.value[i].expand(n, -1) for i, n in enumerate(sizes)])


def for_each_image(x: Tensor, image: dict[str, Tensor]) -> Tensor:
    """`ForEachImage`: [...] to [B, ...]."""
    return x.expand(image["pixels"].shape[0], *x.shape)


def from_rows(rows_BSC: Tensor, levels: list[Tensor]) -> list[Tensor]:
    """`FromRows`: maps [B, C, H, W] of the sizes of `levels`."""
    sizes = [x.shape[-2:] for x in levels]
    parts = rows_BSC.split([h * w for h, w in sizes], 1)
    return [x.transpose(1, 2).unflatten(2, (h, w)) for x, (h, w) in zip(parts, sizes, strict=True)]
