"""What expressions evaluate to: compile-time data, constructors, and wires, each with its origin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from detc.compiler.dims import Dim
from detc.compiler.spec import Quantity, Rate, Size
from detc.compiler.types import Image, Map, Pyramid, Struct, Type
from detc.dsl.source import Origin

if TYPE_CHECKING:
    from detc.compiler.expressions.modules import Module
    from detc.compiler.primitives import Primitive
    from detc.dsl import ast


@dataclass(frozen=True, eq=False)
class Value:
    """Data with the place where it was decided. `was` is the value that an edit put this one over."""

    data: Any
    origin: Origin
    was: Value | None = None

    def at(self, origin: Origin) -> Value:
        """The same data, decided elsewhere."""
        return Value(self.data, origin, self.was)


class _Poison:
    """Stands for a value whose computation has already been reported."""

    def __repr__(self) -> str:
        return "<error>"


POISON = _Poison()


class Poisoned(Exception):
    """Raised when something depends on a poisoned value: abandon quietly."""


class Abandoned(Poisoned):
    """Raised when a whole component is abandoned: what it requires does not hold, and that is reported."""


@dataclass(frozen=True)
class Labels:
    """A class space: names in the order of their indices."""

    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Span1:
    """A half-open range of integers; `start`/`stop` None where a slice leaves them open."""

    start: int | None
    stop: int | None
    step: int = 1

    def indices(self, length: int) -> range:
        """The indices that this range picks from a list of `length`."""
        start = 0 if self.start is None else self.start
        stop = length if self.stop is None else self.stop
        return range(start, stop, self.step)

    def items(self) -> range:
        """The integers themselves; only for a closed range."""
        assert self.start is not None and self.stop is not None
        return range(self.start, self.stop, self.step)


@dataclass(frozen=True, eq=False)
class TemplateRef:
    """A component, model, data, train, target, patch or interface declaration, in its module."""

    decl: ast.Decl
    module: Module

    def __str__(self) -> str:
        return self.decl.name


@dataclass(frozen=True, eq=False)
class PrimitiveRef:
    """A primitive class that a spec can name."""

    cls: type[Primitive]

    def __str__(self) -> str:
        return self.cls.name


@dataclass(frozen=True, eq=False)
class ModuleRef:
    """`import std.recipes as recipes`, or a prefix such as `std` of a full name."""

    name: str
    module: Module | None = None

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, eq=False)
class Builtin:
    """A compile-time function: len, range maths, constructors of test inputs."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, eq=False)
class BoundArg:
    """An argument of a constructor: its name (None: positional), value and place."""

    name: str | None
    value: Value
    origin: Origin


@dataclass(frozen=True, eq=False)
class Construct:
    """`FPN(256)`: something to build, with arguments, not built yet."""

    target: TemplateRef | PrimitiveRef
    args: tuple[BoundArg, ...]
    origin: Origin
    weights: Value | None = None

    @property
    def name(self) -> str:
        """The name of what is built."""
        return self.target.decl.name if isinstance(self.target, TemplateRef) else self.target.cls.name


@dataclass(frozen=True)
class Wire:
    """A value at run time: an output of a graph node, or a part of one (`path` of keys and indices)."""

    node: str
    path: tuple[str | int, ...]
    type: Type

    def part(self, key: str | int, type: Type) -> Wire:
        """A field or element of this wire."""
        return Wire(self.node, (*self.path, key), type)

    def __str__(self) -> str:
        return self.node + "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in self.path)


@dataclass(eq=False)
class WireArray:
    """`logits[l]`: wires by index; used whole, it is a list in index order."""

    name: str
    items: dict[tuple[int, ...], Value] = field(default_factory=dict)
    broken: bool = False  # an element could not be computed; the failure is reported

    def as_list(self) -> list[Value]:
        """Elements in index order; nested lists for more than one index."""
        keys = sorted(self.items)
        if keys and len(keys[0]) > 1:
            firsts = sorted({k[0] for k in keys})
            return [
                Value(self.row((first,)).as_list(), self.items[next(k for k in keys if k[0] == first)].origin)
                for first in firsts
            ]
        return [self.items[k] for k in keys]

    def row(self, prefix: tuple[int, ...]) -> WireArray:
        """The elements whose index starts with `prefix`, with the prefix taken off."""
        n = len(prefix)
        return WireArray(self.name, {k[n:]: v for k, v in self.items.items() if k[:n] == prefix}, self.broken)


@dataclass(frozen=True, eq=False)
class Bundle:
    """The outputs of a component with several of them."""

    owner: str
    fields: dict[str, Value]


def derived(origin: Origin, *values: Value) -> Origin:
    """The place of something computed at `origin` from `values`, with the one of them that decided it.

    That is what an edit gave, or, for a computation in the library, what the user's own line says.
    """
    decisive: Origin | None = None
    for value in values:
        found = value.origin
        if found.because is not None and (found.because.edited or found.span.source.library):
            found = found.because
        if found.span.source.library:
            continue
        if found.edited:
            return replace(origin, because=found)
        decisive = decisive or found
    return replace(origin, because=decisive) if decisive and origin.span.source.library else origin


