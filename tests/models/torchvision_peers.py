"""torchvision's detectors with weights made here, and five photos as both sides take them."""

from __future__ import annotations

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


def settle(model: nn.Module, images: Tensor) -> None:
    """Give the batch norms of a randomly initialised backbone the statistics of `images`.

    Without it the activations of an untrained ResNet grow from block to block.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        nn.init.uniform_(norm.weight, 0.5, 1.0)
        nn.init.uniform_(norm.bias, -0.2, 0.2)
    model.train()
    with torch.no_grad():
        model(images)
    model.eval()


def prepared(model: Any) -> ImageList:
    """The photos as the model's own transform resizes, normalises and pads them."""
    model.eval()
    return model.transform(photos())[0]


def as_pixels(images: ImageList, model: Any) -> dict[str, Tensor]:
    """The same batch as detc's graphs take it: RGB in 0..255, and the sizes of the contents."""
    mean = torch.tensor(model.transform.image_mean)[:, None, None]
    std = torch.tensor(model.transform.image_std)[:, None, None]
    sizes = torch.tensor([list(s) for s in images.image_sizes], dtype=torch.float32)
    return {"pixels": (images.tensors * std + mean) * 255, "size": sizes}


def assert_same_detections(mine: dict[str, Tensor], theirs: list[dict[str, Tensor]], shift: int) -> int:
    """Compare image by image: boxes to 0.05 px, scores to 1e-4, the same labels up to ties of the score.

    Args:
        mine: detections [B, K] of an infer graph.
        theirs: torchvision's, one dict an image.
        shift: what to add to labels here to get torchvision's.

    Returns:
        The number of detections compared.
    """
    total = 0
    for i, other in enumerate(theirs):
        valid = mine["valid"][i]
        assert int(valid.sum()) == len(other["scores"]), f"image {i}: numbers of detections"
        order = torch.argsort(other["scores"], descending=True, stable=True)
        scores, labels = mine["scores"][i][valid], mine["labels"][i][valid] + shift
        boxes = mine["boxes"][i][valid]
        torch.testing.assert_close(scores, other["scores"][order], atol=1e-4, rtol=0)
        unused = set(range(len(scores)))
        for k, j in enumerate(order.tolist()):
            near = [u for u in unused if abs(u - k) < 8 and abs(float(scores[u] - other["scores"][j])) < 1e-4]
            match = [
                u
                for u in near
                if labels[u] == other["labels"][j] and (boxes[u] - other["boxes"][j]).abs().max() < 0.05
            ]
            assert match, f"image {i}: no detection like torchvision's number {k}"
            unused.discard(match[0])
        total += len(scores)
    return total
