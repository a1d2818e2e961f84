"""Patches that hide parts of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from detc.runtime.data.steps.base import DataStep, Draw, between

if TYPE_CHECKING:
    import torch
    from numpy.random import Generator

    from detc.runtime.data.later import Part
    from detc.runtime.data.sample import Sample


class Erase(DataStep):
    """Paint over rectangles (Zhong et al., AAAI 2020), with probability `p`; boxes and masks stay.

    Between `patches[0]` and `patches[1]` of them, each with sides of a share from `ratio` of the image's.
    """

    module = "std.data.steps"
    batched = True
    patches: list[int] = Field([1, 5], min_length=2, max_length=2)
    ratio: list[float] = Field([0.0, 0.2])
    fill: float = Field(114.0, ge=0, le=255)
    p: float = Field(1.0, ge=0, le=1)

    @field_validator("patches")
    @classmethod
    def _patches(cls, value: list[int]) -> list[int]:
        if len(value) == 2 and not 0 <= value[0] <= value[1]:
            raise ValueError(f"patches is [fewest, most]: {value}")
        return value

    @field_validator("ratio")
    @classmethod
    def _ratio(cls, value: list[float]) -> list[float]:
        if value and not 0 <= value[0] <= value[-1] <= 1:
            raise ValueError(f"ratio lies between 0 and 1: {value}")
        return between(value, "ratio")

    def apply(self, sample: Sample, rng: Generator, draw: Draw) -> Sample:
        if rng.random() >= self.p:
            return sample
        image = sample.image.clone()
        height, width = image.shape[1:]
        for _ in range(int(rng.integers(self.patches[0], self.patches[1] + 1))):
            h, w = (rng.uniform(self.ratio[0], self.ratio[1], 2) * (height, width)).astype(int)
            y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            image[:, y : y + h, x : x + w] = round(self.fill)
        return sample.with_image(image)

    def on_batch(self, part: Part, rng: torch.Generator) -> Part:
        from detc.runtime.data.later import erase

        return erase(
            part, (self.patches[0], self.patches[1]), (self.ratio[0], self.ratio[1]), self.fill, self.p, rng
        )
