"""Arguments of primitives held against their classes where nothing is built: names, number, literals."""

from __future__ import annotations

from detc.compiler.elaboration.build_op import field_names, named_args, validate
from detc.compiler.ops.base import Op
from detc.compiler.primitives import Primitive
from detc.compiler.spec import Follow, Quantity, Size
from detc.compiler.values import BoundArg, Construct, PrimitiveRef, Value
from detc.dsl import ast
from detc.dsl.diagnostics import DetError, Report
from detc.dsl.source import Origin


def check_arguments(call: ast.Call, cls: type[Primitive], report: Report) -> None:
    """Report names that `cls` has not (DET0207), too many arguments (DET0212), and literals that it refuses.

    What is no literal is not known here, and what several arguments must be together is left to the build.
    """
    args = tuple(BoundArg(a.name, _value(a.value), Origin(a.value.span)) for a in call.args)
    if issubclass(cls, Follow) and args and args[0].name is None:
        args = args[1:]  # the node that is followed
    if issubclass(cls, Op) and any(a.value.data is UNKNOWN for a in args):  # some may be wires
        ports = [port.name for port in cls.inputs]
        unclear = any(a.name is None and a.value.data is UNKNOWN for a in args)
        args = tuple(a for a in args if not (unclear if a.name is None else a.name in ports))
    try:
        given = named_args(Construct(PrimitiveRef(cls), args, Origin(call.span)), cls, field_names(cls))
    except DetError as problem:
        report.add(*problem.diagnostics)
        return
    known = {name: arg.value for name, arg in given.items() if arg.value.data is not UNKNOWN}
    if not known:
        return
    try:
        validate(cls, known, Origin(call.span))
    except DetError as problem:
        places = {str(v.origin.span) for v in known.values()}
        report.add(*(d for d in problem.diagnostics if d.primary is not None and str(d.primary) in places))


UNKNOWN = object()  # the data of what has to be worked out


def _value(e: ast.Expr) -> Value:
    origin = Origin(e.span)
    match e:
        case ast.Literal():
            return Value(e.value, origin)
        case ast.QuantityLit():
            return Value(e.value / 100 if e.unit == "%" else Quantity(e.value, e.unit), origin)
        case ast.SizeLit():
            return Value(Size(e.width, e.height), origin)
        case ast.Unary(op="-", operand=ast.Literal(value=int() | float() as number)) if (
            type(number) is not bool
        ):
            return Value(-number, origin)
        case _:
            return Value(UNKNOWN, origin)
