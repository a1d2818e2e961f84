"""Steps that change colours only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, field_validator, model_validator

from detc.runtime.data.steps.base import DataStep, Draw, between

if TYPE_CHECKING:
    import torch
    from numpy.random import Generator

    from detc.runtime.data.later import Part
    from detc.runtime.data.sample import Sample


class HSV(DataStep):
    """YOLOX's jitter: add up to +-`hue` degrees, +-`saturation`, +-`value` (of 255), each by chance 1/2."""

    module = "std.data.steps"
    hue: float = Field(10.0, ge=0, le=180)
    saturation: float = Field(30.0, ge=0, le=255)
    value: float = Field(30.0, ge=0, le=255)

    def apply(self, sample: Sample, rng: Generator, draw: Draw) -> Sample:
        from detc.runtime.data.colour import shift_hsv

        amounts = rng.uniform(-1, 1, 3) * (self.hue, self.saturation, self.value) * rng.integers(0, 2, 3)
        if not amounts.any():
            return sample
        return sample.with_image(shift_hsv(sample.image, *(float(a) for a in amounts)))


class ColorJitter(DataStep):
    """torchvision's ColorJitter: factors from [1 - x, 1 + x] in random order; `hue` is a share of a turn.

    On batches the order is that of the arguments, and `hue` is not to be had.
    """

    module = "std.data.steps"
    batched = True
    brightness: float = Field(0.0, ge=0, le=1)
    contrast: float = Field(0.0, ge=0, le=1)
    saturation: float = Field(0.0, ge=0, le=1)
    hue: float = Field(0.0, ge=0, le=0.5)
    p: float = Field(1.0, ge=0, le=1)

    def apply(self, sample: Sample, rng: Generator, draw: Draw) -> Sample:
        from detc.runtime.data import colour

        if rng.random() >= self.p:
            return sample
        image = sample.image
        for kind in rng.permutation(4):
            bound = (self.brightness, self.contrast, self.saturation, self.hue)[kind]
            if not bound:
                continue
            amount = float(rng.uniform(-bound, bound))
            if kind == 3:
                image = colour.shift_hsv(image, amount * 360, 0.0, 0.0)
            else:
                change = (colour.brightness, colour.contrast, colour.saturation)[kind]
                image = change(image, 1 + amount)
        return sample.with_image(image)

    @model_validator(mode="after")
    def _no_hue(self) -> ColorJitter:
        if self.on == "batch" and self.hue:
            raise ValueError("`hue` is not for whole batches")
        return self

    def on_batch(self, part: Part, rng: torch.Generator) -> Part:
        from detc.runtime.data.later import jitter

        return jitter(part, (self.brightness, self.contrast, self.saturation), self.p, rng)


class PhotoMetric(DataStep):
    """SSD's photometric distortion (Liu et al., ECCV 2016): each part happens half of the time.

    Brightness is added (of 255), contrast and saturation are factors, hue is added (degrees).
    """

    module = "std.data.steps"
    brightness: float = Field(32.0, ge=0, le=255)
    contrast: list[float] = Field([0.5, 1.5], min_length=2, max_length=2)
    saturation: list[float] = Field([0.5, 1.5], min_length=2, max_length=2)
    hue: float = Field(18.0, ge=0, le=180)

    @field_validator("contrast", "saturation")
    @classmethod
    def _factors(cls, value: list[float]) -> list[float]:
        if value[0] < 0:
            raise ValueError(f"factors are not negative: {value}")
        return between(value, "it")

    def apply(self, sample: Sample, rng: Generator, draw: Draw) -> Sample:
        from detc.runtime.data import colour

        image = sample.image
        bright, early, colourful, hue, late, swap = rng.random(6) < 0.5
        if bright:
            image = colour.offset(image, float(rng.uniform(-self.brightness, self.brightness)))
        factor = float(rng.uniform(self.contrast[0], self.contrast[1]))
        if early and late:  # contrast comes before or after the colours, half of the time each
            image = colour.scale(image, factor)
        if colourful or hue:
            amount = float(rng.uniform(self.saturation[0], self.saturation[1])) if colourful else 1.0
            turn = float(rng.uniform(-self.hue, self.hue)) if hue else 0.0
            image = colour.turn_hsv(image, turn, amount)
        if early and not late:
            image = colour.scale(image, factor)
        if swap:
            image = image[rng.permutation(3).tolist()]
        return sample.with_image(image)


class GaussianBlur(DataStep):
    """Blur with a Gaussian of `sigma` pixels, with probability `p`."""

    module = "std.data.steps"
    batched = True
    sigma: float = Field(1.0, gt=0, le=100)
    p: float = Field(0.5, ge=0, le=1)

    def apply(self, sample: Sample, rng: Generator, draw: Draw) -> Sample:
        from detc.runtime.data.pixels import blur

        return sample.with_image(blur(sample.image, self.sigma)) if rng.random() < self.p else sample

    def on_batch(self, part: Part, rng: torch.Generator) -> Part:
        from detc.runtime.data.later import soften

        return soften(part, self.sigma, self.p, rng)
