"""A readable, self-contained PyTorch module: the inference graph as source, with the functions that it calls."""

from __future__ import annotations

import ast as pyast
import inspect
import operator
import re
import textwrap
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import fx, nn

from detc.dsl.diagnostics import error

HEADER = '''"""{title}

Written by detc from a `.det` spec; needs PyTorch (and, for native ops, detc) only. Usage:

    model = {name}()
    model.load_state_dict(torch.load("weights.pt", weights_only=True))
    model.eval()
    outputs = model({{"pixels": pixels_BCHW, "size": sizes_B2}})   # RGB, 0..255; size = (height, width)
"""
'''


class _Functions:
    """Collects the sources of functions, with what they call from detc's own modules."""

    def __init__(self) -> None:
        self.sources: dict[str, str] = {}
        self.imports: set[str] = {"import torch", "from torch import nn"}
        self.names: dict[Callable[..., Any], str] = {}

    def add(self, fn: Callable[..., Any]) -> str:
        """The name under which `fn` can be called in the file."""
        module = getattr(fn, "__module__", "") or ""
        if fn in self.names:
            return self.names[fn]
        if not module.startswith("detc.compiler"):
            top = module.split(".")[0]
            if module.startswith("detc.nativeops"):
                self.imports.add(f"from {module} import {fn.__name__}")
                return fn.__name__
            if module == "_operator":
                self.imports.add("import operator")
                return f"operator.{fn.__name__}"
            if top in ("torch", "math", "builtins"):
                return _qualified(fn)
            raise error("DET0802", f"{module}.{fn.__name__} cannot be written as source")
        name = fn.__name__
        while name in self.sources or name in self.names.values():
            name += "_"
        self.names[fn] = name
        self._write(fn, name)
        return name

    def _write(self, fn: Callable[..., Any], name: str) -> None:
        source = textwrap.dedent(inspect.getsource(fn))
        module = inspect.getmodule(fn)
        assert module is not None
        self.sources[name] = ""  # holds its place: functions it calls come before it
        renamed = {fn.__name__: name} if name != fn.__name__ else {}
        for used in sorted(_globals(source)):
            target = getattr(module, used, None)
            if target is None or target is fn:
                continue
            renamed_to = self._need(used, target, module)
            if renamed_to != used:
                renamed[used] = renamed_to
        for old, new in renamed.items():
            source = re.sub(rf"(?<![\w.]){re.escape(old)}\b", new, source)
        del self.sources[name]
        self.sources[name] = source.rstrip() + "\n"

    def _need(self, used: str, target: Any, module: ModuleType) -> str:
        if isinstance(target, ModuleType):
            full = target.__name__
            self.imports.add(f"import {full}" if full == used else f"import {full} as {used}")
            if full.startswith("detc.compiler"):
                raise error(
                    "DET0802", f"{module.__name__} uses the module {full}, which cannot be written as source"
                )
            return used
        if inspect.isfunction(target) and target.__module__.startswith("detc.compiler"):
            return self.add(target)
        if inspect.isclass(target) or callable(target):
            origin = getattr(target, "__module__", "")
            if origin.startswith("detc.compiler"):
                return self.add(target)
            if origin not in ("builtins", ""):
                self.imports.add(
                    f"from {origin} import {target.__name__}"
                    + (f" as {used}" if target.__name__ != used else "")
                )
            elif used == "Any":
                self.imports.add("from typing import Any")
            return used
        if used == "Any":
            self.imports.add("from typing import Any")
            return used
        self.sources[used] = f"{used} = {target!r}\n"
        return used


def _qualified(fn: Callable[..., Any]) -> str:
    if getattr(torch, fn.__name__, None) is fn:
        return f"torch.{fn.__name__}"
    return f"{fn.__module__}.{fn.__name__}" if fn.__module__ != "builtins" else fn.__name__


def _globals(source: str) -> set[str]:
    tree = pyast.parse(source)
    return {n.id for n in pyast.walk(tree) if isinstance(n, pyast.Name)}


