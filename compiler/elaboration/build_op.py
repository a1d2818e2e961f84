"""From a constructor in a spec to a validated primitive: arguments, edits, pydantic, blame."""

from __future__ import annotations

import re
import types as pytypes
import typing
from typing import TYPE_CHECKING, Any, Union

from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from detc.compiler.elaboration.edits import Edits, new_value, settle
from detc.compiler.expressions.typecheck import check_size, suggest_argument
from detc.compiler.primitives import Primitive
from detc.compiler.spec import Quantity, Rate, Size
from detc.compiler.values import (
    BoundArg,
    Construct,
    Labels,
    PrimitiveRef,
    Value,
    a_kind,
    is_wire,
    kind_of,
    raw,
    show,
)
from detc.dsl import ast
from detc.dsl.diagnostics import DetError, Diagnostic, Edit, closest, did_you_mean, error
from detc.dsl.source import Origin, Span

if TYPE_CHECKING:
    from detc.compiler.elaboration.elaborate import Elaborator

_CODES = {
    "missing": "DET0208",
    "literal_error": "DET0311",
    "greater_than": "DET0311",
    "greater_than_equal": "DET0311",
    "less_than": "DET0311",
    "less_than_equal": "DET0311",
    "value_error": "DET0311",
    "too_short": "DET0311",
    "too_long": "DET0311",
    "int_from_float": "DET0308",
}


def field_names(cls: type[Primitive]) -> dict[str, str]:
    """Argument name -> field name, in order; a field with an alias is written by its alias.

    Fields that are given by name only come last.
    """
    order = sorted(cls.model_fields.items(), key=lambda item: bool(item[1].kw_only))
    return {(f.alias or n): n for n, f in order}


def build_primitive(construct: Construct, ctx: Elaborator, path: str, edits: Edits) -> Primitive:
    """The primitive that a constructor describes, after the edits of its fields.

    Raises:
        DetError: one diagnostic for each argument that is wrong.
    """
    assert isinstance(construct.target, PrimitiveRef)
    cls = construct.target.cls
    names = field_names(cls)
    given = named_args(construct, cls, names)
    values: dict[str, Value] = {name: arg.value for name, arg in given.items()}
    for name in names:
        ctx.know(f"{path}.{name}" if path else name)
        edit = settle(edits.of_field(name), f"{path}.{name}", ctx.report)
        if edit is None:
            continue
        if not isinstance(edit.stmt, ast.SetStmt):
            raise error(
                "DET0406",
                f"`{name}` is a param of {cls.name}: only `set` changes it",
                edit.origin,
                "write `set`",
            )
        new = new_value(edit)
        values[name] = Value(new.data, new.origin, values.get(name))
    for name, value in values.items():
        if is_wire(value.data):
            raise error(
                "DET0313",
                f"`{name}` of {cls.name} must be known at compile time",
                value.origin,
                f"this is {a_kind(value)}, known only at run time",
            )
        ctx.decide(f"{path}.{name}", value)
    values = {name: nested(v, ctx, f"{path}.{name}") for name, v in values.items()}
    made = validate(cls, values, construct.origin)
    for name, field in names.items():
        if name not in values:
            ctx.decide_default(f"{path}.{name}", getattr(made, field), construct.origin)
    ctx.remember(made, {names[n]: v.origin for n, v in values.items()})
    return made


def nested(value: Value, ctx: Elaborator, path: str) -> Value:
    """`value` with the primitives that it holds built (a step inside a step, a metric in a record)."""
    data = value.data
    if isinstance(data, PrimitiveRef):
        data = Construct(data, (), value.origin)
    if isinstance(data, Construct) and isinstance(data.target, PrimitiveRef):
        return Value(build_primitive(data, ctx, path, Edits()), value.origin)
    if isinstance(data, list):
        return Value([nested(v, ctx, path) for v in data], value.origin, value.was)
    if isinstance(data, dict):
        return Value({k: nested(v, ctx, f"{path}.{k}") for k, v in data.items()}, value.origin, value.was)
    return value


def named_args(construct: Construct, cls: type[Primitive], names: dict[str, str]) -> dict[str, BoundArg]:
    given: dict[str, BoundArg] = {}
    order = iter(n for n in names if not cls.model_fields[names[n]].kw_only)
    problems: list[Diagnostic] = []
    for arg in construct.args:
        name = arg.name
        if name is None:
            name = next((n for n in order if n not in given), None)
            if name is None:
                message = f"{cls.name} takes {len(names)} arguments, and {len(construct.args)} are given"
                problems += error("DET0212", message, arg.origin, "one too many").diagnostics
                break
        elif name not in names:
            near = closest(name, names)
            span = arg.origin.span
            before = span.source.text[: span.start].rstrip().removesuffix("=").rstrip()
            fix = None
            if near and before.endswith(name):
                fix = Edit(Span(span.source, len(before) - len(name), len(before)), near)
            problems += error(
                "DET0207",
                f"{cls.name} has no argument `{name}`",
                arg.origin,
                suggest_argument(name, list(names)),
                fix=fix,
            ).diagnostics
            continue
        if name in given:
            message = f"`{name}` is given twice"
            problems += error(
                "DET0207",
                message,
                arg.origin,
                "given again",
                secondary=[(given[name].origin, "first given here")],
            ).diagnostics
            continue
        given[name] = arg
    if problems:
        raise DetError(*problems)
    return given