def is_wire(data: Any) -> bool:
    """True if `data` is a wire or holds one."""
    if isinstance(data, (Wire, WireArray, Bundle)):
        return True
    if isinstance(data, list):
        return any(is_wire(v.data) for v in data)
    if isinstance(data, dict):
        return any(is_wire(v.data) for v in data.values())
    return False


def wires_of(data: Any) -> Iterator[Wire]:
    """All wires in `data`, in order."""
    if isinstance(data, Wire):
        yield data
    elif isinstance(data, WireArray):
        for v in data.as_list():
            yield from wires_of(v.data)
    elif isinstance(data, Bundle):
        for v in data.fields.values():
            yield from wires_of(v.data)
    elif isinstance(data, list):
        for v in data:
            yield from wires_of(v.data)
    elif isinstance(data, dict):
        for v in data.values():
            yield from wires_of(v.data)


def elements(value: Value) -> list[Value] | None:
    """The elements of a list-like value (list, wire array, range, pyramid wire), else None."""
    data = value.data
    if isinstance(data, list):
        return data
    if isinstance(data, WireArray):
        if data.broken:
            raise Poisoned
        return data.as_list()
    if isinstance(data, Span1) and data.start is not None and data.stop is not None:
        return [Value(i, value.origin) for i in data.items()]
    if isinstance(data, Labels):
        return [Value(n, value.origin) for n in data.names]
    if isinstance(data, Wire) and isinstance(data.type, Pyramid):
        return [Value(data.part(i, m), value.origin) for i, m in enumerate(data.type.maps)]
    return None


def raw(value: Value) -> Any:
    """Plain Python data of a compile-time value: lists and dicts without origins."""
    if not isinstance(value, Value):
        return value  # plain already
    data = value.data
    if data is POISON:
        raise Poisoned
    if isinstance(data, list):
        return [raw(v) for v in data]
    if isinstance(data, dict):
        return {k: raw(v) for k, v in data.items()}
    if isinstance(data, Span1):
        return list(data.items())
    if isinstance(data, Labels):
        return list(data.names)
    if isinstance(data, Fraction):
        return int(data) if data.denominator == 1 else float(data)
    if isinstance(data, Dim) and data.is_const:
        return int(data)
    return data


def show(value: Any) -> str:
    """How a value looks in a message or a resolved spec."""
    data = value.data if isinstance(value, Value) else value
    if data is None:
        return "none"
    if isinstance(data, bool):
        return "true" if data else "false"
    if isinstance(data, str):
        return '"' + data.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    if isinstance(data, float):
        return repr(data)
    if isinstance(data, (int, Size, Quantity, Rate, Fraction, Dim)):
        return str(data)
    if isinstance(data, Labels):
        return "[" + ", ".join(show(n) for n in data.names) + "]"
    if isinstance(data, Span1):
        step = f" step {data.step}" if data.step != 1 else ""
        return f"{'' if data.start is None else data.start} .. {'' if data.stop is None else data.stop}{step}"
    if isinstance(data, (list, tuple)):
        return "[" + ", ".join(show(v) for v in data) + "]"
    if isinstance(data, dict):
        return "{" + ", ".join(f"{k} = {show(v)}" for k, v in data.items()) + "}"
    if isinstance(data, Construct):
        args = ", ".join((f"{a.name} = " if a.name else "") + show(a.value) for a in data.args)
        return f"{data.name}({args})"
    if isinstance(data, Wire):
        return f"{data} ({data.type})"
    if isinstance(data, WireArray):
        return f"wires {data.name}[…]"
    if isinstance(data, Bundle):
        return f"outputs of {data.owner}"
    return str(data)


def kind_of(value: Any) -> str:
    """The name of a value's type, as a user would say it."""
    data = value.data if isinstance(value, Value) else value
    names: list[tuple[type | tuple[type, ...], str]] = [
        (bool, "bool"),
        (int, "int"),
        (float, "float"),
        (str, "str"),
        (Size, "size"),
        (Quantity, "quantity"),
        (Rate, "rate"),
        (Labels, "labels"),
        ((list, Span1), "list"),
        (dict, "record"),
        ((Fraction, Dim), "number"),
        (Construct, "constructor"),
        (TemplateRef, "declaration"),
        (PrimitiveRef, "primitive"),
        (ModuleRef, "module"),
        (Builtin, "function"),
        (WireArray, "wires"),
        (Bundle, "outputs"),
    ]
    if data is None:
        return "none"
    if isinstance(data, Wire):
        kinds = {Map: "map", Pyramid: "pyramid", Image: "image"}
        if isinstance(data.type, Struct):
            return data.type.kind
        return kinds.get(type(data.type), getattr(data.type, "kind", "tensor"))
    for types, name in names:
        if isinstance(data, types):
            return name
    return getattr(type(data), "label", type(data).__name__)


def a_kind(value: Any) -> str:
    """`a map`, `an int`, `labels`: the name of a value's type with its article."""
    name = kind_of(value)
    if name in ("none", "labels", "wires", "outputs"):
        return name
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"
