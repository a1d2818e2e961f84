"""Checks that need no values: every name of every declaration resolves, also where nothing is built."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from detc.compiler.elaboration.interfaces import find_interface, missing_ports
from detc.compiler.expressions.arguments import check_arguments
from detc.compiler.expressions.clashes import clashes, taken_twice
from detc.compiler.expressions.elsewhere import suggest
from detc.compiler.expressions.messages import expressions
from detc.compiler.expressions.modules import Module
from detc.compiler.expressions.template import Level, levels, walk
from detc.compiler.expressions.typecheck import VALUE_TYPES, WIRE_TYPES, is_interface, unknown_type
from detc.compiler.values import ModuleRef, PrimitiveRef, TemplateRef
from detc.dsl import ast
from detc.dsl.diagnostics import DetError, Edit, Report, closest, error
from detc.dsl.source import Span

IMPLICIT = ("old",)


def check_names(module: Module, report: Report) -> None:
    """Report unknown names (DET0201), unknown types, and roles that are not kept (DET0310)."""
    assert module.file is not None
    for decl in module.file.decls:
        chain: list[Level] = []
        try:
            names = set(_names(decl))
            if isinstance(decl, ast.Template):
                chain = levels(TemplateRef(decl, module))
                for level in chain[1:]:
                    names |= set(_names(level.decl))
                    for patch in level.patches:
                        names |= set(_names(patch.decl))
                _check_role(decl, module)
            _check_clashes(decl, chain, report)
            if isinstance(decl, ast.PatchDecl) and decl.kind in ("component", "model"):
                _check_patch(decl, report)
            _visit(decl, names, module, report)
        except DetError as problem:
            report.add(*problem.diagnostics)


def _check_patch(decl: ast.PatchDecl, report: Report) -> None:
    """A patch of a component or a model can only edit."""
    blocks = (ast.WhenStmt, ast.RepeatStmt)
    for s in walk(decl.body):
        phase = isinstance(s, ast.SubBlock) and s.kind in ("train", "infer") and s.label is None
        if not (isinstance(s, (*ast.EDITS, *blocks)) or phase):
            message = f"a patch for a {decl.kind} holds edits: set, replace, remove, tie"
            help = f"to add something, derive: {decl.kind} X extends Y {{ … }}"
            report.add(*error("DET0706", message, s.span, "not an edit", help=help).diagnostics)


def _check_clashes(decl: ast.Decl, chain: list[Level], report: Report) -> None:
    if isinstance(decl, ast.Template) and decl.kind in ("component", "model"):
        found = taken_twice(chain)[0]
    elif isinstance(decl, (ast.InterfaceDecl, ast.TestDecl)):
        found = list(clashes(decl).values())
    else:
        return
    for problem in found:
        report.add(*problem.diagnostics)


def _check_role(decl: ast.Template, module: Module) -> None:
    if decl.role is None:
        return
    place = _role_place(decl)
    interface = find_interface(decl.role, module, place)
    found = [
        error(
            "DET0310",
            f"{decl.name} says that it is a {decl.role}, but {text}",
            place,
            "promised here",
            secondary=[(span, "the interface wants this")],
        )
        for text, span in missing_ports(TemplateRef(decl, module), interface)
    ]
    if found:
        raise DetError(*(d for e in found for d in e.diagnostics))


def _role_place(decl: ast.Template) -> Span:
    """The interface's name behind the `:` of a header."""
    start, end = decl.name_span.end, decl.span.end
    found = re.search(
        rf"[:]\s*({re.escape(decl.role or '')})\s*(\{{|extends|with)", decl.span.source.text[start:end]
    )
    if found is None:
        return decl.name_span
    return Span(decl.span.source, start + found.start(1), start + found.end(1))


def _names(decl: ast.Decl) -> Iterator[str]:
    """Every name that a declaration defines somewhere inside."""
    yield from (p.name for p in getattr(decl, "params", ()))
    yield from _defined(decl.body)


def _defined(body: tuple[ast.Stmt, ...]) -> Iterator[str]:
    for s in body:
        match s:
            case ast.WireStmt():
                yield from (t.name for t in s.targets)
            case ast.NodeStmt():
                yield s.target.name
            case ast.InPort() | ast.OutPort() | ast.LetStmt() | ast.StepStmt() | ast.StateStmt():
                yield s.name
            case ast.SubBlock():
                yield s.kind
                if s.label is not None:
                    yield str(s.label)
                yield from _defined(s.body)
            case ast.RepeatStmt():
                yield s.name
                yield from _defined(s.body)
            case ast.WhenStmt():
                yield from _defined(s.body)
                yield from _defined(s.otherwise)
            case ast.InsertStmt():
                yield s.step.name
            case _:
                pass


