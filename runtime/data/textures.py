"""Textured backgrounds and surfaces for the built-in sample set."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def noise(height: int, width: int, rng: np.random.Generator, coarsest: int, roughness: float) -> Array:
    """Smooth noise of several octaves, float32 [H, W] in 0..1.

    Args:
        coarsest: cells of the first octave along the longer side; each further one has twice as many.
        roughness: how much of an octave's strength the next one has.
    """
    from PIL import Image

    total = np.zeros((height, width), np.float32)
    cells, strength = coarsest, 1.0
    while cells < max(height, width):
        rows, columns = (
            max(2, cells * height // max(height, width)),
            max(2, cells * width // max(height, width)),
        )
        grid = Image.fromarray(rng.random((rows, columns), np.float32))
        total += np.float32(strength) * np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC))
        cells, strength = 2 * cells, strength * roughness
    low, high = total.min(), total.max()
    return (total - low) / max(high - low, 1e-6)


def gradient(height: int, width: int, rng: np.random.Generator) -> Array:
    """A linear ramp in a random direction, float32 [H, W] in 0..1."""
    angle = rng.uniform(0, 2 * np.pi)
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    ramp = xs * np.float32(np.cos(angle) / width) + ys * np.float32(np.sin(angle) / height)
    return (ramp - ramp.min()) / (ramp.max() - ramp.min())


def colour(rng: np.random.Generator) -> Array:
    """A random colour, float32 [3] in 0..255, neither black nor white."""
    return rng.uniform(25, 230, 3).astype(np.float32)


def background(height: int, width: int, rng: np.random.Generator) -> Array:
    """A surface such as a photo might show: blended colours, grain, blurred clutter; float32 [H, W, 3]."""
    mix = noise(height, width, rng, int(rng.integers(2, 5)), rng.uniform(0.45, 0.75))[..., None]
    image = colour(rng) * (1 - mix) + colour(rng) * mix
    patch = noise(height, width, rng, int(rng.integers(3, 9)), 0.5)[..., None]
    edge = np.clip((patch - np.float32(rng.uniform(0.4, 0.65))) * np.float32(rng.uniform(4, 25)) + 0.5, 0, 1)
    image = image * (1 - edge) + (0.5 * image + 0.5 * colour(rng)) * edge
    if rng.random() < 0.5:
        image = _stripes(image, rng)
    return image.astype(np.float32)


def _stripes(image: Array, rng: np.random.Generator) -> Array:
    """Soft bands, as planks or cloth have them."""
    height, width = image.shape[:2]
    angle, pitch = rng.uniform(0, np.pi), rng.uniform(8, 40)
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    bend = 6 * noise(height, width, rng, 2, 0.4)
    along = xs * np.float32(np.cos(angle)) + ys * np.float32(np.sin(angle)) + bend
    wave = np.sin(along * np.float32(2 * np.pi / pitch))
    return image * (1 + np.float32(rng.uniform(0.03, 0.15)) * wave[..., None])


def surface(height: int, width: int, rng: np.random.Generator) -> Array:
    """The colour of one object over the whole canvas, float32 [H, W, 3]: a tint, shading and some texture."""
    base, other = colour(rng), colour(rng)
    shade = gradient(height, width, rng)[..., None] * np.float32(rng.uniform(0.0, 0.5))
    image = base * (1 - shade) + other * shade
    grain = noise(height, width, rng, int(rng.integers(6, 20)), 0.6)[..., None] - 0.5
    return (image * (1 + np.float32(rng.uniform(0.05, 0.5)) * grain)).astype(np.float32)


def develop(image: Array, rng: np.random.Generator) -> Array:
    """Light falling in, a lens that blurs a little, a sensor's noise: uint8 [H, W, 3]."""
    from PIL import Image, ImageFilter

    height, width = image.shape[:2]
    light = 1 + np.float32(rng.uniform(0, 0.5)) * (gradient(height, width, rng) - 0.5)
    image = image * light[..., None] + rng.standard_normal(image.shape, np.float32) * np.float32(
        rng.uniform(1, 8)
    )
    picture = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
    if rng.random() < 0.4:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.9)))
    return np.asarray(picture)
