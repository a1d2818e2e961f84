"""Functions and classes as text that stands alone: with what they call, each under one name, callees first.

detc's own functions are taken along; those of other packages are imported. A native op becomes its reference in
plain torch, so the text needs no library of detc's.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import keyword
import re
import symtable
import textwrap
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import import_module
from itertools import chain, count
from types import ModuleType
from typing import Any

import torch
from torch.nn import functional as F

from detc.dsl.diagnostics import error
from detc.nativeops import registry

OWN = "detc"


class Sources:
    """Collects definitions. `imports` and `texts` are what a file needs above the code that uses the names."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.imports: dict[str, str] = {}  # name in the file: the statement that binds it
        self.texts: dict[str, str] = {}  # name in the file: its definition
        self._names: dict[Any, str] = {}
        self._taken = {*dir(builtins), *keyword.kwlist, *taken}

    def add(self, thing: Any) -> str:
        """How a function or class is called in the file.

        Raises:
            DetError: DET0802 if it has no source, or one that cannot stand alone.
        """
        if isinstance(thing, torch._ops.OpOverload) and thing.namespace == OWN:
            thing = registry.reference_of(thing._schema.name.partition("::")[2])
        name, module = thing.__name__, getattr(thing, "__module__", None) or ""
        if _is_own(module):
            return self._definition(thing, name, inspect.getmodule(thing))
        if module == "builtins":
            return name
        if module == "_operator":
            self._import("operator", "import operator")
            return f"operator.{name}"
        for place in (torch, F):
            if getattr(place, name, None) is thing:
                self._import("torch", "import torch")
                return f"{place.__name__}.{name}"
        return self._import(name, f"from {module} import {name}")

    def _import(self, name: str, statement: str) -> str:
        """Have the statement, which binds `name`; another name if that one is given to something else."""
        if self.imports.setdefault(name, statement) == statement:
            self._taken.add(name)
            return name
        return self._import(f"{name}_2", f"{statement.partition(' as ')[0]} as {name}_2")

    def _definition(self, thing: Any, name: str, module: ModuleType | None) -> str:
        """A function or class, or the assignment that makes a constant, of one of detc's modules."""
        assert module is not None
        key = (module.__name__, name)
        if key in self._names:
            return self._names[key]
        numbered = (f"{name}_{i}" for i in count(2))
        own = next(n for n in chain((name,), numbered) if n not in self._taken)
        self._taken.add(own)
        self._names[key] = own
        if inspect.isroutine(inspect.unwrap(thing)) or inspect.isclass(thing):
            text = textwrap.dedent(inspect.getsource(thing))
            text = re.sub(rf"^(def|class) {name}\b", rf"\1 {own}", text, count=1, flags=re.M)
        else:
            text = f"{own} = {_assigned(name, module)}\n"
        text = self._alone(text, module, own)
        self.texts[own] = text.rstrip() + "\n"
        return own

    def _alone(self, text: str, module: ModuleType, own: str) -> str:
        """The text with every name of its module replaced by that of the file."""
        tree = ast.parse(text)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and _is_own(node.module or ""):
                raise error("DET0802", f"`{own}` of {module.__name__} imports {node.module} where it runs")
        free = _free_names(text) - {own}
        edits: list[tuple[ast.expr, str]] = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in free:
                base = vars(module).get(node.value.id)
                if isinstance(base, ModuleType) and _is_own(base.__name__):
                    edits.append((node, self._resolve(node.attr, base)))
            elif isinstance(node, ast.Name) and node.id in free:
                used = self._resolve(node.id, module)
                if used != node.id:
                    edits.append((node, used))
        return _replaced(text, edits)

    def _resolve(self, name: str, module: ModuleType) -> str:
        """What a name that a module's text reads is called in the file."""
        statement = _imports(module).get(name)
        if statement is not None and not _is_own(statement.split()[1]):
            return self._import(name, statement)
        if name not in vars(module):
            return name  # for type checkers only
        thing = vars(module)[name]
        if isinstance(thing, ModuleType):
            return name  # one of ours: its attributes are replaced where they stand
        if isinstance(thing, torch._ops.OpOverload) or (
            hasattr(thing, "__name__") and _is_own(getattr(thing, "__module__", ""))
        ):
            return self.add(thing)
        if statement is None:
            return self._definition(thing, name, module)
        # `from x import EPS as SMALL`: a constant is called EPS where it is made
        _, home, _, origin, *_ = statement.split()
        return self._resolve(origin, import_module(home))


def _is_own(module: str) -> bool:
    return module.partition(".")[0] == OWN


@cache
def _tree(module: ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(module))


@cache
def _imports(module: ModuleType) -> dict[str, str]:
    """Names that a module imports, each with a statement that imports it alone."""
    found = {}
    for node in ast.walk(_tree(module)):
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        for alias in node.names:
            renamed = f" as {alias.asname}" if alias.asname else ""
            begin = f"from {node.module} import" if isinstance(node, ast.ImportFrom) else "import"
            found[alias.asname or alias.name] = f"{begin} {alias.name}{renamed}"
    return found


def _assigned(name: str, module: ModuleType) -> str:
    """The right side of the assignment to a name of a module."""
    for node in _tree(module).body:
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            value = getattr(node, "value", None)
            if isinstance(target, ast.Name) and target.id == name and value is not None:
                return ast.unparse(value)
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                for left, right in zip(target.elts, value.elts, strict=True):
                    if isinstance(left, ast.Name) and left.id == name:
                        return ast.unparse(right)
    raise error("DET0802", f"`{name}` of {module.__name__} cannot be written as source")


def _free_names(text: str) -> set[str]:
    """Names that the text reads and does not define."""

    def scopes(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
        yield table
        for child in table.get_children():
            yield from scopes(child)

    top = symtable.symtable(text, "<source>", "exec")
    own = {s.get_name() for s in top.get_symbols() if s.is_assigned()}
    read = {s.get_name() for t in scopes(top) for s in t.get_symbols() if s.is_referenced() and s.is_global()}
    return read - own - set(dir(builtins))


def _replaced(text: str, edits: list[tuple[ast.expr, str]]) -> str:
    lines = [line.encode("utf-8") for line in text.splitlines()]
    for node, new in sorted(edits, key=lambda e: (e[0].lineno, e[0].col_offset), reverse=True):
        assert node.end_col_offset is not None and node.lineno == node.end_lineno
        line = lines[node.lineno - 1]
        lines[node.lineno - 1] = line[: node.col_offset] + new.encode() + line[node.end_col_offset :]
    return b"\n".join(lines).decode("utf-8")


def literal(value: Any) -> str:
    """A constant as an expression.

    Raises:
        DetError: DET0802 for one that has no such form.
    """
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return f'float("{value}")'
    if value is None or value is ... or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        inner = ", ".join(map(literal, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' if len(value) == 1 else ''})"
    if isinstance(value, dict):
        items = (f"{literal(k)}: {literal(v)}" for k, v in value.items())
        return "{" + ", ".join(items) + "}"
    if isinstance(value, slice):
        return f"slice({', '.join(map(literal, (value.start, value.stop, value.step)))})"
    if isinstance(value, (torch.dtype, torch.device)):
        return f"torch.device({str(value)!r})" if isinstance(value, torch.device) else str(value)
    raise error("DET0802", f"a {type(value).__name__} cannot be written as source")
