"""The steps of data pipelines (module `std.data.steps`): what they are and which random choices they make.

The classes are schemas and import neither torch nor numpy; the pixel and box work is done by
`runtime.data.sample.Sample`. To add a step: write its class in the family's file, or a new one, with
`apply(sample, rng, draw)`; a new file needs no entry. `from detc.runtime.data.steps import Pad` reads Pad's file.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Any


def load_all() -> None:
    """Import every family, which registers its steps."""
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")


def __getattr__(name: str) -> Any:
    from detc.compiler.primitives import find

    found = find("std.data.steps", name)
    if found is None:
        raise AttributeError(f"{__name__} has no {name}")
    return found
