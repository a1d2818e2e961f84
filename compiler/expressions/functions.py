"""Compile-time functions: `len`, `min`, `floor`, …, and the constructors of inputs for `test` blocks."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from detc.compiler import types as T
from detc.compiler.dims import Dim, dim
from detc.compiler.expressions import arith
from detc.compiler.primitives import find
from detc.compiler.values import (
    BoundArg,
    Labels,
    PrimitiveRef,
    Span1,
    Value,
    elements,
    is_wire,
    kind_of,
    raw,
    show,
)
from detc.dsl.diagnostics import did_you_mean, error
from detc.dsl.source import Origin

if TYPE_CHECKING:
    from detc.compiler.expressions.evaluate import Scope

TWO = dim(2)
WIRE_FUNCTIONS = {"mean": "mean", "sum": "sum", "min": "minimum", "max": "maximum"}
TEST_INPUTS = ("map", "pyramid", "image", "tensor", "instances", "proposals")


def on_wires(name: str) -> PrimitiveRef | None:
    """The op that a function stands for when it is given wires, or None."""
    cls = find("", WIRE_FUNCTIONS.get(name, name)) or find("std.ops", WIRE_FUNCTIONS.get(name, name))
    return PrimitiveRef(cls) if cls is not None else None


def call(name: str, args: tuple[BoundArg, ...], origin: Origin, scope: Scope) -> Value:
    """The result of a built-in function.

    Raises:
        DetError: DET0301 or DET0309 for arguments that do not fit.
    """
    if name in TEST_INPUTS or name == "params":
        made = scope.member(
            Value({a.name or str(i): a.value for i, a in enumerate(args)}, origin), f"{name}()", origin.span
        )
        if made is None:
            raise error(
                "DET0312", f"`{name}(…)` can only be used in a test or a component", origin, "used here"
            )
        return made
    if any(a.name for a in args):
        raise error("DET0207", f"`{name}` takes no named arguments", args[-1].origin, "named here")
    values = [a.value for a in args]
    fn, low, high = _FUNCTIONS[name]
    if not low <= len(values) <= high:
        wanted = f"{low}" if low == high else f"{low} or more" if high > 9 else f"{low} to {high}"
        raise error("DET0309", f"`{name}` takes {wanted} arguments, not {len(values)}", origin, "called here")
    if name != "len" and any(is_wire(v.data) for v in values):
        raise error("DET0313", f"`{name}` works on compile-time values", origin, "this is a wire")
    try:
        return arith.bounded(Value(fn(values), origin))
    except (TypeError, ValueError, OverflowError) as problem:
        given = ", ".join(f"{show(v)} ({kind_of(v)})" for v in values)
        raise error("DET0301", f"`{name}` does not take {given}", origin, str(problem)) from None


def _len(values: list[Value]) -> int:
    data = values[0].data
    if isinstance(data, (dict, str, Labels)):
        return len(data)
    if isinstance(data, Span1) and data.start is not None and data.stop is not None:
        return len(data.items())
    items = elements(values[0])
    if items is None:
        raise TypeError("only lists, pyramids, labels, records and strings have a length")
    return len(items)


def _flat(values: list[Value]) -> list[Any]:
    found = raw(values[0]) if len(values) == 1 else [raw(v) for v in values]
    if not isinstance(found, list):
        raise TypeError("a list or several numbers are wanted")
    if any(isinstance(x, (list, dict)) for x in found):
        raise TypeError("single values are wanted, not lists of lists")
    return found


def _range(values: list[Value]) -> Span1:
    numbers = [raw(v) for v in values]
    if not all(isinstance(n, int) and not isinstance(n, bool) for n in numbers):
        raise TypeError("whole numbers are wanted")
    found = Span1(0, numbers[0]) if len(numbers) == 1 else Span1(*numbers)
    if found.step == 0 or len(found.items()) > arith.MOST_ELEMENTS:
        raise ValueError(f"the step is not 0, and there are at most {arith.MOST_ELEMENTS} numbers")
    return found


def _mean(values: list[Value]) -> Any:
    numbers = _flat(values)
    if not numbers:
        raise ValueError("an empty list has no mean")
    return sum(numbers) / len(numbers)


def _one(fn: Callable[[Any], Any]) -> Callable[[list[Value]], Any]:
    return lambda values: fn(raw(values[0]))


def _round(values: list[Value]) -> Any:
    digits = raw(values[1]) if len(values) > 1 else 0
    number = raw(values[0])
    return math.floor(number + 0.5) if digits == 0 else round(number, digits)


def _text(values: list[Value]) -> str:
    data = values[0].data
    return data if isinstance(data, str) else show(values[0])


def _zip(values: list[Value]) -> list[Value]:
    lists = [elements(v) for v in values]
    if any(x is None for x in lists):
        raise TypeError("lists are wanted")
    return [Value(list(row), row[0].origin) for row in zip(*lists, strict=True)]  # type: ignore[arg-type]


_FUNCTIONS: dict[str, tuple[Callable[[list[Value]], Any], int, int]] = {
    "len": (_len, 1, 1),
    "range": (_range, 1, 3),
    "min": (lambda v: min(_flat(v)), 1, 99),
    "max": (lambda v: max(_flat(v)), 1, 99),
    "sum": (lambda v: sum(_flat(v)), 1, 99),
    "mean": (_mean, 1, 99),
    "abs": (_one(abs), 1, 1),
    "floor": (_one(math.floor), 1, 1),
    "ceil": (_one(math.ceil), 1, 1),
    "round": (_round, 1, 2),
    "sqrt": (_one(math.sqrt), 1, 1),
    "log": (_one(math.log), 1, 1),
    "int": (_one(int), 1, 1),
    "float": (_one(float), 1, 1),
    "str": (_text, 1, 1),
    "zip": (_zip, 2, 9),
    "all": (lambda v: all(_flat(v)), 1, 99),
    "any": (lambda v: any(_flat(v)), 1, 99),
}


_TEST_ARGS: dict[str, tuple[str, ...]] = {
    "map": ("channels", "stride"),
    "pyramid": ("channels", "strides"),
    "image": ("height", "width"),
    "instances": ("masks",),
    "proposals": ("count",),
}


def test_input(name: str, args: dict[str, Any], origin: Origin) -> T.Type:
    """The type that `map(64, stride = 8)`, `pyramid(channels = …, strides = …)`, `image()` … stand for.

    Raises:
        DetError: DET0207, DET0208, DET0301 or DET0311 for arguments that do not make one.
    """
    h, w = dim("h"), dim("w")
    if name == "tensor":
        shape = args.get("shape", [args[k] for k in sorted(args) if k.isdigit()])
        _positive_ints([d for d in shape if not isinstance(d, str)] or [1], name, origin)
        return T.tensor(*shape)
    known = _TEST_ARGS[name]
    given = {known[int(k)] if k.isdigit() and int(k) < len(known) else k: v for k, v in args.items()}
    for key in given:
        if key not in known:
            message = (
                f"`{name}` has no argument `{key}`"
                if not key.isdigit()
                else f"`{name}` takes {len(known)} arguments"
            )
            raise error("DET0207", message, origin, "it takes " + ", ".join(known) + did_you_mean(key, known))

    def wanted(key: str) -> Any:
        if key not in given:
            raise error("DET0208", f"`{name}` needs the argument `{key}`", origin, f"`{key}` is missing here")
        return given[key]

    def sized(channels: Any, stride: Any) -> T.Map:
        step = Fraction(stride)
        base = 1024
        scale = int(base / step)
        return T.Map(channels, step, Dim(0, h.terms) * scale, Dim(0, w.terms) * scale, origin)

    if name == "map":
        channels, stride = wanted("channels"), given.get("stride", 1)
        _positive_ints([channels, stride], name, origin)
        return sized(channels, stride)
    if name == "pyramid":
        lists = [wanted("channels"), wanted("strides")]
        for numbers in lists:
            _positive_ints(numbers, name, origin)
        if len(lists[0]) != len(lists[1]) or not lists[0]:
            message = f"a pyramid has a stride for each level: {len(lists[0])} channel counts, {len(lists[1])} strides"
            raise error("DET0311", message, origin, "made here")
        return T.Pyramid(tuple(sized(c, s) for c, s in zip(*lists, strict=True)))
    if name == "image":
        return T.Image(h * 1024, w * 1024)
    if name == "instances":
        return T.instances(bool(given.get("masks", False)))
    _positive_ints([given.get("count", 1000)], name, origin)
    return T.proposals(given.get("count", 1000))


def _positive_ints(numbers: Any, name: str, origin: Origin) -> None:
    good = isinstance(numbers, list) and all(
        isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in numbers
    )
    if not good:
        raise error(
            "DET0301", f"`{name}` wants whole numbers above 0, not {show(numbers)}", origin, "made here"
        )
