"""Anchors against torchvision's generator and against MMDetection's published numbers."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from detc.compiler.dims import dim
from detc.compiler.functional.anchors import grid_anchors
from detc.compiler.ops.anchors import Anchors
from detc.compiler.types import Image, Map, Mismatch, Pyramid


def pyramid(strides: list[int], height: int, width: int) -> Pyramid:
    maps = [Map(8, Fraction(s), dim(-(-height // s)), dim(-(-width // s))) for s in strides]
    return Pyramid(tuple(maps))


def run(op: Anchors, feats: Pyramid, height: int, width: int) -> torch.Tensor:
    image = Image(dim(height), dim(width))
    maps = [torch.zeros(2, m.channels, int(m.height), int(m.width)) for m in feats.maps]
    boxes = grid_anchors(maps, {"pixels": torch.zeros(2, 3, height, width)}, **op.torch(feats, image).kwargs)
    assert list(boxes.shape) == [int(d) for d in op.infer(feats, image).shape]
    return boxes


@pytest.mark.parametrize(("height", "width"), [(256, 320), (288, 416), (800, 1088)])
@pytest.mark.parametrize("retina", [False, True])
def test_torchvision_anchors(height: int, width: int, retina: bool) -> None:
    sides = [
        [s, int(s * 2 ** (1 / 3)), int(s * 2 ** (2 / 3))] if retina else [s] for s in (32, 64, 128, 256, 512)
    ]
    strides = [8, 16, 32, 64, 128] if retina else [4, 8, 16, 32, 64]
    ratios = [0.5, 1.0, 2.0]
    feats = pyramid(strides, height, width)
    op = Anchors(
        sizes=[[float(x) for x in s] for s in sides], ratios=ratios, rounded=True, spacing="measured"
    )
    mine = run(op, feats, height, width)
    generator = AnchorGenerator(tuple(map(tuple, sides)), (tuple(ratios),) * 5)
    maps = [torch.zeros(1, 1, int(m.height), int(m.width)) for m in feats.maps]
    theirs = generator(ImageList(torch.zeros(1, 3, height, width), [(height, width)]), maps)[0]
    assert torch.equal(mine, theirs)


def test_mmdetection_base_anchors() -> None:
    """MMDetection's docstring example of its AnchorGenerator: strides [16], ratios [1], scales [1]."""
    mine = run(Anchors(scales=[1.0], ratios=[1.0]), pyramid([16], 32, 32), 32, 32)
    expected = [[-8.0, -8, 8, 8], [8, -8, 24, 8], [-8, 8, 8, 24], [8, 8, 24, 24]]
    assert torch.allclose(mine, torch.tensor(expected))


def test_octaves_are_powers_of_two() -> None:
    mine = run(Anchors(scales=[4.0], octaves=3, ratios=[1.0]), pyramid([8], 8, 8), 8, 8)
    sides = mine[:, 2] - mine[:, 0]
    assert torch.allclose(sides, torch.tensor([32.0, 32 * 2 ** (1 / 3), 32 * 2 ** (2 / 3)]))


def test_wrong_number_of_sizes_is_named() -> None:
    with pytest.raises(Mismatch, match="2 anchor sizes for 3 levels"):
        Anchors(sizes=[32.0, 64.0]).infer(pyramid([4, 8, 16], 64, 64))
    with pytest.raises(Mismatch, match="same number"):
        Anchors(sizes=[32.0, [64.0, 80.0]]).infer(pyramid([4, 8], 64, 64))
    with pytest.raises(Mismatch, match="needs the image"):
        Anchors(spacing="measured").infer(pyramid([4], 64, 64))
