"""Pipelines of a data declaration: named steps, `choice` and `fan` blocks, and the edits that reach them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from detc.compiler.elaboration.edits import Active, Edits, activate
from detc.compiler.elaboration.elaborate import Elaborator
from detc.compiler.experiments.fields import Block, Body, primitive
from detc.compiler.expressions.evaluate import evaluate
from detc.compiler.spec import ChoiceBlock, FanBlock, NamedStep, Step
from detc.compiler.values import Poisoned, raw, show
from detc.dsl import ast
from detc.dsl.diagnostics import DetError, did_you_mean, error
from detc.dsl.source import Origin

BLOCKS = ("choice", "fan")


@dataclass(eq=False)
class _Pending:
    """A step as written, or a block (`kind` "choice" or "fan") of named branches."""

    name: str
    value: ast.Expr | None
    scope: Any
    origin: Origin
    edits: Edits
    kind: str = ""
    branches: dict[str, list[_Pending]] | None = None
    weights: ast.Expr | None = None

    def copy(self) -> _Pending:
        """An independent one, for a derived pipeline."""
        inner = {k: [p.copy() for p in v] for k, v in self.branches.items()} if self.branches else None
        edits = Edits(list(self.edits.items))
        return _Pending(self.name, self.value, self.scope, self.origin, edits, self.kind, inner, self.weights)


def pipelines(body: Body) -> dict[str, tuple[NamedStep, ...]]:
    """The pipelines of a data declaration, by name, after all edits."""
    ctx = body.ctx
    pending: dict[str, list[_Pending]] = {}
    derived: list[Block] = []
    claims: list[tuple[Active, list[str]]] = []
    for block in (b for b in body.blocks if b.stmt.kind == "pipeline"):
        stmt = block.stmt
        name = str(stmt.label) if stmt.label is not None else "train"
        edits = [s for s in stmt.body if isinstance(s, ast.EDITS)]
        if stmt.base is not None:
            derived.append(block)
            continue
        steps = _steps_of(ctx, [s for s in stmt.body if s not in edits], block, "a pipeline")
        if steps and edits:
            ctx.report.add(
                *error(
                    "DET0706",
                    "a pipeline block either lists steps or edits them",
                    edits[0].span,
                    "an edit among steps",
                ).diagnostics
            )
        if edits and not steps:
            if name not in pending:
                label = "no such pipeline" + did_you_mean(name, pending)
                ctx.report.add(
                    *error("DET0407", f"there is no pipeline `{name}` to edit", stmt.span, label).diagnostics
                )
                for a in body.instance.edits.into("pipeline")[1].into(name)[1].items:
                    a.claim.excused = True
            continue
        pending[name] = steps
        derived = [d for d in derived if str(d.stmt.label) != name]  # what is written later counts
    for name, items in pending.items():
        here = body.instance.edits.into("pipeline")[1].into(name)[1]
        _know(ctx, f"pipeline.{name}", items)
        pending[name] = _edit_steps(ctx, items, here.items)
    for block in derived:
        stmt = block.stmt
        assert stmt.base is not None
        if stmt.base.name not in pending:
            label = "no such pipeline" + did_you_mean(stmt.base.name, pending)
            ctx.report.add(
                *error(
                    "DET0407", f"there is no pipeline `{stmt.base.name}`", stmt.base.span, label
                ).diagnostics
            )
            continue
        layer = ctx.next_layer()
        edits = [s for s in stmt.body if isinstance(s, ast.EDITS)]
        actives = [activate(s, block.scope, layer, "<body>") for s in edits]
        outer = body.instance.edits.into("pipeline")[1].into(str(stmt.label))[1].items
        base = [p.copy() for p in pending[stmt.base.name]]
        base += _steps_of(ctx, [s for s in stmt.body if s not in edits], block, "a pipeline")
        pending[str(stmt.label)] = _edit_steps(ctx, base, [*actives, *outer])
        claims += [(a, [p.name for p in base]) for a in actives]
    built = {name: _build(ctx, f"pipeline.{name}", items) for name, items in pending.items()}
    for a, names in claims:  # edits of a step's fields arrive when the step is built
        if not a.claim.hits:
            label = "no such step" + did_you_mean(a.path[0].name, names)
            ctx.report.add(
                *error(
                    "DET0407", f"`{a.claim.kind} {a.claim.text}` names no step", a.origin, label
                ).diagnostics
            )
    return built


def _know(ctx: Elaborator, path: str, items: list[_Pending]) -> None:
    for p in items:
        ctx.know(f"{path}.{p.name}")
        for branch, steps in (p.branches or {}).items():
            _know(ctx, f"{path}.{p.name}.{branch}", steps)


def _steps_of(ctx: Elaborator, stmts: list[ast.Stmt], block: Block, what: str) -> list[_Pending]:
    """The steps and blocks that are written; anything else, and a name that is there twice, is reported."""
    items: list[_Pending] = []
    for s in stmts:
        found: _Pending | None = None
        origin = Origin(s.span, block.scope.via)
        if isinstance(s, ast.StepStmt):
            found = _Pending(s.name, s.value, block.scope, origin, Edits())
        elif isinstance(s, ast.SubBlock) and s.kind in BLOCKS and s.base is None:
            found = _block(ctx, s, block, origin)
        else:
            label = "not a step"
            if isinstance(s, ast.SubBlock):
                label = "no such block" + did_you_mean(s.kind, BLOCKS)
            ctx.report.add(
                *error(
                    "DET0706",
                    f"{what} holds steps (name: Step(…)), `choice` and `fan` blocks",
                    s.span,
                    label,
                ).diagnostics
            )
        if found is None:
            continue
        if any(p.name == found.name for p in items):
            ctx.report.add(
                *error(
                    "DET0205", f"the step `{found.name}` is there twice", s.span, "named again here"
                ).diagnostics
            )
        items.append(found)
    return items


def _block(ctx: Elaborator, stmt: ast.SubBlock, block: Block, origin: Origin) -> _Pending:
    """`choice scale { small: Step(…)  large { … } }`, `fan views { weak { … }  strong { … } }`."""
    kind = stmt.kind
    name = str(stmt.label) if stmt.label is not None else kind
    branches: dict[str, list[_Pending]] = {}
    weights: ast.Expr | None = None
    for s in stmt.body:
        if isinstance(s, ast.StepStmt):
            branch, inner = s.name, [_Pending(s.name, s.value, block.scope, Origin(s.span), Edits())]
        elif isinstance(s, ast.SubBlock) and s.label is None and s.base is None and s.kind not in BLOCKS:
            branch, inner = s.kind, _steps_of(ctx, list(s.body), block, f"a branch of `{kind}`")
        elif kind == "choice" and isinstance(s, ast.WireStmt) and s.targets[0].name == "weights":
            weights = s.value
            continue
        else:
            message = f"a `{kind}` holds branches: name: Step(…), or name {{ steps }}"
            ctx.report.add(*error("DET0706", message, s.span, "not a branch").diagnostics)
            continue
        if branch in branches:
            message = f"the branch `{branch}` is there twice"
            ctx.report.add(*error("DET0205", message, s.span, "named again here").diagnostics)
        branches[branch] = inner
    return _Pending(name, None, block.scope, origin, Edits(), kind, branches, weights)


def _edit_steps(ctx: Elaborator, items: list[_Pending], edits: list[Active]) -> list[_Pending]:
    """Apply insert, remove, replace and set, found by step name; in blocks by branch and step name."""
    result = list(items)
    for e in sorted(edits, key=lambda e: e.layer):
        if not e.path:
            continue
        name = e.path[0].name
        at = next((i for i, p in enumerate(result) if p.name == name), None)
        if at is None:
            if any(p.name == name for p in items):
                e.claim.hits += 1
                message = f"`{e.claim.kind}` edits the step `{name}` that another edit removes"
                ctx.report.add(*error("DET0402", message, e.origin, "the step is gone here").diagnostics)
            continue
        step = result[at]
        if len(e.path) > 1 and step.branches is not None:
            result[at] = _edit_block(ctx, step, e)
            continue
        if len(e.path) > 1:
            result[at] = step.copy()
            result[at].edits.items.append(e.enter())
            continue
        e.claim.hits += 1
        if isinstance(e.stmt, ast.RemoveStmt):
            result.pop(at)
            for i in range(at, len(result)):  # what they lack from now on is the edit's doing
                result[i] = result[i].copy()
                result[i].origin = replace(result[i].origin, because=replace(e.origin, edited=True))
        elif isinstance(e.stmt, ast.ReplaceStmt):
            result[at] = _Pending(name, e.stmt.value, e.scope, e.origin, Edits())
        elif isinstance(e.stmt, ast.InsertStmt):
            new = _Pending(e.stmt.step.name, e.stmt.step.value, e.scope, e.origin, Edits())
            if any(p.name == new.name for p in result):
                ctx.report.add(
                    *error(
                        "DET0205", f"the step `{new.name}` is there already", e.origin, "inserted here"
                    ).diagnostics
                )
            result.insert(at + (e.stmt.where == "after"), new)
        else:
            ctx.report.add(
                *error(
                    "DET0406", f"`{name}` is a step: set one of its fields", e.origin, f"write {name}.…"
                ).diagnostics
            )
    return result


def _edit_block(ctx: Elaborator, step: _Pending, e: Active) -> _Pending:
    """An edit of something inside a block: `set views.strong.flip.p = …`, `remove scale.small`."""
    changed = step.copy()
    assert changed.branches is not None
    branch = e.path[1].name
    inner = changed.branches.get(branch)
    if inner is None:
        return step  # the claim counts no hit, and is reported
    rest = e.enter().enter()
    if rest.path and any(p.name == rest.path[0].name for p in inner):
        changed.branches[branch] = _edit_steps(ctx, inner, [rest])
    elif rest.path and len(inner) == 1 and inner[0].name == branch:  # `small: Step(…)` is its own branch
        changed.branches[branch] = _edit_steps(ctx, inner, [e.enter()])
    elif not rest.path and isinstance(e.stmt, ast.RemoveStmt):
        e.claim.hits += 1
        del changed.branches[branch]
    elif not rest.path and isinstance(e.stmt, ast.ReplaceStmt):
        e.claim.hits += 1
        changed.branches[branch] = [_Pending(branch, e.stmt.value, e.scope, e.origin, Edits())]
    elif not rest.path:
        e.claim.hits += 1
        message = f"`{branch}` is a branch of `{step.name}`: edit a step in it, or remove or replace it"
        ctx.report.add(*error("DET0406", message, e.origin, f"write {step.name}.{branch}.…").diagnostics)
    return changed


def _build(ctx: Elaborator, path: str, items: list[_Pending]) -> tuple[NamedStep, ...]:
    built = []
    for p in items:
        try:
            if p.branches is not None:
                built.append(NamedStep(p.name, _build_block(ctx, f"{path}.{p.name}", p), p.origin))
                continue
            assert p.value is not None
            value = evaluate(p.value, p.scope)
            what = f"the step `{p.name}`: a data step"
            step = primitive(value, Step, ctx, f"{path}.{p.name}", p.edits, what)
            built.append(NamedStep(p.name, step, p.origin))
        except DetError as problem:
            ctx.report.add(*problem.diagnostics)
        except Poisoned:
            continue  # what it reads has been reported
    return tuple(built)


def _build_block(ctx: Elaborator, path: str, p: _Pending) -> ChoiceBlock | FanBlock:
    assert p.branches is not None
    branches = {name: _build(ctx, f"{path}.{name}", steps) for name, steps in p.branches.items()}
    if p.kind == "fan":
        if not branches:
            raise error("DET0608", f"the fan `{p.name}` has no view", p.origin, "write weak { … }")
        return FanBlock(branches)
    if len(branches) < 2:
        there = "one branch" if branches else "no branch"
        raise error("DET0608", f"the choice `{p.name}` has {there}", p.origin, "nothing to choose from")
    weights: tuple[float, ...] | None = None
    if p.weights is not None:
        value = evaluate(p.weights, p.scope)
        numbers = raw(value)
        good = isinstance(numbers, list) and all(
            isinstance(w, (int, float)) and not isinstance(w, bool) and w >= 0 for w in numbers
        )
        if not good or len(numbers) != len(branches) or sum(numbers) <= 0:
            message = f"the choice `{p.name}` has {len(branches)} branches and wants as many weights"
            raise error("DET0608", message, value.origin, show(value))
        weights = tuple(float(w) for w in numbers)
    return ChoiceBlock(branches, weights)
