"""Declarations with their bases: the chain of `extends`, the patches, the params of each level."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from detc.compiler.expressions.modules import Module
from detc.compiler.values import ModuleRef, TemplateRef
from detc.dsl import ast
from detc.dsl.diagnostics import DetError, error
from detc.dsl.source import Span


@dataclass(eq=False)
class Patch:
    """A patch as applied by a `with`."""

    decl: ast.PatchDecl
    module: Module
    applied: ast.Applied


@dataclass(eq=False)
class Level:
    """One declaration of an `extends` chain; `applied` is how the next level out extends it."""

    decl: ast.Template
    module: Module
    applied: ast.Applied | None = None
    patches: list[Patch] = field(default_factory=list)


def resolve_name(name: str, module: Module, span: Span, what: str) -> TemplateRef:
    """A declaration by its (dotted) name.

    Raises:
        DetError: DET0201 if there is none, DET0301 if it is something else.
    """
    head, *rest = name.split(".")
    found = module.lookup(head)
    for part in rest:
        if isinstance(found, ModuleRef) and found.module is not None:
            found = found.module.export(part)
        else:
            found = None
    if found is None and head in module.broken:
        raise DetError  # the import has failed, and that is reported
    if found is None:
        from detc.compiler.expressions.elsewhere import suggest

        meant, help, _ = suggest(name, module.visible())
        raise error("DET0201", f"unknown name `{name}`", span, f"no {what} of this name{meant}", help=help)
    if not isinstance(found, TemplateRef):
        raise error("DET0301", f"`{name}` is no {what}", span, "it cannot be extended or applied here")
    return found


def levels(ref: TemplateRef) -> list[Level]:
    """The chain from `ref` to its innermost base.

    Raises:
        DetError: DET0201, DET0210 for a declaration that extends itself, DET0403 for another kind.
    """
    decl, module = ref.decl, ref.module
    applied: ast.Applied | None = None
    chain: list[Level] = []
    while True:
        if not isinstance(decl, ast.Template):
            kind = "patch" if isinstance(decl, ast.PatchDecl) else "interface"
            message = f"`{decl.name}` is a {kind}, and cannot be {'extended' if applied else 'built'}"
            place = applied.name_span if applied is not None else decl.name_span
            raise error(
                "DET0301",
                message,
                place,
                "not a component, model, data, train or target",
                secondary=[(decl.name_span, "declared here")] if applied is not None else [],
                help=f"patches come behind `with`: … with {decl.name}"
                if kind == "patch" and applied
                else None,
            )
        if any(level.decl is decl for level in chain):
            names = " -> ".join([*(x.decl.name for x in chain), decl.name])
            raise error(
                "DET0210", f"a declaration extends itself: {names}", decl.name_span, "the cycle starts here"
            )
        if (
            chain
            and decl.kind != chain[0].decl.kind
            and {decl.kind, chain[0].decl.kind} != {"component", "model"}
        ):
            assert applied is not None
            message = f"a {chain[0].decl.kind} cannot extend the {decl.kind} `{decl.name}`"
            raise error("DET0403", message, applied.name_span, f"`{decl.name}` is a {decl.kind}")
        level = Level(decl, module, applied)
        for mixin in decl.mixins:
            patch = resolve_name(mixin.name, module, mixin.name_span, "patch")
            if not isinstance(patch.decl, ast.PatchDecl):
                raise error("DET0301", f"`{mixin.name}` is no patch", mixin.name_span, "`with` wants patches")
            if patch.decl.kind != decl.kind:
                message = f"`{mixin.name}` is a patch for a {patch.decl.kind}, not for a {decl.kind}"
                raise error(
                    "DET0403",
                    message,
                    mixin.name_span,
                    "applied here",
                    secondary=[(patch.decl.name_span, "declared here")],
                )
            level.patches.append(Patch(patch.decl, patch.module, mixin))
        chain.append(level)
        if decl.base is None:
            return chain
        applied = decl.base
        base = resolve_name(applied.name, module, applied.name_span, decl.kind)
        decl, module = base.decl, base.module


def walk(body: tuple[ast.Stmt, ...]) -> Iterator[ast.Stmt]:
    """All statements of a body, also inside repeat, when and phase blocks."""
    for stmt in body:
        yield stmt
        if isinstance(stmt, ast.RepeatStmt):
            yield from walk(stmt.body)
        elif isinstance(stmt, ast.WhenStmt):
            yield from walk(stmt.body)
            yield from walk(stmt.otherwise)
        elif isinstance(stmt, ast.SubBlock) and stmt.kind in ("train", "infer") and stmt.label is None:
            yield from walk(stmt.body)


_ABOUT: dict[int, tuple[ast.Decl, bool, dict[str, ast.NodeStmt]]] = {}


def about(decl: ast.Decl) -> tuple[bool, dict[str, ast.NodeStmt]]:
    """Whether a body holds edits, and its slots; walked once a declaration, since library ones occur often."""
    known = _ABOUT.get(id(decl))
    if known is None or known[0] is not decl:
        edits = any(isinstance(s, ast.EDITS) for s in walk(decl.body))
        edits = edits or any(isinstance(s, ast.SubBlock) and s.kind == "pipeline" for s in decl.body)
        found: dict[str, ast.NodeStmt] = {}
        for stmt in walk(decl.body):
            if isinstance(stmt, ast.NodeStmt) and stmt.type is not None and not stmt.target.indices:
                found.setdefault(stmt.target.name, stmt)
        known = _ABOUT[id(decl)] = (decl, edits, found)
    return known[1], known[2]


def slots(chain: list[Level]) -> dict[str, ast.NodeStmt]:
    """Nodes that a caller may pass by name: those declared with an interface."""
    found: dict[str, ast.NodeStmt] = {}
    for level in chain:
        for name, stmt in about(level.decl)[1].items():
            found.setdefault(name, stmt)
    return found


def phase_of_names(body: tuple[ast.Stmt, ...]) -> dict[str, set[str]]:
    """Wire, input and node names defined in a body, with the phases ("", "train", "infer") of each."""
    found: dict[str, set[str]] = {}

    def visit(stmts: tuple[ast.Stmt, ...], phase: str) -> None:
        for s in stmts:
            names: list[str] = []
            if isinstance(s, ast.WireStmt):
                names = [t.name for t in s.targets]
            elif isinstance(s, (ast.InPort, ast.OutPort, ast.LetStmt)):
                names = [s.name]
            elif isinstance(s, ast.NodeStmt):
                names = [s.target.name]
            elif isinstance(s, ast.StateStmt):  # only inference carries state
                found.setdefault(s.name, set()).add("infer")
            elif isinstance(s, ast.SubBlock) and s.kind in ("train", "infer"):
                visit(s.body, s.kind)
            elif isinstance(s, ast.RepeatStmt):
                visit(s.body, phase)
            elif isinstance(s, ast.WhenStmt):
                visit(s.body, phase)
                visit(s.otherwise, phase)
            for name in names:
                found.setdefault(name, set()).add(phase)

    visit(body, "")
    return found
