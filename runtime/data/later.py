"""Steps that work on finished batches (`on = "batch"`), on the device that trains.

A part is what `collate` makes of some images: `image` {pixels float [B, 3, H, W], size [B, 2]}, `truth` {boxes
[B, G, 4], labels, valid, perhaps masks [B, G, H, W]}, and in views `matrix` [B, 3, 3], the homography from the
image that came to the fan. Random numbers come from a generator on the device, so nothing waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from detc.compiler.spec import NamedStep

Part = Mapping[str, Any]


@dataclass(frozen=True)
class Later:
    """The batch steps of one part of a batch, with the numbers that seed them."""

    steps: tuple[NamedStep, ...]
    seed: tuple[int, ...]

    def __call__(self, part: Part) -> Part:
        """The part after all steps."""
        device = part["image"]["pixels"].device
        number = 0
        for value in self.seed:
            number = (number * 1_000_003 + value + 1) % (1 << 62)
        rng = torch.Generator(device).manual_seed(number)
        for item in self.steps:
            part = item.step.on_batch(part, rng)  # type: ignore[union-attr]
        return part


def batch_steps(steps: Sequence[NamedStep]) -> tuple[NamedStep, ...]:
    """Those of a pipeline's steps that work on batches."""
    return tuple(s for s in steps if s.step.on == "batch")


def _draw(count: int, p: float, rng: torch.Generator) -> Tensor:
    """bool [count], each true with probability `p`."""
    return torch.rand(count, generator=rng, device=rng.device) < p


def _with_pixels(part: Part, pixels: Tensor) -> Part:
    return {**part, "image": {**part["image"], "pixels": pixels}}


def mirror(part: Part, p: float, rng: torch.Generator, *, horizontal: bool) -> Part:
    """Mirror the content of images with probability `p`; padding stays where it is."""
    pixels, size = part["image"]["pixels"], part["image"]["size"]
    count, _, height, width = pixels.shape
    chosen_B = _draw(count, p, rng)
    axis, length = (1, width) if horizontal else (0, height)
    extent_B = size[:, axis]
    at_L = torch.arange(length, device=pixels.device)
    source_BL = torch.where(at_L < extent_B[:, None], extent_B[:, None].long() - 1 - at_L, at_L)
    source_BL = torch.where(chosen_B[:, None], source_BL, at_L)
    view = (count, 1, 1, length) if horizontal else (count, 1, length, 1)
    dim = 3 if horizontal else 2
    moved = pixels.gather(dim, source_BL.view(view).expand_as(pixels))
    truth = dict(part["truth"])
    boxes = truth["boxes"]
    low, high = (0, 2) if horizontal else (1, 3)
    flipped = boxes.clone()
    flipped[..., low] = extent_B[:, None] - boxes[..., high]
    flipped[..., high] = extent_B[:, None] - boxes[..., low]
    moves_BG = chosen_B[:, None] & truth["valid"]
    truth["boxes"] = torch.where(moves_BG[..., None], flipped, boxes)
    if "masks" in truth:
        truth["masks"] = truth["masks"].gather(dim, source_BL.view(view).expand_as(truth["masks"]))
    part = {**_with_pixels(part, moved), "truth": truth}
    if "matrix" in part:
        turn = torch.eye(3, device=pixels.device).repeat(count, 1, 1)
        turn[:, axis ^ 1, axis ^ 1] = torch.where(chosen_B, -1.0, 1.0)
        turn[:, axis ^ 1, 2] = torch.where(chosen_B, extent_B, torch.zeros_like(extent_B))
        part["matrix"] = turn @ part["matrix"]
    return part


def jitter(part: Part, bounds: tuple[float, float, float], p: float, rng: torch.Generator) -> Part:
    """Brightness, contrast and saturation by factors from [1 - bound, 1 + bound], in this order."""
    pixels = part["image"]["pixels"]
    count = len(pixels)
    chosen = _draw(count, p, rng).view(-1, 1, 1, 1)
    out = pixels
    weights = pixels.new_tensor([0.2989, 0.587, 0.114]).view(1, 3, 1, 1)
    for kind, bound in enumerate(bounds):
        factor = 1 + bound * (2 * torch.rand(count, generator=rng, device=rng.device) - 1).view(-1, 1, 1, 1)
        if not bound:
            continue
        if kind == 0:
            out = out * factor
        else:
            grey = (out * weights).sum(1, keepdim=True)
            base = grey.mean((2, 3), keepdim=True) if kind == 1 else grey
            out = base + (out - base) * factor
        out = out.clamp(0, 255)
    return _with_pixels(part, torch.where(chosen, out, pixels))


def soften(part: Part, sigma: float, p: float, rng: torch.Generator) -> Part:
    """Blur with a Gaussian of `sigma` pixels."""
    pixels = part["image"]["pixels"]
    chosen = _draw(len(pixels), p, rng).view(-1, 1, 1, 1)
    radius = max(1, round(3 * sigma))
    at = torch.arange(-radius, radius + 1, device=pixels.device, dtype=torch.float32)
    kernel = torch.softmax(-(at**2) / (2 * sigma**2), 0)
    out = F.pad(pixels, (radius, radius, radius, radius), mode="replicate")
    out = F.conv2d(out, kernel.view(1, 1, 1, -1).repeat(3, 1, 1, 1), groups=3)
    out = F.conv2d(out, kernel.view(1, 1, -1, 1).repeat(3, 1, 1, 1), groups=3)
    return _with_pixels(part, torch.where(chosen, out, pixels))


def erase(
    part: Part,
    patches: tuple[int, int],
    ratio: tuple[float, float],
    fill: float,
    p: float,
    rng: torch.Generator,
) -> Part:
    """Paint over up to `patches[1]` rectangles of each image's content; see `steps.Erase`."""
    pixels, size = part["image"]["pixels"], part["image"]["size"]
    count, _, height, width = pixels.shape
    chosen_B = _draw(count, p, rng)
    most = patches[1]
    spread = torch.rand(count, most + 1, 4, generator=rng, device=rng.device)
    number_B = patches[0] + (spread[:, 0, 0] * (most + 1 - patches[0])).long()
    low, high = ratio
    side_BP2 = (low + (high - low) * spread[:, 1:, :2]) * size[:, None]
    start_BP2 = spread[:, 1:, 2:] * (size[:, None] - side_BP2)
    y_H = torch.arange(height, device=pixels.device) + 0.5
    x_W = torch.arange(width, device=pixels.device) + 0.5
    inside_BPH = (y_H >= start_BP2[..., :1]) & (y_H < start_BP2[..., :1] + side_BP2[..., :1])
    inside_BPW = (x_W >= start_BP2[..., 1:]) & (x_W < start_BP2[..., 1:] + side_BP2[..., 1:])
    used_BP = torch.arange(most, device=pixels.device) < number_B[:, None]
    used_BP = used_BP & chosen_B[:, None]
    covered = (inside_BPH[..., :, None] & inside_BPW[..., None, :] & used_BP[..., None, None]).any(1)
    return _with_pixels(part, pixels.masked_fill(covered[:, None], fill))
