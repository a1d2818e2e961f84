"""The scope of statements in a component's body."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from detc.compiler.elaboration.handles import NodeArray, NodeHandle, reach
from detc.compiler.expressions.evaluate import Inputs
from detc.compiler.expressions.template import phase_of_names
from detc.compiler.expressions.thunk import Thunk
from detc.compiler.values import (
    Value,
)
from detc.dsl import ast
from detc.dsl.diagnostics import DetError, Edit, closest, did_you_mean, error
from detc.dsl.source import Origin, Span

if TYPE_CHECKING:
    from detc.compiler.elaboration.frame import Frame


class BodyScope:
    """The scope of statements: loop variables, wires, lets, params, nodes."""

    def __init__(self, frame: Frame, level: int, locals: dict[str, Value | Thunk] | None = None) -> None:
        self.frame, self.level, self.locals = frame, level, locals or {}
        self.module = frame.instance.chain[level].module
        self.via = frame.instance.via
        # a round of a `repeat` has its own; what is not inside of one is read by derived bodies too
        self.lets: dict[str, Value | Thunk] | dict[str, Thunk] = (
            frame.lets[level] if locals is None else self.locals
        )

    def inner(self, name: str, value: Value) -> BodyScope:
        """This scope with a loop variable, and room for `let`s of its own."""
        return BodyScope(self.frame, self.level, {**self.locals, name: value})

    def find(self, name: str, span: Span) -> Value | None:
        """A local name's value."""
        frame = self.frame
        if name in self.locals:
            local = self.locals[name]
            return local if isinstance(local, Value) else local.get()
        slot = frame.names.get(name)
        if slot is not None:
            slot.read = True
            return (
                slot.value
                if slot.value is not None
                else Value(slot.array, Origin(slot.span or span, self.via))
            )
        own, *bases = frame.lets[self.level :]
        if name in own:
            return own[name].get()
        if name in frame.nodes or (frame.unrun and reach(frame, name)):
            frame.ctx.touch(frame.path, name)
            return Value(frame.nodes[name], Origin(span, self.via))
        param = frame.instance.param(name, self.level)
        if param is not None:
            return param
        return next((lets[name].get() for lets in bases if name in lets), None)

    def missing(self, name: str, span: Span) -> DetError:
        """Unknown, defined later, or of the other phase."""
        frame = self.frame
        origin = Origin(span, self.via)
        for level in frame.instance.chain:
            phases = phase_of_names(level.decl.body).get(name)
            if not phases:
                continue
            other = {"train": "infer", "infer": "train"}[frame.ctx.phase]
            if phases == {other}:
                message = f"`{name}` exists only in `{other}`, and this is also needed in `{frame.ctx.phase}`"
                return error("DET0501", message, origin, f"read here, outside of `{other}`", help=_PHASE_HELP)
            place = next((s.span for s in _definitions(level.decl.body, name)), None)
            return error(
                "DET0206",
                f"`{name}` is used before it is defined",
                origin,
                "used here",
                secondary=[(place, "defined here")],
            )
        known = [*self.locals, *frame.names, *frame.nodes, *(n for x in frame.lets for n in x)]
        known += [*frame.instance.param_names(self.level), *self.module.visible()]
        near = closest(name, known)
        label = "not defined in this component" + did_you_mean(name, known)
        return error(
            "DET0201", f"unknown name `{name}`", origin, label, fix=Edit(span, near) if near else None
        )

    def apply(self, callee: Value, inputs: Inputs, span: Span) -> Value:
        """`inputs -> callee`."""
        return self.frame.apply(callee, inputs, span, self.via)

    def member(self, value: Value, name: str, span: Span) -> Value | None:
        """Attributes of nodes and data, calls of nodes, inputs of tests."""
        data = value.data
        if isinstance(data, NodeHandle):
            if name == "()":
                message = f"`{data.path}` is a node: apply it with an arrow"
                raise error("DET0312", message, Origin(span, self.via), "write x -> " + data.name)
            return data.member(name, Origin(span, self.via), self.frame)
        if isinstance(data, NodeArray) and name != "()":
            raise error(
                "DET0211",
                f"`{data.name}` is an array of nodes",
                Origin(span, self.via),
                f"write {data.name}[…].{name}",
            )
        return self.frame.ctx.member(value, name, self.frame, span)


_PHASE_HELP = "a wire of one phase can be read only there; define it in both blocks, or outside of them"


def _definitions(body: Sequence[ast.Stmt], name: str) -> list[ast.Stmt]:
    from detc.compiler.expressions.template import walk

    found: list[ast.Stmt] = []
    for s in walk(tuple(body)):
        if (
            (isinstance(s, ast.WireStmt) and any(t.name == name for t in s.targets))
            or (isinstance(s, (ast.LetStmt, ast.InPort, ast.OutPort, ast.StateStmt)) and s.name == name)
            or (isinstance(s, ast.NodeStmt) and s.target.name == name)
        ):
            found.append(s)
    return found
