"""Mirror images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from detc.runtime.data.steps.base import DataStep, Draw

if TYPE_CHECKING:
    import torch
    from numpy.random import Generator

    from detc.runtime.data.later import Part
    from detc.runtime.data.sample import Sample


class HFlip(DataStep):
    """Mirror left-right with probability `p`."""

    module = "std.data.steps"
    geometric = True
    batched = True
    p: float = Field(0.5, ge=0, le=1)

    def apply(self, sample: Sample, rng: Generator, draw: Draw) -> Sample:
        return sample.flip(horizontal=True) if rng.random() < self.p else sample

    def on_batch(self, part: Part, rng: torch.Generator) -> Part:
        from detc.runtime.data.later import mirror

        return mirror(part, self.p, rng, horizontal=True)


class VFlip(DataStep):
    """Mirror top-bottom with probability `p`."""

    module = "std.data.steps"
    geometric = True
    batched = True
    p: float = Field(0.5, ge=0, le=1)

    def apply(self, sample: Sample, rng: Generator, draw: Draw) -> Sample:
        return sample.flip(horizontal=False) if rng.random() < self.p else sample

    def on_batch(self, part: Part, rng: torch.Generator) -> Part:
        from detc.runtime.data.later import mirror

        return mirror(part, self.p, rng, horizontal=False)
