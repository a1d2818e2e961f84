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
    """Draw one of `options`, evenly or by `weights`. An option is a step or a list of steps."""

    module = "std.data.steps"
    options: list[Step | list[Step]] = Field(min_length=1)
    weights: list[float] | None = None

    @model_validator(mode="after")
    def _check(self) -> Choice:
        if self.weights is not None:
            if len(self.weights) != len(self.options):
                raise ValueError(f"{len(self.weights)} weights for {len(self.options)} options")
            if min(self.weights) < 0 or sum(self.weights) <= 0:
                raise ValueError(f"weights must be positive: {self.weights}")
        if any(step.pads for step in self._all()):
            raise ValueError("padding comes after a choice, not inside it")
        return self

    def apply(self, sample: Sample, rng: Generator, draw: Draw) -> Sample:
        p = None if self.weights is None else [w / sum(self.weights) for w in self.weights]
        option = self.options[int(rng.choice(len(self.options), p=p))]
        for step in option if isinstance(option, list) else [option]:
            sample = step.build()(sample, rng, draw)
        return sample

    def _all(self) -> list[Step]:
        return [s for o in self.options for s in (o if isinstance(o, list) else [o])]

    # What a choice reads, writes and moves is what any of its steps does.

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys(f for s in self._all() for f in s.reads))

    @property
    def writes(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys(f for s in self._all() for f in s.writes))

    @property
    def draws(self) -> int:  # type: ignore[override]
        return max((s.draws for s in self._all()), default=0)

    @property
    def geometric(self) -> bool:  # type: ignore[override]
        return any(s.geometric for s in self._all())
