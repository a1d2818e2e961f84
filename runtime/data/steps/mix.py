"""Steps that mix several images.

Partners are drawn fresh from the data set, as they are at the same place of the pipeline. With `cache = n`
they are taken from (up to n) samples of the same batch instead: nothing is loaded twice, and the result
depends neither on the number of workers nor on what they did before, as it would with a running cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from detc.compiler.spec import Size
from detc.runtime.data.steps.base import DataStep, Draw, between, uniform

if TYPE_CHECKING:
    from numpy.random import Generator

    from detc.runtime.data.sample import Sample


class Mosaic(DataStep):
    """Four images around a point on a canvas of twice `size` (Bochkovskiy et al., 2020), by chance `p`.

    Each image is fitted into `size`; the point lies between `centre` times `size` from the origin.
    Without the mosaic, the image is fitted into `size` all the same.
    """

    module = "std.data.steps"
    draws = 3
    reads = ("image", "boxes")
    writes = ("image", "boxes", "labels")
    geometric = True
    size: Size
    fill: float = Field(114.0, ge=0, le=255)
    centre: list[float] = Field([0.5, 1.5])
    p: float = Field(1.0, ge=0, le=1)
    cache: int = Field(0, ge=0)

    @field_validator("centre")
    @classmethod
    def _centre(cls, value: list[float]) -> list[float]:
        if value and (value[0] <= 0 or value[-1] >= 2):
            raise ValueError(f"centre lies between 0 and 2: {value}")
        return between(value, "centre")

    def fitted(self) -> Size:
        return self.size

    def apply(self, sample: Sample, rng: Generator, draw: Draw) -> Sample:
        from detc.runtime.data.mixing import fit, mosaic

        height, width = self.size.height, self.size.width
        if rng.random() >= self.p:
            return sample.resize(*fit(sample.height, sample.width, height, width))
        cx, cy = uniform(rng, self.centre) * width, uniform(rng, self.centre) * height
        centre = (min(max(int(cx), 1), 2 * width - 1), min(max(int(cy), 1), 2 * height - 1))
        return mosaic([sample, *draw(3, self.cache)], height, width, centre, self.fill)


class MixUp(DataStep):
    """The mean of two images with the objects of both, as in YOLOX (Ge et al., 2021), with probability `p`.

    The partner is fitted into `size`, scaled by a number from `ratio`, mirrored half of the time, and cut or
    padded to the sample's size. A partner without objects is passed over, up to ten times.
    """

    module = "std.data.steps"
    draws = 1
    reads = ("image", "boxes")
    writes = ("image", "boxes", "labels")
    size: Size
    cache: int = Field(0, ge=0)
    ratio: list[float] = Field([1.0, 1.0])
    fill: float = Field(114.0, ge=0, le=255)
    p: float = Field(1.0, ge=0, le=1)

    @field_validator("ratio")
    @classmethod
    def _ratio(cls, value: list[float]) -> list[float]:
        if value and value[0] <= 0:
            raise ValueError(f"ratio must be positive: {value}")
        return between(value, "ratio")

    def apply(self, sample: Sample, rng: Generator, draw: Draw) -> Sample:
        from detc.runtime.data.mixing import mixup

        if rng.random() >= self.p:
            return sample
        zoom, flip, at = uniform(rng, self.ratio), bool(rng.random() < 0.5), (rng.random(), rng.random())
        for _ in range(10):
            (partner,) = draw(1, self.cache)
            if len(partner.truth()[0]):
                break
        return mixup(sample, partner, (self.size.height, self.size.width), zoom, flip, at, self.fill)


class CopyPaste(DataStep):
    """Paste some objects of another image over this one, with probability `p` (Ghiasi et al., CVPR 2021).

    `most` objects at most; objects of which fewer than `smallest` pixels stay visible are dropped.
    """

    module = "std.data.steps"
    draws = 1
    reads = ("image", "boxes", "masks")
    writes = ("image", "boxes", "labels", "masks")
    p: float = Field(0.5, ge=0, le=1)
    most: int = Field(100, ge=1)
    smallest: float = Field(16.0, ge=1)
    cache: int = Field(0, ge=0)

    def apply(self, sample: Sample, rng: Generator, draw: Draw) -> Sample:
        from detc.runtime.data.mixing import copy_paste

        if rng.random() >= self.p:
            return sample
        (partner,) = draw(1, self.cache)
        count = len(partner.truth()[0])
        if count == 0:
            return sample
        chosen = rng.permutation(count)[: int(rng.integers(1, min(count, self.most) + 1))]
        return copy_paste(sample, partner, chosen, self.smallest)