def validate(
    cls: type[Primitive], values: dict[str, Value], place: Origin, owner: str | None = None
) -> Primitive:
    """Run pydantic and turn its findings into diagnostics on the arguments' places.

    owner: whose arguments they are, in messages.

    Raises:
        DetError: with one diagnostic a wrong field.
    """
    names = field_names(cls)
    data: dict[str, Any] = {}
    fractions: list[Diagnostic] = []
    for name, value in values.items():
        plain = raw(value)
        annotation = cls.model_fields[names[name]].annotation
        if isinstance(plain, Size) or (isinstance(plain, int) and _wants_size(annotation)):
            check_size(value, f"`{name}` of {owner or cls.name}")
        data[name] = _shape(plain, annotation)
        if isinstance(plain, float) and _wants_int(annotation):
            if abs(plain - round(plain)) > 1e-6 * max(1.0, abs(plain)):
                fractions += error(
                    "DET0308",
                    f"`{name}` of {owner or cls.name} must be a whole number, and {show(value)} is not",
                    value.origin,
                    f"this is {show(value)}",
                    help="choose a factor for which it comes out whole, or round it: round(…)",
                ).diagnostics
            data[name] = round(plain)
    try:
        made = cls.model_validate(data)
    except ValidationError as problem:
        listed = _without_echoes(problem.errors(include_url=False))
        found = [_finding(e, cls, values, place, owner or cls.name) for e in listed]
        raise DetError(*{(d.code, d.message): d for d in [*fractions, *found]}.values()) from None
    if fractions:
        raise DetError(*fractions)
    return made


def _without_echoes(found: list[Any]) -> list[Any]:
    """Pydantic's findings without the entries that lack only because of a typo in their name."""
    typos = [e["loc"] for e in found if e["type"] == "extra_forbidden"]

    def echo(e: Any) -> bool:
        if e["type"] != "missing":
            return False
        *parent, name = e["loc"]
        return any(list(t[:-1]) == parent and closest(str(t[-1]), [str(name)]) for t in typos)

    return [e for e in found if not echo(e)]


def _finding(e: Any, cls: type[Primitive], values: dict[str, Value], place: Origin, owner: str) -> Diagnostic:
    path = list(e["loc"])
    name = str(path.pop(0)) if path else ""
    code = _CODES.get(e["type"], "DET0301")
    value = values.get(name)
    if value is None and e["type"] == "missing":
        message, label = f"{owner} needs the argument `{name}`", f"`{name}` is missing here"
        return error("DET0208", message, place, label).diagnostics[0]
    if value is None:  # what a class says of several of its fields
        words = str(e.get("ctx", {}).get("error", e["msg"]))
        return error(code, f"{owner}: {words}", place, "built here").diagnostics[0]
    annotation = cls.model_fields[field_names(cls)[name]].annotation
    what = f"`{name}` of {owner}"
    for step in path:  # down to the entry that is wrong
        fields = _fields_of(annotation)
        if isinstance(value.data, dict) and e["type"] == "missing" and step not in value.data:
            message, label = f"{what} needs the field `{step}`", f"`{step}` is missing here"
            return error("DET0208", message, value.origin, label).diagnostics[0]
        inner = _entry(value, step)
        if inner is None:
            continue
        if e["type"] == "extra_forbidden" and step not in fields:
            label = "unknown field" + did_you_mean(str(step), fields)
            return error("DET0704", f"{what} has no field `{step}`", inner.origin, label).diagnostics[0]
        what = f"`{step}` in {what}" if isinstance(step, str) else f"an element of {what}"
        annotation, value = fields.get(str(step), _element(annotation)), inner
    expected = e.get("ctx", {}).get("expected")
    limits = {"greater_than": ">", "greater_than_equal": ">=", "less_than": "<", "less_than_equal": "<="}
    near = ""
    if e["type"] == "literal_error":
        options = str(expected).replace("'", '"')
        message = f"{what} must be {options}, not {show(value)}"
        near = did_you_mean(str(value.data), re.findall(r'"([^"]*)"', options))
    elif e["type"] in limits:
        bound = next(iter(e["ctx"].values()))
        message = f"{what} must be {limits[e['type']]} {bound}, and is {show(value)}"
    elif e["type"] == "value_error":
        message = f"{what}: {e['ctx'].get('error', e['msg'])!s}"
    elif e["type"] in ("too_short", "too_long"):
        message = f"{what}: {e['msg'][0].lower()}{e['msg'][1:]}"
    else:
        message = f"{what} must be {_annotation_text(annotation)}, not {show(value)} ({kind_of(value)})"
    return error(code, message, value.origin, show(value) + near).diagnostics[0]


