"""Random affine maps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from detc.compiler.spec import Size
from detc.runtime.data.steps.base import DataStep, Draw, between, uniform

if TYPE_CHECKING:
    from numpy.random import Generator

    from detc.runtime.data.sample import Sample


class RandomAffine(DataStep):
    """Rotate, scale, shear and shift about the centre, as in YOLOX (Ge et al., 2021).

    `rotate` and `shear` are degrees, `shift` a share of the output's size, `scale` a range. `size` is the
    output's size (the input's by default), whose centre the image's centre falls on before the shift. Boxes
    become the bounds of their turned corners (or of their masks, if there are any); those with less than
    `keep` of their (scaled) area left go.
    """

    module = "std.data.steps"
    geometric = True
    rotate: float = Field(10.0, ge=0, le=180)
    shift: float = Field(0.1, ge=0, le=1)
    scale: list[float] = Field([0.5, 1.5])
    shear: float = Field(2.0, ge=0, lt=90)
    size: Size | None = None
    fill: float = Field(114.0, ge=0, le=255)
    keep: float = Field(0.1, ge=0, le=1)
    p: float = Field(1.0, ge=0, le=1)

    @field_validator("scale")
    @classmethod
    def _scale(cls, value: list[float]) -> list[float]:
        if value and value[0] <= 0:
            raise ValueError(f"scale must be positive: {value}")
        return between(value, "scale")

    def apply(self, sample: Sample, rng: Generator, draw: Draw) -> Sample:
        import numpy as np

        width = self.size.width if self.size else sample.width
        height = self.size.height if self.size else sample.height
        if rng.random() >= self.p:
            x, y = (width - sample.width) // 2, (height - sample.height) // 2
            return sample.place(x, y, height, width, self.fill).drop_degenerate()
        angle, scale = math.radians(rng.uniform(-self.rotate, self.rotate)), uniform(rng, self.scale)
        kx, ky = (math.tan(math.radians(a)) for a in rng.uniform(-self.shear, self.shear, 2))
        dx, dy = rng.uniform(-self.shift, self.shift, 2) * (width, height)
        cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
        to_origin = np.array([[1, 0, -sample.width / 2], [0, 1, -sample.height / 2], [0, 0, 1.0]])
        turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]])
        slant = np.array([[1, kx, 0], [ky, 1, 0], [0, 0, 1.0]])
        back = np.array([[1, 0, width / 2 + dx], [0, 1, height / 2 + dy], [0, 0, 1.0]])
        boxes = sample.truth()[0]
        before = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) * scale**2
        moved = sample.warp(back @ slant @ turn @ to_origin, height, width, self.fill).boxes_from_masks()
        return moved.drop_degenerate(share=self.keep, before=before)