def _constructor(module: nn.Module, functions: _Functions) -> str:
    """An expression that makes a module of the same shape."""
    kind = type(module)
    if kind.__module__.startswith("torch.nn"):
        return (
            f"nn.{module!r}" if "\n" not in repr(module) else _from_signature(module, f"nn.{kind.__name__}")
        )
    name = functions.add(kind)
    return _from_signature(module, name)


def _from_signature(module: nn.Module, name: str) -> str:
    given = []
    for p in inspect.signature(type(module).__init__).parameters.values():
        if p.name == "self":
            continue
        if not hasattr(module, p.name):
            raise error(
                "DET0802",
                f"{type(module).__name__} cannot be written as source: `{p.name}` is not an attribute",
            )
        value = getattr(module, p.name)
        if value != p.default:
            given.append(f"{p.name}={value!r}")
    return f"{name}({', '.join(given)})"


def _value(x: Any) -> str:
    if isinstance(x, fx.Node):  # the underscore keeps a value's name apart from the function that made it
        return x.name if x.op == "placeholder" else f"{x.name}_"
    if isinstance(x, dict):
        return "{" + ", ".join(f"{k!r}: {_value(v)}" for k, v in x.items()) + "}"
    if isinstance(x, (list, tuple)):
        inner = ", ".join(_value(v) for v in x)
        return f"[{inner}]" if isinstance(x, list) else f"({inner}{',' if len(x) == 1 else ''})"
    if isinstance(x, float) and x in (float("inf"), float("-inf")):
        return f'float("{x}")'
    return repr(x)


def python_source(graph: fx.GraphModule, name: str, title: str) -> str:
    """The source of a module equal to `graph`; its `state_dict` has the same keys.

    Raises:
        DetError: DET0802 if a part cannot be written as source.
    """
    functions = _Functions()
    build, body = [], []
    parents: set[str] = set()
    for path, module in graph.named_modules():
        if not path or (list(module.children()) and type(module) is nn.Module):
            continue
        if any(path.startswith(p + ".") for p in parents):
            continue
        parents.add(path)
        build.append(f'put(self, "{path}", {_constructor(module, functions)})')
    place = ""
    for node in graph.graph.nodes:
        lines = [x for x in (node.stack_trace or "").splitlines() if ".det" in x]
        here = (
            lines[0].strip().removeprefix("File ").replace('"', "").replace(", line ", ":").split(", in")[0]
            if lines
            else ""
        )
        comment = f"  # {here}" if here and here != place else ""
        place = here or place
        if node.op == "call_module":
            call = f'self.get_submodule("{node.target}")({", ".join(map(_value, node.args))})'
        elif node.op == "call_function" and node.target is operator.getitem:
            call = f"{_value(node.args[0])}[{node.args[1]!r}]"
        elif node.op == "call_function":
            args = [*map(_value, node.args), *(f"{k}={_value(v)}" for k, v in node.kwargs.items())]
            call = f"{functions.add(node.target)}({', '.join(args)})"
        elif node.op == "output":
            body.append(f"return {_value(node.args[0])}")
            continue
        else:
            continue
        body.append(f"{_value(node)} = {call}{comment}")
    inputs = ", ".join(n.name for n in graph.graph.nodes if n.op == "placeholder")
    imports = sorted(functions.imports)
    parts = [
        HEADER.format(title=title, name=name),
        "from __future__ import annotations\n",
        "\n".join(
            [*[i for i in imports if i.startswith("import")], *[i for i in imports if i.startswith("from")]]
        ),
        "\n\n" + "\n\n".join(functions.sources.values()),
        _PUT,
        f"class {name}(nn.Module):",
        '    """The inference graph."""\n',
        "    def __init__(self):",
        "        super().__init__()",
        textwrap.indent("\n".join(build), "        "),
        f"\n    def forward(self, {inputs}):",
        textwrap.indent("\n".join(body), "        "),
    ]
    return "\n".join(parts) + "\n"


_PUT = '''
def put(root, path, module):
    """Add a submodule under a dotted path."""
    *parents, leaf = path.split(".")
    for part in parents:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root._modules[part]
    root.add_module(leaf, module)

'''
