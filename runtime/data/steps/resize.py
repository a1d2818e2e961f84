"""Steps that change the size: bilinear, half-pixel centres, no antialiasing, like deployed graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveInt, field_validator

from detc.compiler.spec import Size
from detc.runtime.data.steps.base import DataStep, Draw, between, uniform

if TYPE_CHECKING:
    from numpy.random import Generator

    from detc.runtime.data.sample import Sample


def target(height: int, width: int, box: tuple[float, float], mode: str) -> tuple[int, int]:
    """(height, width) after a resize of an image to `box` (width, height).

    "keep": the largest size of the same shape with long side <= the box's long side and short side <= its
    short side, whichever way the image lies. "fit": the largest that lies in the box. "exact": the box.
    Sides are rounded half up.
    """
    if mode == "exact":
        return max(1, round(box[1])), max(1, round(box[0]))
    long, short = max(height, width), min(height, width)
    if mode == "keep":
        bounds = [(max(box), long), (min(box), short)]
    else:
        bounds = [(box[0], width), (box[1], height)]
    (num, den), (other, size) = bounds
    if other * den < num * size:
        num, den = other, size
    # with whole numbers this rounding is exact, and thereby the same as a deployed graph's
    return tuple(max(1, int((2 * n * num + den) // (2 * den))) for n in (height, width))  # type: ignore[return-value]


class Resize(DataStep):
    """Scale to `size` (width x height).

    `mode`: "keep" keeps the shape, long side to long side, so 1333x800 also serves portraits; "fit" keeps the
    shape and stays inside the box; "exact" stretches.
    """

    module = "std.data.steps"
    random = False
    geometric = True
    size: Size
    mode: Literal["keep", "fit", "exact"] = "keep"

    def apply(self, sample: Sample, rng: Generator, draw: Draw) -> Sample:
        box = (self.size.width, self.size.height)
        return sample.resize(*target(sample.height, sample.width, box, self.mode))


class RandomResize(DataStep):
    """Resize to `size` times a number drawn from `ratio`."""

    module = "std.data.steps"
    geometric = True
    size: Size
    ratio: list[float] = Field([0.5, 2.0])
    mode: Literal["keep", "fit", "exact"] = "keep"

    @field_validator("ratio")
    @classmethod
    def _ratio(cls, value: list[float]) -> list[float]:
        if value and value[0] <= 0:
            raise ValueError(f"ratio must be positive: {value}")
        return between(value, "ratio")

    def apply(self, sample: Sample, rng: Generator, draw: Draw) -> Sample:
        factor = uniform(rng, self.ratio)
        box = (self.size.width * factor, self.size.height * factor)
        return sample.resize(*target(sample.height, sample.width, box, self.mode))


class ResizeShortest(DataStep):
    """Scale the short side to one of `short` (drawn), the long side to at most `max` pixels."""

    module = "std.data.steps"
    geometric = True
    short: list[PositiveInt] = Field(min_length=1)
    max: int = Field(1333, ge=1)

    @field_validator("max")
    @classmethod
    def _reached(cls, longest: int, info: Any) -> int:
        largest = max(info.data.get("short", [1]))
        if largest > longest:
            raise ValueError(
                f"a short side of {largest} pixels is longer than the long side may be ({longest})"
            )
        return longest

    def apply(self, sample: Sample, rng: Generator, draw: Draw) -> Sample:
        short = self.short[int(rng.integers(len(self.short)))]
        box = (float(self.max), float(min(short, self.max)))
        return sample.resize(*target(sample.height, sample.width, box, "keep"))
