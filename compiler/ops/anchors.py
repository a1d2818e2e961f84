"""Anchor boxes."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Literal

from pydantic import Field, PositiveInt

from detc.compiler.dims import Dim
from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.types import Image, Map, Mismatch, Pyramid, Tensor, tensor


class Anchors(Op):
    """Boxes of several scales and aspect ratios at every position of every level (Ren et al., 2015).

    A cell's anchors come by ratio, then by scale; their centre is at `stride * (column, row)`.

    scales: side of a square anchor, in strides of its level.
    sizes: instead, sides in pixels: for each level a number or a list of numbers.
    octaves: each scale or size is also taken times 2^(1/octaves), …, 2^((octaves - 1)/octaves).
    ratios: height over width; the area stays.
    rounded: corners of a cell's anchors are rounded to whole pixels (torchvision).
    spacing: "stride" is the level's stride; "measured" is the image's side divided by the map's, rounded
        down, which torchvision uses; they differ where a level's size was rounded up.
    """

    module = "std.ops"
    inputs = (Port("feats", Pyramid), Port("image", Image, optional=True))

    scales: list[float] = Field(default=[8.0], min_length=1)
    ratios: list[float] = Field(default=[0.5, 1.0, 2.0], min_length=1)
    octaves: PositiveInt = 1
    sizes: list[float | list[float]] | None = None
    rounded: bool = False
    spacing: Literal["stride", "measured"] = "stride"

    @property
    def count(self) -> int:
        """Anchors of one cell."""
        return len(self.ratios) * len(self._sides(0, Fraction(1)))

    def infer(self, feats: Pyramid, image: Image | None = None) -> Tensor:
        """Boxes [N, 4], the same for all images."""
        if self.sizes is not None and len(self.sizes) != len(feats.maps):
            raise Mismatch(
                f"{len(self.sizes)} anchor sizes for {len(feats.maps)} levels",
                code="DET0303",
                inputs=((0, f"{len(feats.maps)} levels come from here"),),
                param="sizes",
            )
        if self.spacing == "measured" and image is None:
            raise Mismatch('`spacing = "measured"` needs the image', param="spacing")
        counts = {len(self._sides(i, m.stride)) for i, m in enumerate(feats.maps)}
        if len(counts) > 1:
            raise Mismatch("every level needs the same number of anchor sizes", param="sizes")
        cells = sum((m.height * m.width for m in feats.maps), Dim())
        return tensor(cells * self.count, 4, kind="boxes")

    def torch(self, feats: Pyramid, image: Image | None = None) -> Function:  # type: ignore[override]
        """The grid, computed from the maps' sizes."""
        cells = [self._cell(i, m) for i, m in enumerate(feats.maps)]
        strides = None if self.spacing == "measured" else [float(m.stride) for m in feats.maps]
        return Function("detc.compiler.functional.anchors:grid_anchors", {"cells": cells, "strides": strides})

    def _sides(self, level: int, stride: Fraction) -> list[float]:
        if self.sizes is None:
            base = [scale * float(stride) for scale in self.scales]
        else:
            own = self.sizes[level]
            base = list(own) if isinstance(own, list) else [own]
        return [side * 2 ** (i / self.octaves) for side in base for i in range(self.octaves)]

    def _cell(self, level: int, m: Map) -> list[list[float]]:
        boxes = []
        for ratio in self.ratios:
            for side in self._sides(level, m.stride):
                x, y = side / math.sqrt(ratio) / 2, side * math.sqrt(ratio) / 2
                corner = (float(round(x)), float(round(y))) if self.rounded else (x, y)
                boxes.append([-corner[0], -corner[1], *corner])
        return boxes
