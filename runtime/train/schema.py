"""What a `train` declaration may name: optimisers, pieces of a learning-rate schedule, hooks. Torch-free.

All are in the prelude, so a spec uses them without an import:

    optim = AdamW(lr = 4e-3 per 256img, weight_decay = 0.05)
    lr { warmup: Linear(from_ratio = 1e-5, over = 1000it)  anneal: Cosine(start = epochs / 2, end_ratio = 5%)
    } hooks { ema: EMA(momentum = 2e-4) }

A piece of the schedule is a closed form: `factor(i, clock)` gives the number that multiplies the base rate at
iteration `i`. Pieces multiply, so a warm-up and a decay do not need to know of each other, and resuming needs
no stored state. Durations are quantities (`ep`, `it`); the `Clock` converts them, once the length of an epoch
is known.

To add an optimiser, a piece or a hook: write the class here. Nothing else is listed anywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from detc.compiler.primitives import Primitive
from detc.compiler.spec import Follow, Quantity, Rate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import optim

DURATIONS = ("ep", "it")


@dataclass(frozen=True)
class Clock:
    """How long an epoch and the whole training are, in iterations (one iteration = one optimiser step)."""

    per_epoch: int
    total: int

    def iterations(self, time: Quantity) -> int:
        """A duration in iterations, rounded to the nearest.

        Raises:
            ValueError: if the quantity is no duration.
        """
        if time.unit == "ep":
            return round(time.value * self.per_epoch)
        if time.unit == "it":
            return round(time.value)
        raise ValueError(f"{time} is not a duration: write epochs (12ep) or iterations (500it)")


def _duration(value: Quantity | None) -> Quantity | None:
    if value is not None and value.unit not in DURATIONS:
        raise ValueError(f"{value} is not a duration: write epochs (12ep) or iterations (500it)")
    return value


def _not_negative(value: Quantity | None) -> Quantity | None:
    if _duration(value) is not None and value is not None and value.value < 0:
        raise ValueError(f"a duration is not negative, and this is {value}")
    return value


def _above_zero(value: Quantity) -> Quantity:
    _duration(value)
    if value.value <= 0:
        raise ValueError(f"it must be more than 0, and is {value}")
    return value


# --- optimisers --------------------------------------------------------------------------------


class Optimizer(Primitive):
    """Base of optimisers. `lr` scales with the batch if it is written `x per Nimg`."""

    lr: Rate | float
    weight_decay: float = Field(0.0, ge=0)

    @field_validator("lr")
    @classmethod
    def _learns(cls, lr: Rate | float) -> Rate | float:
        if isinstance(lr, Rate) and lr.per is not None and lr.per.value <= 0:
            raise ValueError(f"a rate is per 1 image or more, and this is {lr}")
        if (lr.value if isinstance(lr, Rate) else lr) <= 0:
            raise ValueError(f"a learning rate is more than 0, and this is {lr}")
        return lr

    def options(self) -> dict[str, Any]:
        """Keyword arguments of the torch class, without lr and parameters."""
        raise NotImplementedError

    def build(self, groups: Sequence[dict[str, Any]], lr: float, fused: bool) -> optim.Optimizer:
        """The torch optimiser over `groups` at learning rate `lr`.

        Args:
            groups: parameter groups with at least "params"; may override any option.
            lr: the rate for the batch in use (see `Rate.at`).
            fused: use the fused kernel (one launch for all parameters) instead of the foreach one.
        """
        from torch import optim

        kind = getattr(optim, type(self).__name__)
        how = {"fused": True} if fused else {"foreach": True}
        return kind(list(groups), lr=lr, weight_decay=self.weight_decay, **self.options(), **how)


class SGD(Optimizer):
    """Stochastic gradient descent with momentum."""

    module = ""
    momentum: float = Field(0.0, ge=0, lt=1)
    nesterov: bool = False

    @field_validator("nesterov")
    @classmethod
    def _has_momentum(cls, nesterov: bool, info: Any) -> bool:
        if nesterov and info.data.get("momentum") == 0.0:
            raise ValueError("Nesterov's step needs a momentum: momentum = 0.9")
        return nesterov

    def options(self) -> dict[str, Any]:
        return {"momentum": self.momentum, "nesterov": self.nesterov}


class _Adaptive(Optimizer):
    betas: list[float] = Field([0.9, 0.999], min_length=2, max_length=2)
    eps: float = Field(1e-8, gt=0)

    @field_validator("betas")
    @classmethod
    def _decays(cls, betas: list[float]) -> list[float]:
        if not all(0 <= b < 1 for b in betas):
            raise ValueError(f"both are at least 0 and below 1, not {betas[0]:g} and {betas[1]:g}")
        return betas

    def options(self) -> dict[str, Any]:
        return {"betas": tuple(self.betas), "eps": self.eps}


class Adam(_Adaptive):
    """Adam (Kingma & Ba, ICLR 2015); weight decay is an L2 term of the gradient."""

    module = ""


class AdamW(_Adaptive):
    """Adam with decoupled weight decay (Loshchilov & Hutter, ICLR 2019)."""

    module = ""
    weight_decay: float = Field(0.01, ge=0)


# --- learning-rate schedule --------------------------------------------------------------------


class Piece(Primitive):
    """Base of schedule pieces."""

    def factor(self, i: int, clock: Clock) -> float:
        """What this piece multiplies the base rate by at iteration `i` (from 0)."""
        raise NotImplementedError

    def durations(self) -> list[Quantity]:
        """All durations that the spec gave, for checks."""
        found = [v for v in self.__dict__.values() if isinstance(v, Quantity)]
        for value in self.__dict__.values():
            if isinstance(value, list):
                found += [v for v in value if isinstance(v, Quantity)]
        return found


class _Ramp(Piece):
    from_ratio: float = Field(0.001, ge=0, le=1)
    over: Quantity

    _check = field_validator("over")(_not_negative)

    def _progress(self, i: int, clock: Clock) -> float:
        length = clock.iterations(self.over)
        return 1.0 if i >= length else i / length


class Linear(_Ramp):
    """Warm-up: from `from_ratio` of the rate to all of it, on a straight line, `over` a duration."""

    module = ""

    def factor(self, i: int, clock: Clock) -> float:
        return self.from_ratio + (1 - self.from_ratio) * self._progress(i, clock)


class Quadratic(_Ramp):
    """Warm-up on a parabola (YOLOX): slow first, then fast."""

    module = ""
    from_ratio: float = Field(0.0, ge=0, le=1)

    def factor(self, i: int, clock: Clock) -> float:
        return self.from_ratio + (1 - self.from_ratio) * self._progress(i, clock) ** 2


class Constant(_Ramp):
    """`from_ratio` of the rate `over` a duration, then all of it."""

    module = ""
    from_ratio: float = Field(1 / 3, ge=0, le=1)

    def factor(self, i: int, clock: Clock) -> float:
        return 1.0 if i >= clock.iterations(self.over) else self.from_ratio


class MultiStep(Piece):
    """Multiply by `gamma` at each time in `at`."""

    module = ""
    at: list[Quantity]
    gamma: float = Field(0.1, gt=0)

    @field_validator("at")
    @classmethod
    def _check(cls, times: list[Quantity]) -> list[Quantity]:
        for time in times:
            _not_negative(time)
        values = [t.value for t in times]
        if len({t.unit for t in times}) == 1 and values != sorted(set(values)):
            raise ValueError(f"the times must rise: {', '.join(map(str, times))}")
        return times

    def factor(self, i: int, clock: Clock) -> float:
        return self.gamma ** sum(i >= clock.iterations(t) for t in self.at)


class _Decay(Piece):
    start: Quantity = Quantity(0, "it")
    end: Quantity | None = None
    end_ratio: float = Field(0.0, ge=0, le=1)

    _check = field_validator("start", "end")(_not_negative)

    @field_validator("end")
    @classmethod
    def _later(cls, end: Quantity | None, info: Any) -> Quantity | None:
        start = info.data.get("start")
        if end is not None and start is not None and start.unit == end.unit and end.value <= start.value:
            raise ValueError(f"it is not after `start`, which is {start}")
        return end

    def _progress(self, i: int, clock: Clock) -> float:
        start = clock.iterations(self.start)
        end = clock.total if self.end is None else clock.iterations(self.end)
        # The last iteration of the range already runs at `end_ratio`.
        return min(max((i - start) / max(end - 1 - start, 1), 0.0), 1.0)


class Cosine(_Decay):
    """Half a cosine from the full rate at `start` down to `end_ratio` of it at `end` (default: the end)."""

    module = ""

    def factor(self, i: int, clock: Clock) -> float:
        return self.end_ratio + (1 - self.end_ratio) * (1 + math.cos(math.pi * self._progress(i, clock))) / 2


class Poly(_Decay):
    """(1 - progress) ** `power`, down to `end_ratio`; power 1 is a straight line."""

    module = ""
    power: float = Field(1.0, gt=0)

    def factor(self, i: int, clock: Clock) -> float:
        return self.end_ratio + (1 - self.end_ratio) * (1 - self._progress(i, clock)) ** self.power


class Exponential(_Decay):
    """A geometric fall from the full rate at `start` to `end_ratio` of it at `end`."""

    module = ""
    end_ratio: float = Field(0.01, gt=0, le=1)

    def factor(self, i: int, clock: Clock) -> float:
        return self.end_ratio ** self._progress(i, clock)


# --- shadow nodes ---------------------------------------------------------------------------


class Average(Follow):
    """A shadow node that is the moving average of another: `shadow node teacher = Average(student, decay = 0.999)`.

    It begins as the other node. After each optimiser step `shadow = decay * shadow + (1 - decay) * other`; with
    `warmup = "ramp"` the decay is at most (1 + step) / (10 + step). Statistics of batch norms are averaged too,
    or copied with `buffers = "copy"`.
    """

    module = ""
    decay: float = Field(0.999, ge=0, lt=1)
    warmup: Literal["ramp", "none"] = "none"
    buffers: Literal["average", "copy"] = "average"

    def momentum(self, step: int) -> float:
        """The share of the other node in update number `step` (from 0)."""
        decay = self.decay if self.warmup == "none" else min(self.decay, (1 + step) / (10 + step))
        return 1 - decay


# --- hooks -------------------------------------------------------------------------------------


class Hook(Primitive):
    """Base of hooks: things that accompany training. The trainer knows each kind."""

    accompanies: ClassVar[bool] = True


class EMA(Hook):
    """An exponential moving average of the weights, which is evaluated and saved in their place.

    After each step `average += m * (weights - average)`, with the momentum m (= 1 - decay). Early averages
    follow the weights faster: m = momentum + (1 - momentum) * exp(-step / gamma) with `warmup = "exp"` (the
    rule of YOLO and RTMDet), max(momentum, 1 - (1 + step) / (10 + step)) with `warmup = "ramp"`. Batch-norm
    statistics are averaged too.
    """

    module = ""
    momentum: float | None = Field(None, gt=0, lt=1)
    decay: float | None = Field(None, gt=0, lt=1)
    warmup: Literal["exp", "ramp", "none"] = "exp"
    gamma: Quantity = Quantity(2000, "it")

    _check = field_validator("gamma")(_not_negative)
    default_momentum: ClassVar[float] = 2e-4

    @field_validator("decay")
    @classmethod
    def _one_of_two(cls, decay: float | None, info: Any) -> float | None:
        if decay is not None and info.data.get("momentum") is not None:
            raise ValueError("give `momentum` or `decay` (= 1 - momentum), not both")
        return decay

    def rate(self, step: int, clock: Clock) -> float:
        """The momentum of update number `step` (from 0)."""
        m = self.momentum if self.momentum is not None else self.default_momentum
        m = m if self.decay is None else 1 - self.decay
        if self.warmup == "exp":
            return m + (1 - m) * math.exp(-(step + 1) / max(clock.iterations(self.gamma), 1))
        if self.warmup == "ramp":
            return max(m, 1 - (1 + step) / (10 + step))
        return m


class EarlyStop(Hook):
    """Stop when `metric` has not risen by `min_delta` for `patience` validations."""

    module = ""
    patience: int = Field(10, ge=1)
    metric: str = "ap"
    min_delta: float = Field(0.0, ge=0)


class CheckNaN(Hook):
    """Stop at a loss that is not finite. On without being written; `every` sets how often the device is
    asked."""

    module = ""
    every: Quantity = Quantity(50, "it")
    enabled: bool = True

    _check = field_validator("every")(_above_zero)
