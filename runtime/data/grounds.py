"""Grounds of the sample set with panoptic maps: what lies behind the objects, region by region."""

from __future__ import annotations

from typing import Any

import numpy as np

from detc.runtime.data.textures import gradient, noise

Array = np.ndarray[Any, Any]
STUFF = ("sand", "water", "grass")
SMALLEST = 0.06  # of the image: the share of it that a region has at least


def ground(height: int, width: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """One to three regions with curved borders.

    Returns:
        The picture, float32 [H, W, 3] in 0..255, and the index into `STUFF` of each pixel, int64 [H, W].
    """
    kinds = rng.permutation(len(STUFF))[: int(rng.integers(1, len(STUFF) + 1))]
    fields = np.stack([noise(height, width, rng, 2, 0.3) for _ in kinds])
    shares = np.bincount(fields.argmax(0).ravel(), minlength=len(kinds)) / (height * width)
    kept = np.flatnonzero(shares >= SMALLEST)
    region = kinds[kept][fields[kept].argmax(0)]
    image = np.zeros((height, width, 3), np.float32)
    for index in kinds[kept]:
        inside = region == index
        image[inside] = _PAINTERS[index](height, width, rng)[inside]
    return image, region


def _sand(height: int, width: int, rng: np.random.Generator) -> Array:
    """Yellowish, with grains."""
    dunes = noise(height, width, rng, 3, 0.5)[..., None]
    grains = rng.random((height, width, 1), np.float32)
    return _tint(rng, (205, 175, 120)) * (0.75 + 0.25 * dunes + 0.2 * (grains - 0.5))


def _water(height: int, width: int, rng: np.random.Generator) -> Array:
    """Bluish, with waves that run nearly level."""
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    bend = 5 * noise(height, width, rng, 3, 0.5)
    slope, pitch = np.float32(rng.uniform(-0.25, 0.25)), np.float32(rng.uniform(7, 14))
    wave = np.sin((ys + slope * xs + bend) * (2 * np.float32(np.pi) / pitch))[..., None]
    return _tint(rng, (60, 110, 185)) * (0.85 + 0.2 * wave + 0.2 * gradient(height, width, rng)[..., None])


def _grass(height: int, width: int, rng: np.random.Generator) -> Array:
    """Greenish, with upright blades."""
    blades = rng.random((1 + height // 6, width, 1), np.float32).repeat(6, 0)[:height]
    patches = noise(height, width, rng, 4, 0.6)[..., None]
    return _tint(rng, (75, 145, 60)) * (0.55 + 0.35 * blades + 0.4 * patches)


def _tint(rng: np.random.Generator, colour: tuple[int, int, int]) -> Array:
    """The colour in another light."""
    return np.array(colour, np.float32) * rng.uniform(0.8, 1.2) + rng.uniform(-18, 18, 3).astype(np.float32)


_PAINTERS = (_sand, _water, _grass)
