"""Evaluating expressions. Values are pure; wires go through the scope's `apply`."""

from __future__ import annotations

from typing import Any, Protocol

from detc.compiler.expressions import arith, functions
from detc.compiler.expressions.attributes import attribute
from detc.compiler.expressions.modules import Module, Named
from detc.compiler.spec import Quantity, Size
from detc.compiler.values import (
    POISON,
    BoundArg,
    Builtin,
    Construct,
    Labels,
    Poisoned,
    PrimitiveRef,
    Span1,
    TemplateRef,
    Value,
    WireArray,
    a_kind,
    derived,
    elements,
    is_wire,
    kind_of,
    raw,
    show,
)
from detc.dsl import ast
from detc.dsl.diagnostics import DetError, error
from detc.dsl.source import Origin, Span

Inputs = list[tuple[str | None, Value]]
USING = "using"  # the name under which `x -> node using k` hands on k
ARITHMETIC = {"+": "Add", "-": "Sub", "*": "Mul", "/": "Div"}


class Scope(Protocol):
    """Where an expression stands."""

    module: Module
    via: tuple[Span, ...]

    def find(self, name: str, span: Span) -> Value | None:
        """The value of a local name, or None if the scope has none."""

    def missing(self, name: str, span: Span) -> DetError:
        """The error for a name that is nowhere."""

    def apply(self, callee: Value, inputs: Inputs, span: Span) -> Value:
        """`inputs -> callee`."""

    def member(self, value: Value, name: str, span: Span) -> Value | None:
        """An attribute of something that only this kind of scope knows (nodes, data), or None."""


def origin_of(expr: ast.Ast, scope: Scope) -> Origin:
    """The origin of something written in this scope."""
    return Origin(expr.span, scope.via)


def evaluate(expr: ast.Expr, scope: Scope) -> Value:
    """The value of `expr` in `scope`.

    Raises:
        DetError: with what is wrong.
        Poisoned: if it depends on something that has been reported.
    """
    value = _EVALUATORS[type(expr)](expr, scope)
    if value.data is POISON:
        raise Poisoned
    return value


def _literal(e: ast.Literal, s: Scope) -> Value:
    return arith.bounded(Value(e.value, origin_of(e, s)))


def _quantity(e: ast.QuantityLit, s: Scope) -> Value:
    data = e.value / 100 if e.unit == "%" else Quantity(e.value, e.unit)
    return arith.bounded(Value(data, origin_of(e, s)))


def _size(e: ast.SizeLit, s: Scope) -> Value:
    return Value(Size(e.width, e.height), origin_of(e, s))


def named(found: Named, origin: Origin) -> Value:
    """A module-level name as a value."""
    return Value(found, origin)


def _ref(e: ast.Ref, s: Scope) -> Value:
    found = s.find(e.name, e.span)
    if found is not None:
        return found
    outside = s.module.lookup(e.name)
    if outside is None and e.name in s.module.broken:
        raise Poisoned
    if outside is None:
        raise s.missing(e.name, e.span)
    return named(outside, origin_of(e, s))


def _attr(e: ast.Attr, s: Scope) -> Value:
    return attribute(evaluate(e.value, s), e.name, e.span, s)


def _index(e: ast.Index, s: Scope) -> Value:
    value = evaluate(e.value, s)
    keys = [evaluate(i, s) for i in e.items]
    origin = derived(origin_of(e, s), *keys)
    array_item = getattr(value.data, "item", None)
    if array_item is not None:
        return array_item(tuple(arith.whole(k, "an index") for k in keys), origin)
    if isinstance(value.data, WireArray) and not isinstance(keys[0].data, Span1):
        numbers = tuple(arith.whole(k, "an index") for k in keys)
        return _array_item(value.data, numbers, origin)
    for key in keys:
        value = _item(value, key, origin)
    return value


def _array_item(array: WireArray, numbers: tuple[int, ...], origin: Origin) -> Value:
    if numbers in array.items:
        return array.items[numbers]
    row = array.row(numbers)
    if row.items:
        return Value(row, origin)
    if array.broken:
        raise Poisoned
    known = ", ".join(f"[{', '.join(map(str, k))}]" for k in sorted(array.items)[:8])
    where = f"{array.name}[{', '.join(map(str, numbers))}]"
    raise error("DET0306", f"`{where}` is not defined", origin, f"defined up to here: {known or 'none'}")


def _item(value: Value, key: Value, origin: Origin) -> Value:
    items = elements(value)
    if items is not None:
        if isinstance(key.data, Span1):
            picked = key.data.indices(len(items))
            bad = [i for i in picked if not -len(items) <= i < len(items)]
            if bad:
                raise _out_of_range(bad[0], len(items), origin, key, value)
            return Value([items[i] for i in picked], origin)
        index = arith.whole(key, "an index")
        if not -len(items) <= index < len(items):
            raise _out_of_range(index, len(items), origin, key, value)
        return items[index]
    if isinstance(value.data, dict) and isinstance(key.data, str):
        if key.data in value.data:
            return value.data[key.data]
        raise error("DET0211", f"there is no field {show(key)}", origin, "has: " + ", ".join(value.data))
    raise error("DET0301", f"{a_kind(value)} cannot be indexed", origin, "indexed here")


