"""The one door for primitives: ops, losses, data steps, optimisers, schedules, metrics, targets.

A primitive is a pydantic class: its fields are the arguments that a spec may write. It is found through the
entry-point group `detc.primitives` (each entry names a module whose import defines the classes; the built-in
ones come the same way as a plugin's), and imported in specs as `import std.ops { Conv2d }` where `std.ops`
is its `module`.

To add a primitive of a known kind: write the class in the family's file. Nothing else is listed anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from detc.compiler import primitive_index

_REGISTRY: dict[tuple[str, str], type[Primitive]] = {}


class Primitive(BaseModel):
    """Base of all primitives. Abstract ones (no `module` of their own) are not registered.

    Class variables:
        module: where specs import it from, e.g. "std.ops"; "" puts the name into every scope (the prelude).
        name: its name in specs; the class name by default.
    """

    # defer_build: validators are built for the classes that a spec uses, which is a tenth of them
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True, defer_build=True
    )
    module: ClassVar[str | None] = None
    name: ClassVar[str] = ""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = cls.__name__
        if cls.module is None or cls.__name__.startswith("_"):
            return
        key = (cls.module, cls.name)
        other = _REGISTRY.get(key)
        if other is not None and other.__module__ != cls.__module__:
            raise ValueError(f"two primitives share the name {key}: {other.__module__} and {cls.__module__}")
        _REGISTRY[key] = cls


@cache
def _entries() -> tuple[str, ...]:
    """The modules that the entry-point group names, built-in ones first."""
    points = sorted(
        entry_points(group="detc.primitives"), key=lambda p: (not p.value.startswith("detc."), p.name)
    )
    return tuple(p.value.partition(":")[0] for p in points)


@cache
def load_all() -> None:
    """Import every module named in the entry-point group; one with a function `load_all` loads more itself."""
    for name in _entries():
        module = import_module(name)
        getattr(module, "load_all", lambda: None)()


@cache
def _index() -> primitive_index.Index:
    """Where each primitive is defined, without importing it if that is known from before."""
    index = primitive_index.load(_entries())
    if index is None:
        load_all()
        index = {key: cls.__module__ for key, cls in _REGISTRY.items()}
        primitive_index.save(_entries(), index)
    return index


def find(module: str, name: str) -> type[Primitive] | None:
    """The primitive `name` of `module`, or None."""
    key = (module, name)
    if key not in _REGISTRY and key in _index():
        import_module(_index()[key])
    return _REGISTRY.get(key)


def names_in(module: str) -> list[str]:
    """All names that `module` offers."""
    return sorted({n for m, n in (*_index(), *_REGISTRY) if m == module})


def modules() -> list[str]:
    """All module names that primitives declare."""
    return sorted({m for m, _ in (*_index(), *_REGISTRY) if m})


def everything() -> Iterator[type[Primitive]]:
    """All registered primitives, by module and name."""
    load_all()
    for key in sorted(_REGISTRY):
        yield _REGISTRY[key]