def _visit(node: Any, names: set[str], module: Module, report: Report) -> None:
    if isinstance(node, ast.Ref):
        _check_ref(node, names, module, report)
        return
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Ref):
        _check_ref(node.func, names, module, report, called=True)
        _visit(node.args, names, module, report)
        return
    if isinstance(node, ast.TypeName):
        _check_type(node, module, report)
        return
    if isinstance(node, ast.Param):
        _check_param_type(node.type, module, report)
        _visit(node.default, names, module, report)
        return
    if isinstance(node, ast.PatchDecl):
        names = names | {p.name for p in node.params}
        open_scope = any(isinstance(s, ast.EDITS) for s in node.body)
        if open_scope:
            _visit_patch(node, names, module, report)
            return
    if isinstance(node, ast.WhereStmt):
        _check_message(node, names, module, report)
    if isinstance(node, ast.Comprehension):
        names = names | {node.name}
    if isinstance(node, ast.SubBlock) and node.base is not None:
        for s in node.body:
            _visit(s, names, module, report)
        return
    if isinstance(node, ast.Path):
        for segment in node.segments:
            for index in segment.indices:
                _visit(index, names, module, report)
        return
    if isinstance(node, ast.Ast):
        for f in dataclasses.fields(node):
            _visit(getattr(node, f.name), names, module, report)
    elif isinstance(node, tuple):
        for item in node:
            _visit(item, names, module, report)


def check_calls(decl: ast.Decl, module: Module, report: Report) -> None:
    """Report wrong arguments of the primitives that a declaration names, whether or not anything builds it."""
    names = set(_names(decl))
    if isinstance(decl, ast.Template):
        try:
            chain = levels(TemplateRef(decl, module))
        except DetError:  # its base is unknown, which is reported
            return
        for level in chain[1:]:
            names |= set(_names(level.decl))
    for call in _calls(decl.body):
        _check_arguments(call, names, module, report)


def _check_arguments(call: ast.Call, names: set[str], module: Module, report: Report) -> None:
    """Those of a primitive; what components are given is seen where they are built."""
    found: Any = None
    match call.func:
        case ast.Ref(name=name) if name not in names and name not in module.broken:
            found = module.lookup(name)
        case ast.Attr(value=ast.Ref(name=name)) if name not in names and name not in module.broken:
            found = module.lookup(name)
            inner = found.module if isinstance(found, ModuleRef) else None
            found = inner.lookup(call.func.name) if inner is not None else None
    if isinstance(found, PrimitiveRef):
        check_arguments(call, found.cls, report)


def _check_message(node: ast.WhereStmt, names: set[str], module: Module, report: Report) -> None:
    """What stands in the braces of a message has to mean something before the message is needed."""
    found = Report()
    try:
        for inner in expressions(node):
            _visit(inner, names, module, found)
    except DetError as problem:
        report.add(*problem.diagnostics)
    for d in found.errors:
        label = d.labels[0].text if d.labels else ""
        report.add(*error(d.code, d.message, node.message_span, f"in this text: {label}").diagnostics)


def _visit_patch(node: ast.PatchDecl, names: set[str], module: Module, report: Report) -> None:
    """A patch may read the params of whatever it is applied to: only what cannot be such a name is checked."""
    del names, report
    for s in _calls(node.body):
        if isinstance(s.func, ast.Ref):
            module.lookup(s.func.name)
    return


def _calls(node: Any) -> Iterator[ast.Call]:
    if isinstance(node, ast.Call):
        yield node
    if isinstance(node, ast.Ast):
        for f in dataclasses.fields(node):
            yield from _calls(getattr(node, f.name))
    elif isinstance(node, tuple):
        for item in node:
            yield from _calls(item)


def _check_ref(node: ast.Ref, names: set[str], module: Module, report: Report, called: bool = False) -> None:
    if node.name in names or node.name in IMPLICIT or node.name in module.broken:
        return
    found = module.lookup(node.name)
    if isinstance(found, (TemplateRef, PrimitiveRef, ModuleRef)) or found is not None:
        return
    known = [*names, *module.visible()]
    meant, help, near = suggest(node.name, known, called)
    if node.name == "data" and "model" in names and help is None:
        help = "a run's data set has this name: data = Coco(…)"
    fix = Edit(node.span, near) if near else None
    message, label = f"unknown name `{node.name}`", "not defined in this declaration" + meant
    report.add(*error("DET0201", message, node.span, label, help=help, fix=fix).diagnostics)


def _check_param_type(t: ast.TypeExpr, module: Module, report: Report) -> None:
    """A param holds a value, or a component with the ports of an interface; wires are inputs."""
    for option in t.options if isinstance(t, ast.TypeUnion) else (t,):
        if not isinstance(option, ast.TypeName) or option.name in VALUE_TYPES or option.name in module.broken:
            continue
        if option.name in WIRE_TYPES and option.name != "labels":
            message = f"a param holds a value, and a {option.name} is a wire"
            help = f"wires come in through ports: input name: {option.name}"
            report.add(*error("DET0301", message, option.span, "not a type of values", help=help).diagnostics)
            continue
        found = module.lookup(option.name.partition(".")[0])
        if not (isinstance(found, ModuleRef) or is_interface(found)):
            report.add(*unknown_type(option, module).diagnostics)


def _check_type(node: ast.TypeName, module: Module, report: Report) -> None:
    if node.name in VALUE_TYPES or node.name in WIRE_TYPES or node.args or node.name in module.broken:
        return
    found = module.lookup(node.name)
    if isinstance(found, TemplateRef) and isinstance(found.decl, ast.InterfaceDecl):
        return
    try:
        find_interface(node.name, module, node.span)
    except DetError:
        if (found is None and not node.name[0].islower()) or (
            found is None and node.name[0].islower() and closest(node.name, [*VALUE_TYPES, *WIRE_TYPES])
        ):
            report.add(*unknown_type(node, module).diagnostics)