def _out_of_range(index: int, length: int, origin: Origin, key: Value, value: Value) -> DetError:
    return error(
        "DET0306",
        f"index {index} is out of range: there are {length} elements",
        origin,
        f"{index} is not in 0 .. {length}",
        secondary=[(key.origin, "the index comes from here"), (value.origin, "the list comes from here")],
    )


def call_args(args: tuple[ast.Arg, ...], s: Scope) -> tuple[BoundArg, ...]:
    """Arguments evaluated in the caller's scope."""
    return tuple(BoundArg(a.name, evaluate(a.value, s), origin_of(a.value, s)) for a in args)


def _call(e: ast.Call, s: Scope) -> Value:
    callee = evaluate(e.func, s)
    origin = origin_of(e, s)
    data = callee.data
    args = call_args(e.args, s)
    if isinstance(data, Builtin):
        if data.name != "len" and any(is_wire(a.value.data) for a in args):
            ref = functions.on_wires(data.name)
            if ref is not None:
                return _apply_with_params(ref, args, e.span, origin, s)
        if all(a.name for a in args) and (ref := functions.on_wires(data.name)) is not None:
            return Value(Construct(ref, args, origin), origin)
        return functions.call(data.name, args, derived(origin, *(a.value for a in args)), s)
    if isinstance(data, PrimitiveRef):
        if any(is_wire(a.value.data) for a in args):
            return _apply_with_params(data, args, e.span, origin, s)
        return Value(Construct(data, args, origin), origin)
    if isinstance(data, TemplateRef):
        return Value(Construct(data, args, origin), origin)
    made = s.member(callee, "()", e.span)
    if made is not None:
        return made
    raise error("DET0301", f"{a_kind(callee)} cannot be called", origin, "called here")


def std_op(name: str) -> PrimitiveRef:
    """The op behind an operator or a function of wires."""
    from detc.compiler import primitives

    cls = primitives.find("", name) or primitives.find("std.ops", name)
    assert cls is not None, f"primitive {name} is missing"
    return PrimitiveRef(cls)


def _apply_with_params(
    ref: PrimitiveRef, args: tuple[BoundArg, ...], span: Span, origin: Origin, s: Scope
) -> Value:
    wires: Inputs = [(a.name, a.value) for a in args if is_wire(a.value.data)]
    params = tuple(a for a in args if not is_wire(a.value.data))
    return s.apply(Value(Construct(ref, params, origin), origin), wires, span)


def _tuple(e: ast.TupleExpr, s: Scope) -> Value:
    return Value([evaluate(a.value, s) for a in e.items], origin_of(e, s))


def _list(e: ast.ListExpr, s: Scope) -> Value:
    return Value([evaluate(i, s) for i in e.items], origin_of(e, s))


class Local:
    """A scope with one more name: the variable of a comprehension."""

    def __init__(self, outer: Scope, name: str, value: Value) -> None:
        self.outer, self.name, self.value = outer, name, value
        self.module, self.via = outer.module, outer.via

    def find(self, name: str, span: Span) -> Value | None:
        """The variable, else what the outer scope has."""
        return self.value if name == self.name else self.outer.find(name, span)

    def missing(self, name: str, span: Span) -> DetError:
        """As outside."""
        return self.outer.missing(name, span)

    def apply(self, callee: Value, inputs: Inputs, span: Span) -> Value:
        """As outside."""
        return self.outer.apply(callee, inputs, span)

    def member(self, value: Value, name: str, span: Span) -> Value | None:
        """As outside."""
        return self.outer.member(value, name, span)


def _comprehension(e: ast.Comprehension, s: Scope) -> Value:
    result = []
    for item in iterate(evaluate(e.iterable, s), origin_of(e.iterable, s)):
        inner = Local(s, e.name, item)
        if e.condition is None or truth(evaluate(e.condition, inner), origin_of(e.condition, s)):
            result.append(evaluate(e.body, inner))
    return Value(result, origin_of(e, s))


def iterate(value: Value, origin: Origin) -> list[Value]:
    """The elements to loop over.

    Raises:
        DetError: DET0301 if it is no list or range.
    """
    items = elements(value)
    if items is None:
        raise error(
            "DET0301", f"cannot loop over {a_kind(value)}", origin, "a list or a range is wanted here"
        )
    return items


def truth(value: Value, place: Origin | None = None) -> bool:
    """A compile-time condition, written at `place`.

    Raises:
        DetError: DET0313 for a wire, DET0301 for anything that is no bool.
    """
    if is_wire(value.data):
        raise error(
            "DET0313",
            "a condition must be known at compile time",
            place or value.origin,
            f"this is {a_kind(value)}, known only at run time",
            secondary=[(value.origin, f"the {kind_of(value)} comes from here")] if place else [],
        )
    if not isinstance(value.data, bool):
        raise error("DET0301", f"a condition must be a bool, not {a_kind(value)}", value.origin, show(value))
    return value.data


