"""Checking compile-time values against written types, and wires against port types."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from detc.compiler.expressions import arith
from detc.compiler.expressions.modules import Module
from detc.compiler.spec import Quantity, Rate, Size
from detc.compiler.types import Image, Map, Pyramid, Struct, Tensor, Type
from detc.compiler.values import (
    Bundle,
    Construct,
    Labels,
    Span1,
    TemplateRef,
    Value,
    Wire,
    a_kind,
    elements,
    is_wire,
    kind_of,
    raw,
    show,
    wires_of,
)
from detc.dsl import ast
from detc.dsl.diagnostics import DetError, Edit, closest, did_you_mean, error
from detc.dsl.source import Origin, Span

VALUE_TYPES = (
    "int", "float", "bool", "str", "size", "labels", "list", "record", "quantity", "duration", "images", "rate", "any",
)  # fmt: skip
WIRE_TYPES = (
    "image",
    "map",
    "pyramid",
    "tensor",
    "boxes",
    "points",
    "instances",
    "proposals",
    "detections",
    "tracks",
    "matches",
    "step",
    "view",
    "struct",
)
_ELSEWHERE = {
    "integer": "int",
    "number": "float",
    "double": "float",
    "real": "float",
    "boolean": "bool",
    "string": "str",
    "text": "str",
    "array": "list",
    "tuple": "list",
    "dict": "record",
    "object": "record",
    "classes": "labels",
}


def type_text(t: ast.TypeExpr) -> str:
    """A type as it is written."""
    if isinstance(t, ast.TypeUnion):
        return " | ".join(type_text(o) for o in t.options)
    if isinstance(t, ast.TypeString):
        return f'"{t.value}"'
    return t.name + ("?" if t.optional else "")


def check_value(
    value: Value, t: ast.TypeExpr, what: str, module: Module, declared: Span | None = None
) -> Value:
    """`value` as a `t`, converted where that loses nothing (5 for a float, 96.0 for an int).

    Raises:
        DetError: DET0301 for another type, DET0311 for a string outside the union, DET0308 for a fraction.
    """
    options = t.options if isinstance(t, ast.TypeUnion) else (t,)
    strings = [o.value for o in options if isinstance(o, ast.TypeString)]
    names = [o for o in options if isinstance(o, ast.TypeName)]
    if value.data is None and any(o.optional or o.name == "any" for o in names):
        return value
    for option in names:
        done = _as(value, option, what, module, only=len(options) == 1)
        if done is not None:
            return done
    if strings and isinstance(value.data, str):
        if value.data in strings:
            return value
        raise error(
            "DET0311",
            f"{what} must be one of {', '.join(map(show, strings))}, not {show(value)}",
            value.origin,
            "not one of them" + did_you_mean(value.data, strings),
            secondary=[(declared, "declared here")],
            fix=None,
        )
    if is_wire(value.data):
        raise error(
            "DET0313",
            f"{what} must be known at compile time",
            value.origin,
            f"this is {a_kind(value)}, known only at run time",
            secondary=[(declared, "declared here")],
        )
    raise error(
        "DET0301",
        f"{what} must be {_article(type_text(t))}, not {a_kind(value)}",
        value.origin,
        show(value),
        secondary=[(declared, f"declared as {type_text(t)} here")],
        help=_type_help(t, value),
    )


def _article(name: str) -> str:
    if name.rstrip("?") in ("none", "labels", "images", "wires", "outputs") or name.startswith('"'):
        return name
    return ("an " if name[0] in "aeiou" else "a ") + name


def _type_help(t: ast.TypeExpr, value: Value) -> str | None:
    if isinstance(t, ast.TypeName) and value.data is None:
        return f"write `{t.name}?` in the declaration to allow none"
    if isinstance(t, ast.TypeName) and t.name == "labels":
        return 'write the names, classes = ["cat", "dog"], or those of the data set, classes = data.classes'
    if isinstance(t, ast.TypeName) and t.name == "size":
        two = raw(value) if isinstance(value.data, list) and len(value.data) == 2 else None
        whole = two is not None and all(isinstance(n, int) for n in two)
        return f"sizes are written width first: {'x'.join(map(str, two or ())) if whole else '1333x800'}"
    return None


def _as(value: Value, t: ast.TypeName, what: str, module: Module, only: bool) -> Value | None:
    data, name = value.data, t.name
    number = isinstance(data, (int, float, Fraction)) and not isinstance(data, bool)
    if name == "any":
        return value
    if name == "int" and number:
        return Value(arith.whole(value, what), value.origin, value.was)
    if name == "float" and number:
        return Value(float(data), value.origin, value.was)
    if name == "rate":
        if isinstance(data, Rate):
            return value
        return Value(Rate(float(data)), value.origin, value.was) if number else None
    if name in ("quantity", "duration", "images") and isinstance(data, Quantity):
        units = {"quantity": None, "duration": ("ep", "it"), "images": ("img",)}[name]
        if units and data.unit not in units:
            message = f"{what} must be in {' or '.join(units)}, not {data}"
            raise error("DET0701", message, value.origin, f"the unit is `{data.unit}`")
        return value
    if name in ("duration", "images") and number:
        unit = {"duration": "ep or it", "images": "img"}[name]
        raise error(
            "DET0701", f"{what} needs a unit", value.origin, f"write {show(value)}{unit.split()[0]} ({unit})"
        )
    if name == "labels":
        return _as_labels(value)
    simple: dict[str, Any] = {"bool": bool, "str": str, "size": Size, "record": dict}
    if name == "size" and (isinstance(data, Size) or (isinstance(data, int) and number)):
        check_size(value, what)
        return value if isinstance(data, Size) else Value(Size(data, data), value.origin, value.was)
    if name in simple and isinstance(data, simple[name]):
        return value
    if name == "list" and (isinstance(data, (list, Span1, Labels)) or elements(value) is not None):
        return value
    if name in VALUE_TYPES:
        return None
    found = module.lookup(name)
    if isinstance(found, TemplateRef) and isinstance(found.decl, ast.InterfaceDecl):
        if isinstance(data, Construct) or kind_of(value) == "node":
            return value
        return None
    if name in WIRE_TYPES:
        return value if is_wire(data) else None
    raise unknown_type(t, module)


LONGEST_SIDE = 1 << 16  # pixels: what is more was meant as an area


def check_size(value: Value, what: str) -> None:
    """A size, or the one side of a square, holds at least a pixel, and a number of them that an image can have.

    Raises:
        DetError: DET0311.
    """
    sides = (value.data.width, value.data.height) if isinstance(value.data, Size) else (value.data,)
    bad = next((side for side in sides if not 1 <= side <= LONGEST_SIDE), None)
    if bad is not None:
        raise error(
            "DET0311",
            f"{what} has a side of {bad} pixels: 1 to {LONGEST_SIDE} are possible",
            value.origin,
            show(value),
            help="sizes are written width first: 1333x800",
        )


def unknown_type(t: ast.TypeName, module: Module) -> DetError:
    """The error for a type name that means nothing."""
    names = [n for n in module.visible() if n[:1].isupper() and is_interface(module.lookup(n))]
    near = _ELSEWHERE.get(t.name.lower()) or closest(t.name, [*VALUE_TYPES, *WIRE_TYPES, *names])
    fix = Edit(t.span, near) if near and t.span.text == t.name else None
    hint = f"; did you mean `{near}`?" if near else ""
    return error("DET0201", f"unknown type `{t.name}`", t.span, "not a type" + hint, fix=fix)


def is_interface(found: object) -> bool:
    """True for the declaration of an interface."""
    return isinstance(found, TemplateRef) and isinstance(found.decl, ast.InterfaceDecl)


def _as_labels(value: Value) -> Value | None:
    data = value.data
    if isinstance(data, Labels):
        return value
    if isinstance(data, list) and not data:
        raise error("DET0605", "there are no class names", value.origin, "at least one is wanted here")
    if isinstance(data, list) and (wrong := next((v for v in data if not isinstance(v.data, str)), None)):
        raise error("DET0301", f"a class name is a str, not {a_kind(wrong)}", wrong.origin, show(wrong))
    if isinstance(data, list):
        names = [v.data for v in data]
        for i, name in enumerate(names):
            if not name.strip():
                raise error("DET0605", "a class has no name", data[i].origin, "an empty name")
            if name in names[:i]:
                raise error(
                    "DET0605", f"the class {show(name)} is listed twice", data[i].origin, "listed again here"
                )
        return Value(Labels(tuple(names)), value.origin, value.was)
    return None


def wire_matches(t: Type, name: str) -> bool:
    """True if a wire of type `t` may go where a port says `name`."""
    if name in ("any", "wire"):
        return True
    if isinstance(t, Image):
        return name in ("image", "map")
    if isinstance(t, Map):
        return name in ("map", "tensor")
    if isinstance(t, Pyramid):
        return name == "pyramid"
    if isinstance(t, Struct):
        return name in (t.kind, "struct") or (name == "proposals" and t.get("boxes") is not None)
    if isinstance(t, Tensor):
        return name == "tensor" or t.kind == name or t.kind == "tensor"
    return False


def check_port(value: Value, t: ast.TypeExpr, port: str, owner: str, call: Origin, declared: Span) -> Value:
    """A wire for the port `port: t` of `owner`.

    Raises:
        DetError: DET0304 with the wire's origin and the port's declaration.
    """
    options = t.options if isinstance(t, ast.TypeUnion) else (t,)
    names = [o.name for o in options if isinstance(o, ast.TypeName)]
    if not is_wire(value.data):
        if any(n in VALUE_TYPES for n in names) or isinstance(value.data, dict):
            return value
        raise error(
            "DET0304",
            f"the input `{port}` of {owner} wants a {type_text(t)}, not {a_kind(value)}",
            call,
            "applied here",
            secondary=[(value.origin, f"{show(value)} comes from here"), (declared, "declared here")],
        )
    for name in names:
        if name in ("any", "list", "record"):
            return value
        if isinstance(value.data, Wire):
            if wire_matches(value.data.type, name):
                return value
            if name == "pyramid" and isinstance(value.data.type, Map):
                return Value([value], value.origin)
        elif name == "pyramid" and (items := elements(value)) is not None:
            if all(isinstance(w.type, (Map, Tensor)) for w in wires_of(value.data)) and items:
                return Value(items, value.origin)
        elif (
            isinstance(value.data, (Bundle, dict)) and name not in ("image", "map", "tensor", "pyramid")
        ) or (elements(value) is not None and name in ("tensor", "boxes", "points", "proposals")):
            return value
    raise error(
        "DET0304",
        f"the input `{port}` of {owner} wants a {type_text(t)}, not {a_kind(value)}",
        call,
        "applied here",
        secondary=[
            (value.origin, f"the {kind_of(value)} comes from here"),
            (declared, f"declared as {type_text(t)}"),
        ],
    )


def suggest_argument(name: str, known: list[str]) -> str:
    """Label text for an unknown argument."""
    near = closest(name, known)
    if near:
        return f"no such argument; did you mean `{near}`?"
    return "no such argument; there are: " + (", ".join(known) or "none")
