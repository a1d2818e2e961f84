"""Exact dims: algebra agrees with integers."""

from hypothesis import given
from hypothesis import strategies as st

from detc.compiler.dims import Dim, conv_size, dim

NAMES = ("h", "w")


@st.composite
def dims(draw: st.DrawFn) -> Dim:
    total = dim(draw(st.integers(-50, 50)))
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=4)):
        total = total + dim(name) * draw(st.integers(-8, 8))
    return total // draw(st.integers(1, 6)) if draw(st.booleans()) else total


VALUES = st.fixed_dictionaries({n: st.integers(1, 400) for n in NAMES})


@given(dims(), dims(), VALUES)
def test_arithmetic_is_that_of_numbers(a: Dim, b: Dim, at: dict[str, int]) -> None:
    x, y = a.evaluate(at), b.evaluate(at)
    assert (a + b).evaluate(at) == x + y
    assert (a - b).evaluate(at) == x - y
    assert (a * b).evaluate(at) == x * y


@given(dims(), st.integers(1, 40), VALUES)
def test_division_is_floor_division(a: Dim, k: int, at: dict[str, int]) -> None:
    assert (a // k).evaluate(at) == a.evaluate(at) // k


@given(st.integers(1, 20), st.integers(1, 7), st.integers(1, 4), st.integers(0, 3))
def test_conv_size_is_torchs(h: int, kernel: int, stride: int, padding: int) -> None:
    size = conv_size(dim("h") * 32, kernel, stride, padding)
    assert size.evaluate({"h": h}) == (32 * h + 2 * padding - kernel) // stride + 1


def test_aligned_sizes_stay_exact() -> None:
    size = dim("h") * 32
    for expected in (16, 8, 4, 2, 1):
        size = conv_size(size, 3, 2, 1)
        assert str(size) == (f"{expected}*h" if expected > 1 else "h")


def test_sizes_that_cannot_be_equal() -> None:
    h, w = dim("h"), dim("w")
    assert (h * w * 5).differs(h * w * 4)
    assert (h + 900).differs(900)
    assert dim(3).differs(4)
    assert not h.differs(w)
    assert not (h + 1).differs(2)
    assert not h.differs(h)
