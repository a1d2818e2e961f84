"""When things happen: the learning rate of each iteration, validations, pipeline switches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from detc.compiler.spec import Quantity, Switch, TrainSpec
from detc.dsl.diagnostics import error
from detc.runtime.train.schema import Clock, Piece

if TYPE_CHECKING:
    from torch import optim


def make_clock(epochs: Quantity, per_epoch: int) -> Clock:
    """The clock of a training of `epochs` (in ep or it) whose epoch has `per_epoch` iterations."""
    total = Clock(per_epoch, 0).iterations(epochs)
    if per_epoch < 1 or total < 1:
        raise error("DET0710", f"nothing to train: {epochs} at {per_epoch} iterations an epoch")
    return Clock(per_epoch, total)


@dataclass(frozen=True)
class RatePlan:
    """The learning rate as a closed form of the iteration."""

    base: float
    pieces: Mapping[str, Piece]
    clock: Clock

    def rate(self, i: int) -> float:
        """The base learning rate at iteration `i`; groups multiply it by their `lr_scale`."""
        value = self.base
        for piece in self.pieces.values():
            value *= piece.factor(i, self.clock)
        return value

    def apply(self, optimizer: optim.Optimizer, i: int) -> float:
        """Set the rate of every group for iteration `i` and return the base rate."""
        rate = self.rate(i)
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        return rate


@dataclass(frozen=True)
class Timetable:
    """Validation times and switches of a training, in iterations."""

    clock: Clock
    every: int
    every_late: int | None
    switches: tuple[tuple[int, str, Any], ...]

    @property
    def late_from(self) -> int:
        """The iteration of the last switch; the end if there is none."""
        return max((at for at, _, _ in self.switches), default=self.clock.total)

    def validates(self, done: int) -> bool:
        """True if a validation follows when `done` iterations are done. The end always has one."""
        if done == self.clock.total:
            return True
        every = self.every
        if self.every_late is not None and done > self.late_from:
            every = self.every_late
        return every > 0 and done % every == 0

    def value(self, path: str, default: Any, done: int) -> Any:
        """The value that switches give `path` when `done` iterations are done."""
        for at, name, value in self.switches:
            if name == path and done >= at:
                default = value
        return default

    def next_switch(self, done: int) -> int:
        """The first switch after `done` iterations, or the end."""
        return min((at for at, _, _ in self.switches if at > done), default=self.clock.total)


SWITCHABLE = ("data.active",)


def make_timetable(spec: TrainSpec, clock: Clock) -> Timetable:
    """Convert a recipe's times to iterations.

    Raises:
        DetError: DET0705 if a switch sets what cannot be switched.
    """
    switches = sorted(_switches(spec.switches, clock), key=lambda s: s[0])
    late = None if spec.validate_late is None else max(clock.iterations(spec.validate_late), 1)
    every = clock.iterations(spec.validate_every)
    if spec.validate_every.value > 0:
        every = max(every, 1)
    return Timetable(clock, every, late, tuple(switches))


def _switches(switches: Sequence[Switch], clock: Clock) -> list[tuple[int, str, Any]]:
    for switch in switches:
        if switch.path.removeprefix("train.") not in SWITCHABLE:
            raise error(
                "DET0705",
                f"`{switch.path}` cannot change during training",
                switch.origin,
                help=f"`at` blocks may set {', '.join(SWITCHABLE)}",
            )
    return [(max(clock.iterations(s.at), 0), s.path.removeprefix("train."), s.value) for s in switches]