def _record(e: ast.RecordExpr, s: Scope) -> Value:
    return Value({a.name or "": evaluate(a.value, s) for a in e.fields}, origin_of(e, s))


def _unary(e: ast.Unary, s: Scope) -> Value:
    value = evaluate(e.operand, s)
    origin = derived(origin_of(e, s), value)
    if e.op == "not":
        return Value(not truth(value, origin_of(e.operand, s)), origin)
    if is_wire(value.data):
        return _apply_with_params(std_op("Neg"), (BoundArg(None, value, origin),), e.span, origin, s)
    if isinstance(value.data, Quantity):
        return Value(Quantity(-value.data.value, value.data.unit), origin)
    if isinstance(value.data, bool) or not isinstance(value.data, (int, float)):
        raise error("DET0301", f"`-` wants a number, not {a_kind(value)}", origin, "negated here")
    return Value(-value.data, origin)


def _binary(e: ast.Binary, s: Scope) -> Value:
    origin = origin_of(e, s)
    if e.op in ("and", "or"):
        left = evaluate(e.left, s)
        if truth(left, origin_of(e.left, s)) is (e.op == "or"):
            return Value(left.data, derived(origin, left))
        right = evaluate(e.right, s)
        return Value(truth(right, origin_of(e.right, s)), derived(origin, right, left))
    left, right = evaluate(e.left, s), evaluate(e.right, s)
    if not is_wire(left.data) and not is_wire(right.data):
        return arith.binary(e.op, left, right, derived(origin, left, right))
    if e.op not in ARITHMETIC:
        raise error(
            "DET0313",
            f"`{e.op}` needs compile-time values",
            origin,
            "one side is a tensor, known only at run time",
        )
    ref = std_op(ARITHMETIC[e.op])
    wires = tuple(BoundArg(None, v, v.origin) for v in (left, right) if is_wire(v.data))
    if len(wires) == 2:
        return _apply_with_params(ref, wires, e.span, origin, s)
    number = right if is_wire(left.data) else left
    number = arith.in_unit(number, right if number is left else left, e.op, origin)
    data = number.data
    if isinstance(data, bool) or not isinstance(raw(number), (int, float)):
        raise error("DET0301", f"cannot combine a wire with {a_kind(number)}", origin, show(number))
    params = [BoundArg("scalar", Value(float(raw(number)), number.origin), number.origin)]
    if wires[0].value is right and e.op in "-/":
        params.append(BoundArg("reverse", Value(True, origin), origin))
    return _apply_with_params(ref, (*wires, *params), e.span, origin, s)


def _conditional(e: ast.Conditional, s: Scope) -> Value:
    return evaluate(e.then if truth(evaluate(e.condition, s), origin_of(e.condition, s)) else e.otherwise, s)


def _range(e: ast.RangeExpr, s: Scope) -> Value:
    given = {"start": e.start, "end": e.stop, "step": e.step}
    values = {what: evaluate(part, s) for what, part in given.items() if part is not None}
    whole = {what: arith.whole(v, f"the {what} of a range") for what, v in values.items()}
    origin = derived(origin_of(e, s), *values.values())
    if whole.get("step") == 0:
        raise error("DET0311", "the step of a range must not be 0", origin, "step 0")
    return arith.listable(Value(Span1(whole.get("start"), whole.get("end"), whole.get("step", 1)), origin))


def _chain(e: ast.Chain, s: Scope) -> Value:
    inputs: Inputs
    if isinstance(e.head, ast.TupleExpr):
        inputs = [(a.name, evaluate(a.value, s)) for a in e.head.items]
    else:
        inputs = [(None, evaluate(e.head, s))]
    value: Value | None = None
    for hop in e.hops:
        target = hop.node if isinstance(hop, ast.Using) else hop
        callee = evaluate(target, s)
        if isinstance(hop, ast.Using):
            inputs = [*inputs, (USING, evaluate(hop.weights, s))]
        value = s.apply(callee, inputs, hop.span)
        inputs = [(None, value)]
    assert value is not None
    return value


def _using(e: ast.Using, s: Scope) -> Value:
    raise error(
        "DET0312", "`using` belongs behind an arrow: x -> node using weights", e.span, "not after `->`"
    )


_EVALUATORS: dict[type, Any] = {
    ast.Literal: _literal,
    ast.QuantityLit: _quantity,
    ast.SizeLit: _size,
    ast.Ref: _ref,
    ast.Attr: _attr,
    ast.Index: _index,
    ast.Call: _call,
    ast.TupleExpr: _tuple,
    ast.ListExpr: _list,
    ast.Comprehension: _comprehension,
    ast.RecordExpr: _record,
    ast.Unary: _unary,
    ast.Binary: _binary,
    ast.Conditional: _conditional,
    ast.RangeExpr: _range,
    ast.Chain: _chain,
    ast.Using: _using,
}
__all__ = ["Inputs", "Labels", "Local", "Scope", "attribute", "evaluate", "iterate", "truth"]
