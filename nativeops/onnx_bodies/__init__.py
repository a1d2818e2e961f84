"""How native ops leave in ONNX: a node in domain `detc` and a model-local function of standard ops under the
same name.

Without the native library a runtime executes the function; with it, the kernel, from the same file.

A module `onnx_bodies/<op>.py` defines
    TRANSLATIONS: dict of torch op name (`"batched_nms"`) to a function for the exporter's translation table,
    FUNCTIONS: dict of ONNX op name to the text of its function (onnx.parser syntax), or a callable that
        returns it, as text or as a `FunctionProto`.
Nothing else is listed anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

DOMAIN = "detc"
VERSION = 1


@cache
def _modules() -> tuple[ModuleType, ...]:
    names = sorted(p.stem for p in Path(__file__).parent.glob("*.py") if not p.stem.startswith("_"))
    return tuple(import_module(f"{__name__}.{n}") for n in names)


def translations() -> dict[Any, Callable[..., Any]]:
    """The table for `torch.onnx.export(custom_translation_table=…)`."""
    import torch

    import detc.nativeops.ops  # noqa: F401  (defines the torch ops)

    table: dict[Any, Callable[..., Any]] = {}
    for module in _modules():
        for name, fn in module.TRANSLATIONS.items():
            table[getattr(torch.ops.detc, name).default] = fn
    return table


def attach(model: Any, inline: bool = False) -> list[str]:
    """Add the function bodies of all `detc` nodes of an `onnx.ModelProto`; return the op names.

    Args:
        model: changed in place.
        inline: put the bodies in place of the nodes, so that only standard ops remain.

    Raises:
        KeyError: for a node that no module has a body for.
    """
    import onnx
    from onnx import inliner

    used = sorted({n.op_type for n in model.graph.node if n.domain == DOMAIN})
    texts: dict[str, Any] = {}
    for module in _modules():
        texts.update(module.FUNCTIONS)
    present = {(f.domain, f.name) for f in model.functions}
    for name in used:
        if (DOMAIN, name) not in present:
            body = texts[name]() if callable(texts[name]) else texts[name]
            model.functions.append(onnx.parser.parse_function(body) if isinstance(body, str) else body)
    _same_opset(model)
    if used and all(o.domain != DOMAIN for o in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, VERSION))
    if inline and used:
        model.CopyFrom(inliner.inline_local_functions(model))
        kept = [o for o in model.opset_import if o.domain != DOMAIN]
        del model.opset_import[:]
        model.opset_import.extend(kept)
    return used


def _same_opset(model: Any) -> None:
    """Let the bodies, written for opset 18, state the model's: up to 23 their ops only take more types."""
    version = next(o.version for o in model.opset_import if o.domain == "")
    for function in model.functions:
        for opset in function.opset_import:
            if opset.domain == "" and function.domain == DOMAIN:
                opset.version = version
