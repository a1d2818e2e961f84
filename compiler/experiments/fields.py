"""Bodies of `data`, `train`, `target` and `run`: fields, record blocks, named things that they hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from detc.compiler.elaboration.build_op import build_primitive
from detc.compiler.elaboration.edits import Edits, edit_path, new_value, settle
from detc.compiler.elaboration.elaborate import Elaborator
from detc.compiler.elaboration.params import Instance, ParamScope
from detc.compiler.expressions.evaluate import Scope, evaluate, origin_of, truth
from detc.compiler.expressions.messages import unmet
from detc.compiler.expressions.thunk import Thunk
from detc.compiler.primitives import Primitive
from detc.compiler.spec import Step
from detc.compiler.values import Construct, PrimitiveRef, Value, a_kind, show
from detc.dsl import ast
from detc.dsl.diagnostics import DetError, did_you_mean, error
from detc.dsl.source import Origin, Span


class FieldScope(ParamScope):
    """The scope of a field: a param comes before a field of its name, so that `batch = batch` means the param."""

    def find(self, name: str, span: Span) -> Value | None:
        """A param of this level or of a base, then a field."""
        found = self.owner.param(name, self.level)
        return found if found is not None else super().find(name, span)


@dataclass(eq=False)
class Block:
    """A labelled or special sub-block with the scope that it is written in."""

    stmt: ast.SubBlock
    scope: ParamScope


class Body:
    """The resolved fields of one `data`, `train` or `target` instance."""

    def __init__(
        self, instance: Instance, records: tuple[str, ...] = (), blocks: tuple[str, ...] = ()
    ) -> None:
        self.instance, self.ctx = instance, instance.ctx
        self.fields: dict[str, Thunk] = {}
        self.blocks: list[Block] = []
        self.at: list[tuple[ast.AtStmt, ParamScope]] = []
        self._records, self._block_kinds = records, blocks
        for depth in reversed(range(len(instance.chain))):
            scope = FieldScope(instance, depth, self.fields)
            self._read(instance.chain[depth].decl.body, scope)
            for patch in instance.chain[depth].patches:
                self._read(patch.decl.body, scope)

    def _read(self, body: tuple[ast.Stmt, ...], scope: ParamScope) -> None:
        for stmt in body:
            try:
                self._statement(stmt, scope)
            except DetError as problem:
                self.ctx.report.add(*problem.diagnostics)

    def _statement(self, stmt: ast.Stmt, scope: ParamScope) -> None:
        kind = self.instance.chain[0].decl.kind
        match stmt:
            case ast.WireStmt():
                for target in stmt.targets:
                    self._field(target.name, stmt.value, scope, target.span)
            case ast.LetStmt():
                self._field(stmt.name, stmt.value, scope, stmt.span)
            case ast.WhenStmt():
                self._read(
                    stmt.body
                    if truth(evaluate(stmt.condition, scope), origin_of(stmt.condition, scope))
                    else stmt.otherwise,
                    scope,
                )
            case ast.WhereStmt():
                found = unmet(stmt, scope, self.instance.construct.origin)
                if found is not None:
                    raise found
            case ast.AtStmt():
                self.at.append((stmt, scope))
            case ast.SubBlock() if stmt.kind in self._block_kinds:
                self.blocks.append(Block(stmt, scope))
            case ast.SubBlock() if stmt.label is None and (not self._records or stmt.kind in self._records):
                self._record(stmt, scope)
            case ast.SubBlock():
                legal = [*self._block_kinds, *self._records]
                message = f"a `{stmt.kind}` block does not belong into a {kind} declaration"
                raise error("DET0706", message, stmt.span, "not legal here" + did_you_mean(stmt.kind, legal))
            case _ if isinstance(stmt, ast.EDITS):
                pass
            case _:
                word = type(stmt).__name__.removesuffix("Stmt").lower()
                raise error(
                    "DET0706",
                    f"`{word}` does not belong into a {kind} declaration",
                    stmt.span,
                    "not legal here",
                )

    def _field(self, name: str, expr: ast.Expr, scope: ParamScope, span: Any) -> None:
        if name in self.fields:
            raise error(
                "DET0307",
                f"`{name}` is given twice",
                span,
                "given again here",
                secondary=[(self.fields[name].span, "first given here")],
                help=f"to change what a base says, write: set {name} = …",
            )
        self.fields[name] = self._thunk((name,), expr, scope, span)

    def _thunk(self, path: tuple[str, ...], expr: ast.Expr, scope: Scope, span: Any) -> Thunk:
        text = ".".join(path)
        self.ctx.know(text)

        def compute() -> Value:
            here = self.instance.edits
            for part in path[:-1]:
                here = here.into(part)[1]
            edit = settle(here.of_field(path[-1]), text, self.ctx.report)
            if edit is not None and isinstance(edit.stmt, ast.SetStmt):
                new = new_value(edit)
                value = Value(new.data, new.origin, None)
            else:
                value = evaluate(expr, scope)
            if isinstance(value.data, dict) and isinstance(expr, ast.RecordExpr):
                value = self._edit_record(path, value)
            self.ctx.decide(text, value)
            return value

        return Thunk(text, compute, span, self.ctx.report)

    def _edit_record(self, path: tuple[str, ...], value: Value) -> Value:
        """`set validate.every = …`: edits of the entries of a record."""
        here = self.instance.edits
        for part in path:
            here = here.into(part)[1]
        entries = dict(value.data)
        for key in entries:
            text = ".".join((*path, key))
            self.ctx.know(text)
            edit = settle(here.of_field(key), text, self.ctx.report)
            if edit is not None and isinstance(edit.stmt, ast.SetStmt):
                new = new_value(edit)
                entries[key] = Value(new.data, new.origin, entries[key])
        return Value(entries, value.origin, value.was)

    def _record(self, stmt: ast.SubBlock, scope: ParamScope) -> None:
        name = stmt.kind
        before = self.fields.get(name)
        thunks: dict[str, Thunk] = {}
        for s in stmt.body:
            if isinstance(s, ast.WireStmt):
                for t in s.targets:
                    thunks[t.name] = self._thunk((name, t.name), s.value, scope, t.span)
            elif isinstance(s, ast.StepStmt):
                thunks[s.name] = self._thunk((name, s.name), s.value, scope, s.span)
            elif not isinstance(s, ast.EDITS):
                raise error("DET0706", f"a `{name}` block holds fields: name = value", s.span, "not a field")

        def compute() -> Value:
            old: Mapping[str, Value] = before.get().data if before is not None else {}
            kept = {k: t for k, t in thunks.items() if not self._removed(name, k)}
            return Value({**old, **{k: t.get() for k, t in kept.items()}}, Origin(stmt.span, scope.via))

        self.fields[name] = Thunk(name, compute, stmt.span, self.ctx.report)

    def _removed(self, record: str, name: str) -> bool:
        """Whether `remove record.name` says so."""
        own, _ = self.instance.edits.into(record)[1].into(name)
        edit = settle(own, f"{record}.{name}", self.ctx.report)
        return edit is not None and isinstance(edit.stmt, ast.RemoveStmt)

    def value(self, name: str) -> Value | None:
        """A field's value, or None if it is not given."""
        return self.fields[name].get() if name in self.fields else None

    def check_read(self, known: tuple[str, ...], kind: str) -> None:
        """Report fields that neither the kind knows nor anything has asked for (DET0704)."""
        self.check_known((*known, *(name for name, thunk in self.fields.items() if thunk.asked)), kind)

    def adopt(self, known: Iterable[str]) -> None:
        """Take fields that only an edit states: `set amp = true` where no body says anything of `amp`."""
        names = set(known) - self.fields.keys()
        for name in names:
            self.ctx.know(name)
        for edit in self.instance.edits.items:
            name = edit.last.name if edit.last is not None and edit.last.select is None else ""
            if name in names and isinstance(edit.stmt, ast.SetStmt):
                self.fields.setdefault(
                    name, self._thunk((name,), edit.stmt.value, edit.scope, edit_path(edit.stmt).span)
                )

    def check_known(self, known: tuple[str, ...], kind: str) -> None:
        """Report fields that a declaration of this kind does not have (DET0704)."""
        for name, thunk in self.fields.items():
            if name not in known:
                self.ctx.report.add(
                    *error(
                        "DET0704",
                        f"a {kind} declaration has no field `{name}`",
                        thunk.span,
                        "unknown field" + did_you_mean(name, known),
                        help=f"it may have: {', '.join(sorted(set(known)))}",
                    ).diagnostics
                )


def primitive(value: Value, base: type, ctx: Elaborator, path: str, edits: Edits, what: str) -> Any:
    """Build the primitive that `value` describes.

    Raises:
        DetError: DET0301 if it is no such thing.
    """
    data = value.data
    if isinstance(data, PrimitiveRef):
        data = Construct(data, (), value.origin)
    if (
        not isinstance(data, Construct)
        or not isinstance(data.target, PrimitiveRef)
        or not issubclass(data.target.cls, base)
    ):
        shown = f"`{data.name}`" if isinstance(data, Construct) else f"{a_kind(value)}"
        raise error(
            "DET0601" if base is Step else "DET0301",
            f"{what} is wanted here, not {shown}",
            value.origin,
            show(value),
        )
    return build_primitive(data, ctx, path, edits)


__all__ = ["Block", "Body", "Primitive", "primitive"]
