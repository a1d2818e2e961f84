"""Numbers that change while a model trains, made of the training clock: `Ramp(step.iter, over = 10000it)`.

The clock is an input of training, `train { input step: step }`: `step.iter` counts optimiser steps, `step.epoch` epochs
(with their fractions), `step.progress` runs from 0 to 1. All are scalars of the graph, so a schedule costs nothing,
follows a resumed training, and needs no hook.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import field_validator

from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.spec import Quantity
from detc.compiler.types import CLOCK, Mismatch, Struct, Tensor, tensor

FIELDS = {"it": "iter", "ep": "epoch", "": "progress"}
PACKAGE = "detc.compiler.functional.schedule"


class _OfTime(Op):
    """Base of what reads the clock: `step` whole, of which the unit of the argument picks a part, or one of its parts."""

    phase = "train"
    inputs = (Port("step", (Tensor, Struct), kinds=("step", *CLOCK)),)
    time: ClassVar[str] = ""  # the argument that is a time, and has the unit of the input

    def infer(self, step: Tensor | Struct) -> Tensor:
        """A scalar."""
        given = getattr(self, self.time)
        unit = given.unit if isinstance(given, Quantity) else ""
        if isinstance(step, Struct):
            return tensor()
        if step.shape != ():
            raise Mismatch(
                f"{self.name} wants a part of the training clock, not a {step}",
                inputs=((0, f"a {step}"),),
                help="write step.iter, step.epoch or step.progress",
            )
        if unit != CLOCK.get(step.kind, ""):
            words = {"it": "iterations", "ep": "epochs", "": "a plain number"}
            raise Mismatch(
                f"`{self.time} = {given}` of {self.name} is {words[unit]},"
                f" and its input is {words[CLOCK.get(step.kind, '')]}",
                code="DET0701",
                param=self.time,
                help="iterations go with step.iter, epochs with step.epoch, plain numbers with step.progress",
            )
        return tensor()

    def _kwargs(self, step: Tensor | Struct) -> dict[str, Any]:
        given = getattr(self, self.time)
        unit = given.unit if isinstance(given, Quantity) else ""
        return {"part": FIELDS[unit]} if isinstance(step, Struct) else {}


def _number(time: Quantity | float) -> float:
    return float(time.value if isinstance(time, Quantity) else time)


def _checked(value: Quantity | float) -> Quantity | float:
    if isinstance(value, Quantity) and value.unit not in ("ep", "it"):
        raise ValueError(f"{value} is not a time: write 5ep, 500it, or a share of the training such as 0.1")
    return value


class Ramp(_OfTime):
    """`low` up to `start`, then on a straight line (or half a cosine) to `high`, reached after `over` more."""

    module = ""
    time = "over"
    over: Quantity | float
    start: Quantity | float = 0.0
    low: float = 0.0
    high: float = 1.0
    shape: Literal["linear", "cosine"] = "linear"

    @field_validator("over", "start")
    @classmethod
    def _times(cls, value: Quantity | float, info: Any) -> Quantity | float:
        if info.field_name == "over" and _number(value) <= 0:
            raise ValueError(f"a ramp takes some time, and {value} is none")
        over = info.data.get("over")
        if info.field_name == "start" and over is not None and _number(value) != 0:
            unit, other = getattr(value, "unit", ""), getattr(over, "unit", "")
            if unit != other:
                raise ValueError(f"{value} and over = {over} have different units")
        return _checked(value)

    @property
    def end(self) -> Quantity | float:
        """When it has arrived."""
        last = _number(self.start) + _number(self.over)
        return Quantity(last, self.over.unit) if isinstance(self.over, Quantity) else last

    def torch(self, step: Tensor | Struct) -> Function:  # type: ignore[override]
        """A clamped line."""
        options = {"low": self.low, "high": self.high, "shape": self.shape}
        times = {"start": _number(self.start), "over": _number(self.over)}
        return Function(f"{PACKAGE}:ramp", {**times, **options, **self._kwargs(step)})


class After(_OfTime):
    """0 before a time, 1 from then on: `weight = After(step.epoch, 285ep)`."""

    module = ""
    time = "at"
    at: Quantity | float

    @field_validator("at")
    @classmethod
    def _time(cls, value: Quantity | float) -> Quantity | float:
        return _checked(value)

    @property
    def end(self) -> Quantity | float:
        """When it has happened."""
        return self.at

    def torch(self, step: Tensor | Struct) -> Function:  # type: ignore[override]
        """A comparison."""
        return Function(f"{PACKAGE}:after", {"at": _number(self.at), **self._kwargs(step)})
