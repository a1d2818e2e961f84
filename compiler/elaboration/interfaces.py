"""Structural conformance: does a constructor fit a slot's interface?"""

from __future__ import annotations

from detc.compiler.expressions.modules import Module
from detc.compiler.expressions.template import levels, walk
from detc.compiler.expressions.typecheck import type_text
from detc.compiler.values import Construct, TemplateRef
from detc.dsl import ast
from detc.dsl.diagnostics import DetError, did_you_mean, error
from detc.dsl.source import Origin, Span


def find_interface(name: str, module: Module, span: Span) -> ast.InterfaceDecl:
    """The interface of this name.

    Raises:
        DetError: DET0201 if there is none.
    """
    for candidate in (module.decls.get(name), module.lookup(name)):
        if isinstance(candidate, TemplateRef) and isinstance(candidate.decl, ast.InterfaceDecl):
            return candidate.decl
    from detc.compiler.expressions.modules import prelude

    found = prelude(name)
    if isinstance(found, TemplateRef) and isinstance(found.decl, ast.InterfaceDecl):
        return found.decl
    raise error(
        "DET0201",
        f"unknown interface `{name}`",
        span,
        "not an interface" + did_you_mean(name, module.visible()),
    )


def conforms(construct: Construct, t: ast.TypeExpr, module: Module, slot: str, place: Origin) -> None:
    """Check that what fills a slot has the ports of the slot's interface.

    Raises:
        DetError: DET0310 for each port that it lacks or has otherwise.
    """
    if not isinstance(t, ast.TypeName):
        raise error("DET0310", "a slot has one interface", t.span, "not an interface")
    interface = find_interface(t.name, module, t.span)
    if not isinstance(construct.target, TemplateRef):
        return
    problems = missing_ports(construct.target, interface)
    found = [
        error(
            "DET0310",
            f"{construct.name} does not fit `{slot}: {t.name}`: {text}",
            place,
            f"{construct.name} is given here",
            secondary=[
                (span, "the interface wants this"),
                (construct.target.decl.name_span, "declared here"),
            ],
        )
        for text, span in problems
    ]
    if found:
        raise DetError(*(d for e in found for d in e.diagnostics))


def missing_ports(ref: TemplateRef, interface: ast.InterfaceDecl) -> list[tuple[str, Span]]:
    """What `ref` lacks of an interface, each with the place of the demand."""
    inputs: dict[str, ast.InPort] = {}
    outputs: dict[str, ast.OutPort] = {}
    for level in levels(ref):
        for stmt in walk(level.decl.body):
            if isinstance(stmt, ast.InPort):
                inputs.setdefault(stmt.name, stmt)
            elif isinstance(stmt, ast.OutPort):
                outputs.setdefault(stmt.name, stmt)
    found: list[tuple[str, Span]] = []
    for want in interface.body:
        if isinstance(want, ast.InPort):
            have = inputs.get(want.name)
            found += _compare(
                "input",
                want.name,
                want.type,
                have.type if have else None,
                have is not None,
                want.span,
                inputs,
            )
        elif isinstance(want, ast.OutPort):
            port = outputs.get(want.name)
            found += _compare(
                "output",
                want.name,
                want.type,
                port.type if port else None,
                port is not None,
                want.span,
                outputs,
            )
    return found


def _compare(
    kind: str,
    name: str,
    want: ast.TypeExpr | None,
    have: ast.TypeExpr | None,
    there: bool,
    span: Span,
    known: object,
) -> list[tuple[str, Span]]:
    names = list(known)  # type: ignore[call-overload]
    if not there:
        return [(f"it has no {kind} `{name}`{did_you_mean(name, names)}", span)]
    if want is None or have is None:
        return []
    a, b = type_text(want), type_text(have)
    if a != b and "any" not in (a, b):
        return [(f"its {kind} `{name}` is a {b}, not a {a}", span)]
    return []
