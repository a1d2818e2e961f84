"""Warnings about params, `let`s and wires of the user's own declarations that nothing reads (DET0209)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from detc.compiler.elaboration.handles import NodeArray
from detc.compiler.expressions.modules import Module
from detc.compiler.expressions.template import walk
from detc.compiler.values import POISON, Poisoned, is_wire
from detc.dsl import ast
from detc.dsl.diagnostics import WARNING, DetError, Report, error
from detc.dsl.source import Span

if TYPE_CHECKING:
    from detc.compiler.elaboration.frame import Frame

IMPLICIT = ("classes",)  # a model's and a data set's class names are read by the run
_BRACES = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"[A-Za-z_]\w*")


def unused_values(module: Module, report: Report) -> None:
    """Warn about unused params and `let`s; with errors, what is used is not known."""
    if module.file is None or report.errors:
        return
    for decl in module.file.decls:
        read = set(_read(decl))
        heirs = [d for d in module.file.decls if isinstance(d, ast.Template) and _extends(d, decl.name)]
        inherited = {name for heir in heirs for name in _read(heir)}
        for p in getattr(decl, "params", ()):
            if p.name not in read | inherited and p.name not in IMPLICIT:
                _warn(report, f"the param `{p.name}` is never used", p.name, p.span)
        for stmt in walk(decl.body):
            if isinstance(stmt, ast.LetStmt) and stmt.name not in read:
                _warn(report, f"`{stmt.name}` is never used", stmt.name, stmt.span)


def _warn(report: Report, message: str, name: str, span: Span) -> None:
    start = span.source.text.find(name, span.start)
    place = Span(span.source, start, start + len(name)) if 0 <= start < span.end else span
    report.add(*error("DET0209", message, place, "not read by anything", severity=WARNING).diagnostics)


def _extends(decl: ast.Template, name: str) -> bool:
    return decl.base is not None and decl.base.name == name


def _read(node: Any) -> Iterator[str]:
    """Names that an expression somewhere below reads; those in the braces of messages too."""
    if isinstance(node, ast.Ref):
        yield node.name
    elif isinstance(node, ast.Path):
        for segment in node.segments:
            yield from _read(segment.indices)
    elif isinstance(node, ast.Ast):
        for f in dataclasses.fields(node):
            yield from _read(getattr(node, f.name))
    elif isinstance(node, tuple):
        for item in node:
            yield from _read(item)
    elif isinstance(node, str) and "{" in node:
        for inner in _BRACES.findall(node):
            yield from _NAME.findall(inner)


def unused_nodes(frame: Frame) -> None:
    """Look at nodes of the user's own files that nothing has read: their arguments are checked all the same.

    They are warned about if nothing reads them in the other phase, or from outside.
    """
    ctx = frame.ctx
    for name, found in frame.nodes.items():
        path = f"{frame.path}.{name}"
        for handle in found.items.values() if isinstance(found, NodeArray) else (found,):
            span = handle.origin.span
            if span.source.library or path in ctx.touched or handle.removed is not None or handle.follows:
                continue
            try:
                if handle.component:
                    handle.instance(frame).check_params()
                else:
                    handle.op(frame)
            except DetError as problem:
                ctx.report.add(*problem.diagnostics)
            except Poisoned:
                continue
            message = f"the node `{name}` is never applied"
            ctx.idle.setdefault(path, error("DET0209", message, span, "it has no weights", severity=WARNING))


def unused_wires(frame: Frame) -> None:
    """Warn about wires of the user's own files that nothing reads."""
    for name, slot in frame.names.items():
        if slot.read or slot.span is None or slot.span.source.library:
            continue
        value = slot.value
        if value is not None and (value.data is POISON or not is_wire(value.data)):
            continue
        found = error(
            "DET0209", f"the wire `{name}` is never used", slot.span, "not read by anything", severity=WARNING
        )
        frame.ctx.warn_unused(found, frame.path, name)
