"""Cropping and its opposite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, field_validator, model_validator

from detc.compiler.spec import Size
from detc.runtime.data.steps.base import DataStep, Draw, between, colour, uniform

if TYPE_CHECKING:
    from numpy.random import Generator

    from detc.runtime.data.sample import Sample


class Crop(DataStep):
    """Cut a random window of `size` (width x height); a smaller image stays as it is along that side.

    With `smallest`, the window's sides are drawn between that and `size`.
    Boxes are clipped; one with less than `keep` of its area left, or thinner than a pixel, goes. With
    `tight`, boxes shrink to what is left of their masks. `empty = false` tries up to ten windows for one
    with an object.
    """

    module = "std.data.steps"
    geometric = True
    size: Size
    keep: float = Field(0.0, ge=0, le=1)
    tight: bool = False
    empty: bool = True
    smallest: Size | None = None

    @model_validator(mode="after")
    def _check(self) -> Crop:
        if self.smallest and (
            self.smallest.width > self.size.width or self.smallest.height > self.size.height
        ):
            raise ValueError(f"smallest = {self.smallest} exceeds size = {self.size}")
        return self

    def apply(self, sample: Sample, rng: Generator, draw: Draw) -> Sample:
        height, width = self.size.height, self.size.width
        if self.smallest:
            height = int(rng.integers(self.smallest.height, height + 1))
            width = int(rng.integers(self.smallest.width, width + 1))
        height, width = min(height, sample.height), min(width, sample.width)
        wanted = not self.empty and len(sample.truth()[0]) > 0
        cut = sample
        for _ in range(10 if wanted else 1):
            x = int(rng.integers(sample.width - width + 1))
            y = int(rng.integers(sample.height - height + 1))
            cut = _cut(sample, x, y, height, width, self.keep, self.tight)
            if len(cut.truth()[0]):
                break
        return cut


def _cut(sample: Sample, x: int, y: int, height: int, width: int, keep: float, tight: bool) -> Sample:
    if (height, width) == (sample.height, sample.width):
        return sample
    boxes = sample.truth()[0]
    before = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    cut = sample.place(-x, -y, height, width)
    if tight:
        cut = cut.boxes_from_masks()
    return cut.drop_degenerate(share=keep, before=before)


class MinIoUCrop(DataStep):
    """SSD's crop (Liu et al., ECCV 2016): a window that overlaps every object inside by a drawn IoU or more.

    The bound is one of `overlap`, 1 (no crop) or 0 (any window). Objects whose centre is outside go. Windows
    have sides of at least `smallest` of the image's and a shape between 1:2 and 2:1.
    """

    module = "std.data.steps"
    geometric = True
    overlap: list[Annotated[float, Field(ge=0, le=1)]] = Field([0.1, 0.3, 0.5, 0.7, 0.9], min_length=1)
    smallest: float = Field(0.3, gt=0, le=1)

    def apply(self, sample: Sample, rng: Generator, draw: Draw) -> Sample:
        bounds = [1.0, *self.overlap, 0.0]
        while True:
            bound = bounds[int(rng.integers(len(bounds)))]
            if bound == 1.0:
                return sample
            for _ in range(50):
                width = int(rng.uniform(self.smallest * sample.width, sample.width))
                height = int(rng.uniform(self.smallest * sample.height, sample.height))
                if width < 1 or height < 1 or not 0.5 <= height / width <= 2:
                    continue
                x = int(rng.integers(sample.width - width + 1))
                y = int(rng.integers(sample.height - height + 1))
                cut = self._accept(sample, (x, y, x + width, y + height), bound)
                if cut is not None:
                    return cut

    def _accept(self, sample: Sample, window: tuple[int, int, int, int], bound: float) -> Sample | None:
        boxes = sample.truth()[0]
        x1, y1, x2, y2 = window
        if len(boxes):
            w = (boxes[:, 2].clip(max=x2) - boxes[:, 0].clip(min=x1)).clip(min=0)
            h = (boxes[:, 3].clip(max=y2) - boxes[:, 1].clip(min=y1)).clip(min=0)
            area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
            iou = w * h / (area + (x2 - x1) * (y2 - y1) - w * h)
            cx, cy = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
            inside = (cx > x1) & (cx < x2) & (cy > y1) & (cy < y2)
            if not inside.any() or iou[inside].min() < bound:
                return None
            sample = sample.select(inside)
        return _cut(sample, x1, y1, y2 - y1, x2 - x1, 0.0, False)


class Expand(DataStep):
    """SSD's zoom-out: put the image on a canvas of `ratio` times its size, with probability `p`."""

    module = "std.data.steps"
    geometric = True
    ratio: list[float] = Field([1.0, 4.0])
    fill: float | list[float] = Field([123.675, 116.28, 103.53])
    p: float = Field(0.5, ge=0, le=1)

    _fill = field_validator("fill")(colour)

    @field_validator("ratio")
    @classmethod
    def _ratio(cls, value: list[float]) -> list[float]:
        if value and value[0] < 1:
            raise ValueError(f"ratio must be at least 1: {value}")
        return between(value, "ratio")

    def apply(self, sample: Sample, rng: Generator, draw: Draw) -> Sample:
        if rng.random() >= self.p:
            return sample
        ratio = uniform(rng, self.ratio)
        height, width = int(sample.height * ratio), int(sample.width * ratio)
        x = int(rng.integers(width - sample.width + 1))
        y = int(rng.integers(height - sample.height + 1))
        return sample.place(x, y, height, width, self.fill)
