"""Values and primitives as `.det` expressions that give them again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detc.compiler.elaboration.build_op import field_names
from detc.compiler.primitives import Primitive
from detc.compiler.values import show


def value_text(value: Any) -> str:
    """A value as an expression."""
    if isinstance(value, Primitive):
        return primitive_text(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(value_text(v) for v in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k} = {value_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, float) and not isinstance(value, bool):
        return number_text(value)
    if hasattr(value, "model_dump"):
        return value_text({k: getattr(value, k) for k in type(value).model_fields})
    text = show(value)
    return f"({text})" if " per " in text else text


def number_text(value: float) -> str:
    """A float that is read back as the same float."""
    text = repr(value)
    if text in ("inf", "-inf", "nan"):
        return {"inf": "1e999", "-inf": "-1e999"}.get(text, "none")
    if "." not in text and "e" in text:
        mantissa, _, exponent = text.partition("e")
        return f"{mantissa}.0e{exponent}"
    return text


def primitive_text(p: Primitive) -> str:
    """A primitive by its full name, with all arguments that differ from their defaults."""
    cls = type(p)
    given = []
    for name, own in field_names(cls).items():
        info = cls.model_fields[own]
        value = getattr(p, own)
        if info.is_required() or value != info.get_default(call_default_factory=True):
            given.append(f"{name} = {value_text(value)}")
    prefix = f"{cls.module}." if cls.module else ""
    return f"{prefix}{cls.name}({', '.join(given)})"
