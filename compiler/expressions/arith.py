"""Arithmetic and comparison of compile-time values: numbers, quantities, rates, lists, strings."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from detc.compiler.dims import Dim
from detc.compiler.spec import Quantity, Rate, Size
from detc.compiler.types import CLOCK
from detc.compiler.values import Labels, Span1, Value, a_kind, raw, show
from detc.dsl.diagnostics import DetError, error
from detc.dsl.source import Origin

_NUMERIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
}
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
WHOLE_TOLERANCE = 1e-6


def _is_number(data: Any) -> bool:
    return isinstance(data, (int, float, Fraction)) and not isinstance(data, bool)


def binary(op: str, left: Value, right: Value, origin: Origin) -> Value:
    """`left op right` for compile-time values.

    Raises:
        DetError: DET0301 for types that do not combine, DET0316 for a division by zero and for numbers that are
            too large, DET0701 for units.
    """
    try:
        return bounded(_binary(op, left, right, origin))
    except OverflowError:
        raise error("DET0316", "this number is too large", origin, "beyond what a float can hold") from None
    except ZeroDivisionError:
        raise error("DET0316", f"cannot divide {show(left)} by zero", origin, "division by zero") from None


def _binary(op: str, left: Value, right: Value, origin: Origin) -> Value:
    a, b = left.data, right.data
    if op in ("==", "!="):
        return Value((raw(left) == raw(right)) is (op == "=="), origin)
    if op == "in":
        return Value(_contains(left, right, origin), origin)
    if op == "per":
        return Value(_per(left, right, origin), origin)
    if isinstance(a, Quantity) or isinstance(b, Quantity):
        return Value(_quantity(op, left, right, origin), origin)
    if isinstance(a, Rate) and op in "*/" and _is_number(b):
        return Value(Rate(_NUMERIC[op](a.value, b), a.per), origin)
    if isinstance(b, Rate) and op == "*" and _is_number(a):
        return Value(Rate(a * b.value, b.per), origin)
    if isinstance(a, Size) and op in ("*", "/", "//") and _is_number(b):
        return Value(Size(round(_NUMERIC[op](a.width, b)), round(_NUMERIC[op](a.height, b))), origin)
    numbers = (_is_number(a) or isinstance(a, Dim)) and (_is_number(b) or isinstance(b, Dim))
    if op in _NUMERIC and numbers:
        if op in ("/", "//", "%") and b == 0:
            raise error("DET0316", f"cannot divide {show(left)} by zero", origin, "division by zero")
        if isinstance(a, Dim) and op == "/":
            op = "//"
        return Value(_NUMERIC[op](a, b), origin)
    if op == "+" and isinstance(a, list) and isinstance(b, list):
        return Value([*a, *b], origin)
    if op == "+" and isinstance(a, str) and isinstance(b, str):
        return Value(a + b, origin)
    if op == "*" and isinstance(a, list) and isinstance(b, int) and not isinstance(b, bool):
        if len(a) * b > MOST_ELEMENTS:
            raise error(
                "DET0311", f"a list has at most {MOST_ELEMENTS} elements", origin, f"{len(a) * b} here"
            )
        return Value(a * b, origin)
    if op in _ORDER and ((_is_number(a) and _is_number(b)) or (isinstance(a, str) and isinstance(b, str))):
        return Value(_ORDER[op](a, b), origin)
    raise _mismatch(op, left, right, origin)


MOST_ELEMENTS = 100_000  # of a range or a list: what is more is a slip, and would be expanded for hours
LARGEST = 1 << 62  # whole numbers: no count, size or seed is larger


def bounded(value: Value) -> Value:
    """`value`, if it is a number that a machine can hold.

    Raises:
        DetError: DET0316 for what is infinite or no number, and for whole numbers beyond 2^62.
    """
    data = value.data.value if isinstance(value.data, (Quantity, Rate)) else value.data
    if isinstance(data, float) and not math.isfinite(data):
        raise error("DET0316", "this number is too large", value.origin, "beyond what a float can hold")
    if isinstance(data, (int, Fraction)) and not -LARGEST <= data <= LARGEST:
        raise error("DET0316", "this number is too large", value.origin, "beyond 2^62")
    return value


def listable(value: Value) -> Value:
    """`value`, if it is no range of too many numbers.

    Raises:
        DetError: DET0311.
    """
    span = value.data
    if span.start is not None and span.stop is not None and len(span.items()) > MOST_ELEMENTS:
        message = f"a range has at most {MOST_ELEMENTS} numbers"
        raise error("DET0311", message, value.origin, f"{len(span.items())} here")
    return value


def _mismatch(op: str, left: Value, right: Value, origin: Origin) -> DetError:
    return error(
        "DET0301",
        f"`{op}` does not combine {a_kind(left)} with {a_kind(right)}",
        origin,
        f"{show(left)} {op} {show(right)}",
    )


def _contains(left: Value, right: Value, origin: Origin) -> bool:
    if isinstance(right.data, (list, dict, Labels, Span1)):
        try:
            return raw(left) in raw(right)
        except TypeError:  # what cannot be the name of an entry
            raise _mismatch("in", left, right, origin) from None
    if isinstance(right.data, str) and isinstance(left.data, str):
        return left.data in right.data
    raise _mismatch("in", left, right, origin)


def _per(left: Value, right: Value, origin: Origin) -> Rate:
    if not _is_number(left.data):
        raise error(
            "DET0301", f"`per` wants a number before it, not {a_kind(left)}", left.origin, "given here"
        )
    if not isinstance(right.data, Quantity) or right.data.unit != "img":
        message = f"`per` wants a number of images after it, not {show(right)}"
        raise error("DET0701", message, right.origin, "expected something like 16img")
    return Rate(float(left.data), right.data)


def _quantity(op: str, left: Value, right: Value, origin: Origin) -> Any:
    a, b = left.data, right.data
    if isinstance(a, Quantity) and isinstance(b, Quantity):
        if a.unit != b.unit:
            raise error(
                "DET0701",
                f"cannot combine {a} with {b}",
                origin,
                f"`{op}` between `{a.unit}` and `{b.unit}`",
                secondary=[(left.origin, f"{a} comes from here"), (right.origin, f"{b} comes from here")],
                help="epochs become iterations only where the data set's length is known; write one unit",
            )
        if op in _ORDER:
            return _ORDER[op](a.value, b.value)
        if op in ("+", "-"):
            return Quantity(_NUMERIC[op](a.value, b.value), a.unit)
        if op in ("/", "//"):
            return _NUMERIC[op](a.value, b.value)
    elif isinstance(a, Quantity) and _is_number(b) and op in ("*", "/", "//"):
        if op != "*" and b == 0:
            raise error("DET0316", f"cannot divide {a} by zero", origin, "division by zero")
        return Quantity(_NUMERIC[op](a.value, b), a.unit)
    elif isinstance(b, Quantity) and _is_number(a) and op == "*":
        return Quantity(a * b.value, b.unit)
    if op in ("+", "-") or op in _ORDER:
        raise error(
            "DET0701",
            f"cannot combine {show(left)} with {show(right)}: one has a unit and the other has none",
            origin,
            f"`{op}` between {a_kind(left)} and {a_kind(right)}",
        )
    raise _mismatch(op, left, right, origin)


def whole(value: Value, what: str) -> int:
    """An integer out of a number that has to be whole.

    Raises:
        DetError: DET0308 if it is not whole, DET0301 if it is no number.
    """
    data = value.data
    if isinstance(data, bool) or not isinstance(data, (int, float, Fraction)):
        raise error("DET0301", f"{what} must be an int, not {a_kind(value)}", value.origin, f"{show(value)}")
    nearest = round(data)
    if abs(data - nearest) > WHOLE_TOLERANCE * max(1.0, abs(float(data))):  # type: ignore[operator]
        raise error(
            "DET0308",
            f"{what} must be a whole number, and {show(value)} is not",
            value.origin,
            f"this is {show(value)}",
            help="choose a factor for which it comes out whole, or round it: round(…)",
        )
    return nearest


def in_unit(number: Value, wire: Value, op: str, origin: Origin) -> Value:
    """The number beside a wire; beside a part of the training clock it needs the unit of that, and loses it here."""
    unit = CLOCK.get(getattr(getattr(wire.data, "type", None), "kind", ""))
    data = number.data
    given = data.unit if isinstance(data, Quantity) else None
    if unit is None or (given is None and op in "*/"):
        return number
    if given != unit or op == "*":
        raise error(
            "DET0701",
            f"cannot combine {show(number)} with a time in `{unit}`",
            origin,
            f"`{op}` wants a number of `{unit}` here" if op != "*" else "a time times a time is none",
            secondary=[(number.origin, f"{show(number)} comes from here")],
        )
    return Value(float(data.value), number.origin)
