"""The objects of the built-in sample set: outlines, and how they are coloured and drawn."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
CLASSES = ("circle", "square", "triangle", "star", "ring", "cross")
OVERSAMPLE = 4


@dataclass(frozen=True)
class Outline:
    """A shape around the origin: a polygon [P, 2], perhaps with a hole, that fits a circle of radius 1."""

    outer: Array
    hole: Array | None = None


def outline(kind: str, rng: np.random.Generator) -> Outline:
    """A random member of a class: proportions vary, pose does not."""
    if kind == "circle":
        return Outline(_regular(48))
    if kind == "square":
        return Outline(_regular(4))
    if kind == "triangle":
        return Outline(_regular(3))
    if kind == "star":
        radii = np.where(np.arange(10) % 2 == 0, 1.0, rng.uniform(0.38, 0.5))
        return Outline(_regular(10) * radii[:, None])
    if kind == "ring":
        return Outline(_regular(48), _regular(48) * rng.uniform(0.45, 0.65))
    arm = rng.uniform(0.25, 0.38)
    quarter = np.array([[arm, arm], [arm, 1.0], [-arm, 1.0]]) * 0.95
    turns = [np.array([[0, -1], [1, 0]]), np.eye(2)]
    points = [quarter]
    for _ in range(3):
        points.append(points[-1] @ turns[0].T)
    return Outline(np.concatenate(points))


def _regular(corners: int) -> Array:
    angle = 2 * np.pi * np.arange(corners) / corners - np.pi / 2
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def pose(shape: Outline, radius: float, centre: tuple[float, float], rng: np.random.Generator) -> Outline:
    """Rotate at random, stretch and slant a little, scale and move."""
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = np.array([[rng.uniform(0.8, 1.0), rng.uniform(-0.12, 0.12)], [0.0, rng.uniform(0.8, 1.0)]])
    matrix = radius * stretch @ turn

    def move(points: Array) -> Array:
        return points @ matrix.T + centre

    return Outline(move(shape.outer), None if shape.hole is None else move(shape.hole))


def coverage(shape: Outline, height: int, width: int) -> tuple[Array, float]:
    """How much of each pixel the shape covers, float32 [H, W] in 0..1, and how much of it lies inside."""
    from PIL import Image, ImageDraw

    x1, y1 = np.floor(shape.outer.min(0)).astype(int) - 1
    x2, y2 = np.ceil(shape.outer.max(0)).astype(int) + 2
    tile = Image.new("L", ((x2 - x1) * OVERSAMPLE, (y2 - y1) * OVERSAMPLE))
    draw = ImageDraw.Draw(tile)
    for points, ink in ((shape.outer, 255), (shape.hole, 0)):
        if points is not None:
            draw.polygon([tuple(p) for p in (points - (x1, y1)) * OVERSAMPLE], fill=ink)
    small = np.asarray(tile.reduce(OVERSAMPLE), np.float32) / 255
    out = np.zeros((height, width), np.float32)
    left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
    if right > left and bottom > top:
        out[top:bottom, left:right] = small[top - y1 : bottom - y1, left - x1 : right - x1]
    return out, float(out.sum() / max(small.sum(), 1.0))


def polygons(mask: Array) -> list[list[float]]:
    """The outline of a bool mask [H, W] as COCO polygons; holes are joined to their outside by a seam."""
    from contourpy import FillType, contour_generator

    padded = np.pad(mask.astype(np.float64), 1)
    contours: Any = contour_generator(z=padded, fill_type=FillType.OuterOffset).filled(0.5, 2.0)
    found, offsets = contours
    out = []
    for points, starts in zip(found, offsets, strict=True):
        loops = [_straight(points[a:b] - 0.5) for a, b in pairwise(starts)]
        if len(loops[0]) < 4:
            continue
        seamed = [loops[0]]
        for hole in loops[1:]:
            seamed += [hole, loops[0][:1]]
        out.append(np.concatenate(seamed).round(1).reshape(-1).tolist())
    return out


def _straight(loop: Array) -> Array:
    """Leave out points in the middle of straight lines; the loop is closed (first = last)."""
    before, after = np.roll(loop[:-1], 1, 0), np.roll(loop[:-1], -1, 0)
    a, b = loop[:-1] - before, after - loop[:-1]
    corner = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) > 1e-9
    kept = loop[:-1][corner]
    return np.concatenate([kept, kept[:1]])
