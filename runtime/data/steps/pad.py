"""Padding to the right and the bottom, the last geometric step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, field_validator, model_validator

from detc.compiler.spec import Size
from detc.runtime.data.steps.base import DataStep, Draw, colour

if TYPE_CHECKING:
    from numpy.random import Generator

    from detc.runtime.data.sample import Sample


class Pad(DataStep):
    """Pad to `size` (width x height), or to multiples of `align`. An image larger than `size` is an error.

    With `align`, all images of a batch are padded to the batch's size, with the same `fill`.
    """

    module = "std.data.steps"
    random = False
    pads = True
    size: Size | None = None
    align: int | None = Field(None, ge=1, le=1 << 12)
    fill: float | list[float] = 0.0

    _fill = field_validator("fill")(colour)

    @model_validator(mode="after")
    def _check(self) -> Pad:
        if self.size is None and self.align is None:
            raise ValueError("it needs a size or an align: steps.Pad(align = 32)")
        if self.size and self.align and (self.size.width % self.align or self.size.height % self.align):
            raise ValueError(f"size {self.size} is not a multiple of align = {self.align}")
        return self

    def apply(self, sample: Sample, rng: Generator, draw: Draw) -> Sample:
        if self.size is None:
            align = self.align or 1
            height, width = (-(-n // align) * align for n in (sample.height, sample.width))
        else:
            height, width = self.size.height, self.size.width
            if sample.height > height or sample.width > width:
                raise ValueError(f"{sample.width}x{sample.height} does not fit into Pad({self.size})")
        return sample.pad(height, width, self.fill)
