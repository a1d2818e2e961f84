"""What stands after a dot: fields of records, wires, pyramids, modules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from detc.compiler.expressions import functions
from detc.compiler.spec import Quantity, Size
from detc.compiler.types import Image, Map, Pyramid, Struct, Tensor
from detc.compiler.values import (
    Bundle,
    ModuleRef,
    Value,
    Wire,
    a_kind,
    elements,
    is_wire,
    kind_of,
    show,
)
from detc.dsl.diagnostics import did_you_mean, error
from detc.dsl.source import Origin, Span

if TYPE_CHECKING:
    from detc.compiler.expressions.evaluate import Scope


def attribute(value: Value, name: str, span: Span, s: Scope) -> Value:
    """`value.name`.

    Raises:
        DetError: DET0211 with the names that there are.
    """
    special = s.member(value, name, span)
    if special is not None:
        return special
    data, origin = value.data, Origin(span, s.via)
    fields: dict[str, Any] = dict.fromkeys(getattr(data, "detc_members", tuple)())
    if isinstance(data, (dict, Bundle)):
        record = data if isinstance(data, dict) else data.fields
        if name in record:
            return record[name]
        fields = dict(record)
    elif isinstance(data, ModuleRef):
        return _module_member(data, name, span, origin)
    elif isinstance(data, Size):
        fields = {"width": data.width, "height": data.height}
    elif isinstance(data, Quantity):
        fields = {"value": data.value}
    elif isinstance(data, Wire):
        fields = wire_fields(data)
    elif (items := elements(value)) is not None and items and all(is_wire(v.data) for v in items):
        fields = _level_fields(items, name)
    if name in fields:
        found = fields[name]
        if isinstance(found, list):
            found = [x if isinstance(x, Value) else Value(x, origin) for x in found]
        return found if isinstance(found, Value) else Value(found, origin)
    offered = f"it has: {', '.join(fields)}" if fields else f"{a_kind(value)} has no fields"
    plain = not is_wire(data) and not hasattr(data, "label")
    shown = show(value) if plain and len(show(value)) <= 60 else f"this {kind_of(value)}"
    message = f"{shown} has no field `{name}`" if plain else f"{a_kind(value)} has no `{name}`"
    raise error("DET0211", message, origin, offered + did_you_mean(name, fields))


def wire_fields(wire: Wire) -> dict[str, Any]:
    """What can be written after the dot of a wire."""
    t = wire.type
    if isinstance(t, Map):
        return {"channels": t.channels, "stride": t.stride, "height": t.height, "width": t.width}
    if isinstance(t, Image):
        return {
            "pixels": wire.part("pixels", t.pixels),
            "size": wire.part("size", Tensor((t.batch, functions.TWO), kind="size")),
            "channels": t.channels,
            "height": t.height,
            "width": t.width,
        }
    if isinstance(t, Pyramid):
        return {"channels": [m.channels for m in t.maps], "strides": [m.stride for m in t.maps]}
    if isinstance(t, Struct):
        return {n: wire.part(n, f) for n, f in t.fields}
    return {"shape": list(t.shape)}


def _level_fields(items: list[Value], name: str) -> dict[str, Any]:
    plural = {"channels": "channels", "strides": "stride", "heights": "height", "widths": "width"}
    found: dict[str, Any] = {}
    for many, one in plural.items():
        values = [wire_fields(v.data).get(one) if isinstance(v.data, Wire) else None for v in items]
        if all(v is not None for v in values):
            found[many] = [Value(x, v.origin) for x, v in zip(values, items, strict=True)]
    if name not in found and all(isinstance(v.data, (Bundle, Wire)) for v in items):
        parts = [v.data.fields if isinstance(v.data, Bundle) else wire_fields(v.data) for v in items]
        if all(name in p for p in parts):
            wires = [p[name] for p in parts]
            found[name] = [
                w if isinstance(w, Value) else Value(w, v.origin) for w, v in zip(wires, items, strict=True)
            ]
    return found


def _module_member(ref: ModuleRef, name: str, span: Span, origin: Origin) -> Value:
    from detc.compiler.expressions.modules import shared_module

    if ref.module is not None:
        found = ref.module.export(name)
        if found is not None:
            return Value(found, origin)
        names = ref.module.exports()
    else:
        names = []
    nested = shared_module(f"{ref.name}.{name}")
    if nested is not None:
        return Value(ModuleRef(nested.name, nested), origin)
    raise error(
        "DET0203", f"`{ref.name}` has no `{name}`", origin, "not declared there" + did_you_mean(name, names)
    )
