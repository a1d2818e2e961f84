"""What the steps of this package share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from detc.compiler.spec import Size, Step

if TYPE_CHECKING:
    import torch
    from numpy.random import Generator

    from detc.runtime.data.later import Part
    from detc.runtime.data.sample import Sample


class Draw(Protocol):
    """Gives other samples, as they are at the same place of the pipeline."""

    def __call__(self, count: int, cache: int = 0) -> list[Sample]:
        """`count` partners. `cache` > 0: take them from up to that many samples of the same batch."""
        ...


class DataStep(Step):
    """A step. Class variables, beside those of `Step`:

    random: uses `rng` or `draw`. What stands before the first random step may be cached.
    """

    module: ClassVar[str | None] = None
    random: ClassVar[bool] = True

    def build(self) -> Callable[[Sample, Generator, Draw], Sample]:
        """The function that does the work."""
        return self.apply

    def apply(self, sample: Sample, rng: Generator, draw: Draw) -> Sample:
        """Return the changed sample; `sample` itself stays as it is."""
        raise NotImplementedError

    def on_batch(self, part: Part, rng: torch.Generator) -> Part:
        """The same on a finished batch, on its device; only for steps that say `batched`."""
        raise NotImplementedError

    def fitted(self) -> Size | None:
        """A box that the step first fits every image into, so that a cache can hold them at that size."""
        return None


def between(value: list[float], name: str) -> list[float]:
    """A [low, high] range in order, for validators.

    Raises:
        ValueError: if it is not.
    """
    if len(value) != 2 or value[0] > value[1]:
        raise ValueError(f"{name} is [low, high]: {value}")
    return value


def colour(value: float | list[float]) -> float | list[float]:
    """One number for all channels or three (RGB), each 0 to 255, for validators.

    Raises:
        ValueError: if it is not.
    """
    numbers = value if isinstance(value, list) else [value]
    if len(numbers) not in ((3,) if isinstance(value, list) else (1,)):
        raise ValueError(f"a colour is one number or three (RGB): {value}")
    if not all(0 <= n <= 255 for n in numbers):
        raise ValueError(f"a colour lies between 0 and 255: {value}")
    return value


def uniform(rng: Any, bounds: list[float]) -> float:
    """A number between the two bounds."""
    return float(rng.uniform(bounds[0], bounds[1]))
