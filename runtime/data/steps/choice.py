"""One of several steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from detc.compiler.spec import Step
from detc.runtime.data.steps.base import DataStep, Draw

if TYPE_CHECKING:
    from numpy.random import Generator

    from detc.runtime.data.sample import Sample


class Choice(DataStep):
    """Draw one of `options` for each sample, evenly or by `weights`."""

    module = "std.data.steps"
    options: list[Step] = Field(min_length=1)
    weights: list[float] | None = None

    @model_validator(mode="after")
    def _check(self) -> Choice:
        if self.weights is not None:
            if len(self.weights) != len(self.options):
                raise ValueError(f"{len(self.weights)} weights for {len(self.options)} options")
            if min(self.weights) < 0 or sum(self.weights) <= 0:
                raise ValueError(f"weights must be positive: {self.weights}")
        return self

    def apply(self, sample: Sample, rng: Generator, draw: Draw) -> Sample:
        p = None if self.weights is None else [w / sum(self.weights) for w in self.weights]
        step = self.options[int(rng.choice(len(self.options), p=p))]
        result: Sample = step.build()(sample, rng, draw)
        return result

    # What a choice reads, moves and pads is what any of its options does.

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys(f for o in self.options for f in o.reads))

    @property
    def writes(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys(f for o in self.options for f in o.writes))

    @property
    def geometric(self) -> bool:  # type: ignore[override]
        return any(o.geometric for o in self.options)

    @property
    def pads(self) -> bool:  # type: ignore[override]
        return any(o.pads for o in self.options)
