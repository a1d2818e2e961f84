"""torchvision's detectors with weights made here, and five photos as both sides take them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.transforms.functional import pil_to_tensor

PHOTOS = Path(__file__).parents[2].parent / "shared" / "data" / "photos"
NAMES = ("dog.jpg", "person.jpg", "street_1.jpg", "coco_000139.jpg", "football_coco.jpg")


def photos() -> list[Tensor]:
    """Five photos [3, H, W] in 0..1; skips the test where the shared data are not there."""
    missing = [n for n in NAMES if not (PHOTOS / n).is_file()]
    if missing:
        pytest.skip(f"the shared photos are not here: {', '.join(missing)}")
    return [pil_to_tensor(Image.open(PHOTOS / n).convert("RGB")).float() / 255 for n in NAMES]


def settle(model: nn.Module, *batches: Tensor) -> None:
    """Give the batch norms of a randomly initialised backbone the statistics of these images.

    Without it the activations of an untrained ResNet grow from block to block.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean over all batches
        nn.init.uniform_(norm.weight, 0.5, 1.0)
        nn.init.uniform_(norm.bias, -0.2, 0.2)
    model.train()
    with torch.no_grad():
        for images in batches:
            model(images)
    model.eval()


def prepared(model: Any, *, apart: bool = False) -> list[ImageList]:
    """The photos as the model's own transform resizes, normalises and pads them: a batch, or one each."""
    model.eval()
    groups = [[p] for p in photos()] if apart else [photos()]
    return [model.transform(g)[0] for g in groups]


def as_pixels(images: ImageList, model: Any) -> dict[str, Tensor]:
    """The same batch as detc's graphs take it: RGB in 0..255, and the sizes of the contents."""
    mean = torch.tensor(model.transform.image_mean)[:, None, None]
    std = torch.tensor(model.transform.image_std)[:, None, None]
    sizes = torch.tensor([list(s) for s in images.image_sizes], dtype=torch.float32)
    return {"pixels": (images.tensors * std + mean) * 255, "size": sizes}


@dataclass
class Agreement:
    """How many detections were compared, and the largest differences: boxes in pixels, scores, soft masks.

    spread: the largest difference of two pixels of a mask; 0 without masks.
    """

    count: int = 0
    box: float = 0.0
    score: float = 0.0
    mask: float = 0.0
    spread: float = 0.0

    def add(self, other: Agreement) -> None:
        """Take in another batch."""
        self.count += other.count
        for name in ("box", "score", "mask", "spread"):
            setattr(self, name, max(getattr(self, name), getattr(other, name)))


def agreement(mine: dict[str, Tensor], theirs: list[dict[str, Tensor]], shift: int) -> Agreement:
    """Compare image by image: the same labels and order up to ties of the score.

    Args:
        mine: detections [B, K] of an infer graph, perhaps with `box_masks` [B, K, m, m].
        theirs: torchvision's, one dict an image, perhaps with `masks` [K, 1, m, m].
        shift: what to add to labels here to get torchvision's.

    Each of theirs is paired with the nearest box of ours with its label and its score (to 1e-4). One without such
    a partner fails.
    """
    seen = Agreement()
    for i, other in enumerate(theirs):
        valid = mine["valid"][i]
        assert int(valid.sum()) == len(other["scores"]), f"image {i}: numbers of detections"
        order = torch.argsort(other["scores"], descending=True, stable=True)
        scores, labels = mine["scores"][i][valid], mine["labels"][i][valid] + shift
        boxes = mine["boxes"][i][valid]
        if len(scores):
            seen.score = max(seen.score, float((scores - other["scores"][order]).abs().max()))
        unused = set(range(len(scores)))
        for k, j in enumerate(order.tolist()):
            near = [
                (float((boxes[u] - other["boxes"][j]).abs().max()), u)
                for u in unused
                if abs(u - k) < 8
                and abs(float(scores[u] - other["scores"][j])) < 1e-4
                and labels[u] == other["labels"][j]
            ]
            assert near, f"image {i}: no detection like torchvision's number {k}"
            gap, match = min(near)
            seen.box = max(seen.box, gap)
            unused.discard(match)
            if "masks" in other:
                theirs_mm = other["masks"][j, 0]
                seen.mask = max(
                    seen.mask, float((mine["box_masks"][i][valid][match] - theirs_mm).abs().max())
                )
                seen.spread = max(seen.spread, float(theirs_mm.max() - theirs_mm.min()))
        seen.count += len(scores)
    return seen
