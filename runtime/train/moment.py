"""The training clock as the train graph takes it: `train { input step: step }`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detc.runtime.train.schema import Clock


class Moment:
    """The scalars of one iteration, made on the device without waiting for it.

    They follow from the number of steps done, so a resumed training goes on where it was.
    """

    def __init__(self, clock: Clock, device: torch.device) -> None:
        self.clock, self.device = clock, device

    def at(self, done: int) -> dict[str, Tensor]:
        """The clock of the step after `done` steps: iterations, epochs (with fractions), the share of the whole."""
        values = {"iter": done, "epoch": done / self.clock.per_epoch, "progress": done / self.clock.total}
        return {name: torch.full((), float(v), device=self.device) for name, v in values.items()}


def moment_of(program: Any, clock: Clock, device: torch.device) -> Moment | None:
    """What the train graph of `program` asks of the clock, or None if it does not."""
    spec = getattr(program, "spec", None)
    return Moment(clock, device) if getattr(spec, "clocked", False) else None
