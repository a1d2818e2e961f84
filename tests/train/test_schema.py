"""Optimisers, schedule pieces and hooks as a spec gives them."""

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from detc.compiler import primitives
from detc.compiler.spec import Quantity, Rate
from detc.runtime.train import schema
from detc.runtime.train.schedule import RatePlan, make_clock
from detc.runtime.train.schema import (
    EMA,
    SGD,
    AdamW,
    Clock,
    Constant,
    Cosine,
    Exponential,
    Linear,
    MultiStep,
    Poly,
    Quadratic,
)

EP, IT = (lambda n: Quantity(n, "ep")), (lambda n: Quantity(n, "it"))
CLOCK = Clock(per_epoch=10, total=120)


def test_the_schema_needs_no_torch():
    code = "import sys, detc.runtime.train.schema; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "name", ["SGD", "Adam", "AdamW", "Linear", "MultiStep", "Cosine", "EMA", "EarlyStop"]
)
def test_everything_is_in_the_prelude(name):
    assert primitives.find("", name) is getattr(schema, name)


def test_mmdet_1x_schedule():
    plan = RatePlan(
        0.02,
        {"warmup": Linear(from_ratio=0.001, over=IT(20)), "steps": MultiStep(at=[EP(8), EP(11)], gamma=0.1)},
        CLOCK,
    )
    assert plan.rate(0) == pytest.approx(0.02 * 0.001)
    assert plan.rate(10) == pytest.approx(0.02 * (0.001 + 0.999 / 2))
    assert plan.rate(20) == plan.rate(79) == pytest.approx(0.02)
    assert plan.rate(80) == plan.rate(109) == pytest.approx(0.002)
    assert plan.rate(110) == pytest.approx(0.0002)


def test_cosine_starts_where_it_should_and_ends_at_its_ratio():
    cosine = Cosine(start=EP(6), end_ratio=0.05)
    assert [cosine.factor(i, CLOCK) for i in (0, 59, 60)] == [1.0, 1.0, 1.0]
    assert cosine.factor(119, CLOCK) == pytest.approx(0.05)
    middle = 60 + 59 / 2
    low, high = cosine.factor(math.floor(middle), CLOCK), cosine.factor(math.ceil(middle), CLOCK)
    assert (low + high) / 2 == pytest.approx((1 + 0.05) / 2)


@given(
    piece=st.sampled_from(
        [
            Linear(from_ratio=0.1, over=EP(2)),
            Quadratic(over=EP(2)),
            Constant(over=IT(7)),
            MultiStep(at=[EP(1), EP(2)]),
            Cosine(start=EP(1), end_ratio=0.1),
            Poly(power=0.9, end=EP(10)),
            Exponential(end_ratio=0.2),
        ]
    ),
    i=st.integers(0, 500),
)
def test_factors_stay_between_zero_and_one(piece, i):
    assert 0.0 <= piece.factor(i, CLOCK) <= 1.0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Linear(over=Quantity(16, "img")), "16img is not a duration"),
        (lambda: MultiStep(at=[EP(11), EP(8)]), "the times must rise"),
        (lambda: SGD(lr=0.1, momentum=1.5), "less than 1"),
        (lambda: EMA(momentum=0.1, decay=0.9), "not both"),
        (lambda: AdamW(lr=0.1, betas=[0.9]), "at least 2 items"),
    ],
)
def test_wrong_values_are_refused_with_words(make, words):
    with pytest.raises(ValidationError) as caught:
        make()
    assert words in str(caught.value)


def test_linear_scaling_only_with_per():
    assert SGD(lr=Rate(0.02, Quantity(16, "img"))).lr.at(8) == pytest.approx(0.01)
    assert SGD(lr=0.02).lr == 0.02


def test_ema_follows_fast_at_first():
    ema = EMA(momentum=2e-4, gamma=IT(2000))
    assert ema.rate(0, CLOCK) > 0.99
    assert ema.rate(2000, CLOCK) == pytest.approx(2e-4 + (1 - 2e-4) * math.exp(-2001 / 2000))
    assert ema.rate(10**6, CLOCK) == pytest.approx(2e-4)
    assert EMA(decay=0.999, warmup="none").rate(0, CLOCK) == pytest.approx(1e-3)
    assert EMA(decay=0.999, warmup="ramp").rate(0, CLOCK) == pytest.approx(0.9)


def test_clock_converts_durations():
    assert make_clock(EP(12), 7).total == 84
    assert make_clock(IT(20), 7).total == 20
    assert CLOCK.iterations(EP(0.5)) == 5
    with pytest.raises(ValueError, match="not a duration"):
        CLOCK.iterations(Quantity(3, "img"))