def _entry(value: Value, step: Any) -> Value | None:
    """The entry of a record or list that one step of pydantic's path names; its names of types name none."""
    data = value.data
    if isinstance(data, list) and isinstance(step, int) and step < len(data):
        data = dict(enumerate(data))
    found = data.get(step) if isinstance(data, dict) else None
    return found if isinstance(found, Value) else None


def _fields_of(annotation: Any) -> dict[str, Any]:
    """The fields of a record that is written out as a class, with their annotations."""
    for option in (annotation, *typing.get_args(annotation)):
        fields = getattr(option, "model_fields", None)
        if fields:
            return {n: f.annotation for n, f in fields.items()}
    return {}


def _element(annotation: Any) -> Any:
    """What a list or a record of this annotation holds."""
    if typing.get_origin(annotation) in (Union, pytypes.UnionType):
        inner = [_element(a) for a in typing.get_args(annotation) if typing.get_args(a)]
        return inner[0] if inner else annotation
    args = [a for a in typing.get_args(annotation) if a is not Ellipsis]
    return args[-1] if args else annotation


def _annotation_text(annotation: Any) -> str:
    names = {
        int: "int",
        float: "float",
        str: "str",
        bool: "bool",
        Size: "size",
        Quantity: "quantity",
        Rate: "rate",
        type(None): "none",
    }
    if annotation in names:
        return names[annotation]
    origin = typing.get_origin(annotation)
    args = typing.get_args(annotation)
    if origin in (Union, pytypes.UnionType):
        words = sorted(dict.fromkeys(_annotation_text(a) for a in args), key=lambda w: w == "none")
        return " or ".join(words)
    if origin is typing.Literal:
        return " or ".join(show(a) for a in args)
    if origin is typing.Annotated:
        return _annotation_text(args[0])
    if origin in (list, tuple):
        inner = next((a for a in args if a is not Ellipsis), None)
        return "a list" + (f" of {_annotation_text(inner)}" if inner is not None else "")
    if origin is dict:
        return "a record"
    if _fields_of(annotation):
        return "a record of " + ", ".join(_fields_of(annotation))
    return getattr(annotation, "__name__", str(annotation)).lower()


def _wants_size(annotation: Any) -> bool:
    return annotation is Size or Size in typing.get_args(annotation)


def _wants_int(annotation: Any) -> bool:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _wants_int(args[0])
    if origin in (Union, pytypes.UnionType):
        return any(_wants_int(a) for a in args) and float not in args
    return annotation is int


def _shape(data: Any, annotation: Any) -> Any:
    """Lists become tuples, and records or plain numbers what the annotation wants."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _shape(data, args[0])
    if origin in (Union, pytypes.UnionType):
        for option in args:
            made = _shape(data, option)
            if _fits(made, option):
                return made
        return data
    if origin is tuple and isinstance(data, list):
        inner = args[0] if args else Any
        many = len(args) == 2 and args[1] is Ellipsis
        return tuple(
            _shape(x, inner if many or not args else args[min(i, len(args) - 1)]) for i, x in enumerate(data)
        )
    if origin is list and isinstance(data, list):
        return [_shape(x, args[0] if args else Any) for x in data]
    if annotation is Rate and isinstance(data, (int, float)) and not isinstance(data, bool):
        return Rate(float(data))
    if annotation is Size and isinstance(data, int) and not isinstance(data, bool):
        return Size(data, data)
    if isinstance(annotation, type) and issubclass(annotation, Primitive) and isinstance(data, Construct):
        return data
    return data


def _fits(data: Any, annotation: Any) -> bool:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _fits(data, args[0])
    if annotation is None or annotation is type(None):
        return data is None
    if origin is typing.Literal:
        return data in args
    if origin is not None:
        return isinstance(data, origin)
    if annotation is float:
        return isinstance(data, (int, float)) and not isinstance(data, bool)
    return isinstance(annotation, type) and isinstance(data, annotation)


def default_of(cls: type[Primitive], name: str) -> Any:
    """A field's default, or None if it has none."""
    field = cls.model_fields[field_names(cls)[name]]
    value = field.get_default(call_default_factory=True)
    return None if value is PydanticUndefined else value


__all__ = ["Labels", "build_primitive", "default_of", "field_names", "validate"]
