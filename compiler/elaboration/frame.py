"""Running a component's body once, for one phase and one set of inputs: statements become graph nodes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from detc.compiler.elaboration import apply, collected, state
from detc.compiler.elaboration.edits import Active, Edits
from detc.compiler.elaboration.handles import NodeArray, NodeHandle, make_handle
from detc.compiler.elaboration.inputs import Slot, bind_inputs
from detc.compiler.elaboration.params import Instance, ParamScope
from detc.compiler.elaboration.scope import BodyScope
from detc.compiler.elaboration.shadow import make_shadow
from detc.compiler.expressions import arith
from detc.compiler.expressions.clashes import again, taken_twice
from detc.compiler.expressions.evaluate import Inputs, Scope, evaluate, iterate, origin_of, truth
from detc.compiler.expressions.messages import unmet
from detc.compiler.expressions.template import phase_of_names
from detc.compiler.expressions.thunk import Thunk
from detc.compiler.expressions.typecheck import check_port, type_text
from detc.compiler.expressions.unused import unused_nodes
from detc.compiler.values import (
    POISON,
    Abandoned,
    Bundle,
    Poisoned,
    Value,
    Wire,
    WireArray,
    a_kind,
    elements,
    wires_of,
)
from detc.dsl import ast
from detc.dsl.diagnostics import DetError, did_you_mean, error
from detc.dsl.source import Origin, Span

if TYPE_CHECKING:
    from detc.compiler.elaboration.elaborate import Elaborator

PHASES = ("train", "infer")


class Frame:
    """One application of a component instance."""

    def __init__(self, instance: Instance, caller: Frame | None, call: Origin) -> None:
        self.instance, self.caller, self.call = instance, caller, call
        self.ctx: Elaborator = instance.ctx
        self.path = instance.path
        self.names: dict[str, Slot] = {}
        self.lets: list[dict[str, Thunk]] = [{} for _ in instance.chain]
        self.nodes: dict[str, NodeHandle | NodeArray] = {}
        self.outputs: dict[str, Value] = {}
        self.unrun = False  # made to reach nodes inside, not to run
        self.reaching: set[str] = set()
        self.carried = state.Carried()
        self.output_levels: dict[str, int] = {}
        self.scopes = [BodyScope(self, depth) for depth in range(len(instance.chain))]

    # --- running ---

    def run(self, inputs: Inputs) -> Value:
        """Run the body on `inputs`; return the output, or a bundle of several.

        Raises:
            DetError: for what abandons the whole application (inputs that do not bind).
        """
        try:
            return self._run(inputs)
        except Abandoned:
            raise Poisoned from None  # of the caller only what needs this

    def _run(self, inputs: Inputs) -> Value:
        bind_inputs(self, inputs)
        self._poison_clashes()
        for depth in reversed(range(len(self.instance.chain))):
            self._execute(self.instance.chain[depth].decl.body, self.scopes[depth], "")
        self.instance.check_params()
        unused_nodes(self)
        state.complete(self)
        if not self.outputs:
            return Value(POISON if self.ctx.report.errors else Bundle(self.instance.name, {}), self.call)
        if len(self.outputs) == 1:
            return next(iter(self.outputs.values()))
        return Value(Bundle(self.instance.name, dict(self.outputs)), self.call)

    def _poison_clashes(self) -> None:
        """Names that stand for two things are reported once, and stand for nothing after that."""
        reports, names = taken_twice(self.instance.chain)
        for found in reports:
            self.ctx.report.add(*found.diagnostics)
        for name in names:
            place = self.instance.chain[0].decl.name_span
            self.names[name] = Slot(Value(POISON, Origin(place)), span=place, read=True)

    def _execute(self, body: Sequence[ast.Stmt], scope: Any, phase: str) -> None:
        self.declare_lets(body, scope)
        for stmt in body:
            try:
                self._statement(stmt, scope, phase)
            except DetError as problem:
                self.ctx.report.add(*problem.diagnostics)
                self._poison(stmt, scope)
            except Abandoned:
                raise
            except Poisoned:
                self.ctx.excuse()  # what an error keeps from running may hold what an edit names
                self._poison(stmt, scope)

    def _statement(self, stmt: ast.Stmt, scope: Any, phase: str) -> None:
        match stmt:
            case ast.WireStmt():
                self._wire(stmt, scope)
            case ast.NodeStmt():
                self._node(stmt, scope)
            case ast.RepeatStmt():
                for item in iterate(evaluate(stmt.iterable, scope), origin_of(stmt.iterable, scope)):
                    self._execute(stmt.body, scope.inner(stmt.name, item), phase)
            case ast.WhenStmt():
                chosen = (
                    stmt.body
                    if truth(evaluate(stmt.condition, scope), origin_of(stmt.condition, scope))
                    else stmt.otherwise
                )
                self._execute(chosen, scope, phase)
            case ast.WhereStmt():
                self._where(stmt, scope)
            case ast.SubBlock() if stmt.kind in PHASES and stmt.label is None:
                if phase and stmt.kind != phase:
                    raise error(
                        "DET0501", f"an `{stmt.kind}` block inside `{phase}`", stmt.span, "phases do not nest"
                    )
                if stmt.kind == self.ctx.phase:
                    self._execute(stmt.body, scope, stmt.kind)
            case ast.SubBlock():
                message = f"a `{stmt.kind}` block does not belong into a component"
                raise error("DET0706", message, stmt.span, "not legal here" + did_you_mean(stmt.kind, PHASES))
            case ast.LossStmt():
                collected.declare(self, stmt, scope, phase)
            case ast.OutPort():
                self._output(stmt, scope)
            case ast.StateStmt():
                state.declare(self, stmt, scope, phase)
            case ast.NextStmt():
                state.become(self, stmt, scope, phase)
            case ast.InPort() | ast.LetStmt():
                pass
            case _ if isinstance(stmt, ast.EDITS):
                pass
            case _:
                message = f"a `{_word(stmt)}` statement does not belong into a component"
                raise error("DET0706", message, stmt.span, "not legal here")

    def execute(self, stmt: ast.Stmt, scope: Scope) -> None:
        """Run one statement by itself (a node that is reached from outside).

        Raises:
            DetError: what is wrong with it.
        """
        self._statement(stmt, scope, "")

    def _poison(self, stmt: ast.Stmt, scope: Any) -> None:
        """After a failure: what the statement would have defined is an error value."""
        bad = Value(POISON, Origin(stmt.span, scope.via))
        targets: list[ast.Target] = []
        if isinstance(stmt, ast.WireStmt):
            targets = list(stmt.targets)
        elif isinstance(stmt, ast.NodeStmt):
            targets = [stmt.target]
        elif isinstance(stmt, ast.OutPort):
            self.outputs[stmt.name] = bad
            self.output_levels[stmt.name] = scope.level
            self.names.setdefault(stmt.name, Slot(bad, span=stmt.span, read=True))
        elif isinstance(stmt, ast.StateStmt):
            self.names.setdefault(stmt.name, Slot(bad, span=stmt.span, read=True))
        elif isinstance(stmt, ast.NextStmt):
            self.carried.nexts.setdefault(stmt.name, bad.origin)
        elif isinstance(stmt, (ast.RepeatStmt, ast.WhenStmt)):
            for name in phase_of_names((stmt,)):
                begun = self.names.setdefault(name, Slot(bad, span=stmt.span, read=True))
                if begun.array is not None:  # `h[0] = x` above: its other elements are what is lacking
                    begun.array.broken = True
            self.ctx.excuse()
        for target in targets:
            slot = self.names.get(target.name)
            if slot is not None and slot.array is not None:
                slot.array.broken = True
            elif slot is None and target.indices and isinstance(stmt, ast.WireStmt):
                self.names[target.name] = Slot(
                    array=WireArray(target.name, broken=True), span=target.span, read=True
                )
            elif slot is None:
                self.names[target.name] = Slot(bad, span=target.span, read=True)
            if isinstance(stmt, ast.NodeStmt):
                self.names[target.name] = Slot(bad, span=target.span, read=True)
                self.ctx.excuse()

    # --- statements ---

    def index(self, target: ast.Target, scope: Scope) -> tuple[int, ...]:
        return tuple(arith.whole(evaluate(i, scope), "an index") for i in target.indices)

    def define(self, target: ast.Target, value: Value, scope: Scope) -> None:
        """Assign a wire once.

        Raises:
            DetError: DET0307 if it is assigned already.
        """
        name, index = target.name, self.index(target, scope)
        slot = self.names.get(name)
        if slot is None:
            slot = self.names[name] = Slot(span=target.span)
        if slot.value is not None and slot.value.data is POISON:
            return
        before = slot.places.get(index) if index else (slot.span if slot.value is not None else None)
        clash = (index and slot.value is not None) or (not index and slot.array is not None)
        if before is not None or clash:
            shown = name + (f"[{', '.join(map(str, index))}]" if index else "")
            first = before or slot.span
            raise again(target, f"`{shown}`", "assigned", first, scope.via, state.assigned_help(self, name))
        if not index:
            slot.value, slot.span = value, target.span
            return
        if slot.array is None:
            slot.array = WireArray(name)
        slot.array.items[index] = value
        slot.places[index] = target.span

    def _wire(self, stmt: ast.WireStmt, scope: Scope) -> None:
        value = evaluate(stmt.value, scope)
        if len(stmt.targets) == 1:
            self.define(stmt.targets[0], value, scope)
            return
        parts = _unpack(value)
        if parts is None or len(parts) != len(stmt.targets):
            found = "one value" if parts is None else f"{len(parts)} values"
            raise error(
                "DET0309",
                f"{len(stmt.targets)} names on the left, and {found} on the right",
                origin_of(stmt.value, scope),
                f"this is {a_kind(value)}",
            )
        for target, part in zip(stmt.targets, parts, strict=True):
            self.define(target, part, scope)

    def declare_lets(self, body: Sequence[ast.Stmt], scope: Any) -> None:
        """Make the `let`s of a block known before its statements run: values have no order."""
        for stmt in body:
            if isinstance(stmt, ast.LetStmt):
                compute = partial(evaluate, stmt.value, scope)
                scope.lets[stmt.name] = Thunk(stmt.name, compute, stmt.span, self.ctx.report)

    def _where(self, stmt: ast.WhereStmt, scope: Scope) -> None:
        found = unmet(stmt, scope, self.instance.construct.origin)
        if found is None:
            return
        self.ctx.report.add(*found.diagnostics)
        self.ctx.excuse()
        raise Abandoned

    def _node(self, stmt: ast.NodeStmt, scope: Scope) -> None:
        name, index = stmt.target.name, self.index(stmt.target, scope)
        array = self.nodes.get(name)
        slot = self.names.get(name)
        if slot is not None and slot.value is not None and slot.value.data is POISON:
            return  # another element has failed, and that is reported
        if index and array is None:
            array = self.nodes[name] = NodeArray(name, {})
        if name in self.names or (not index and array is not None) or isinstance(array, NodeHandle):
            before = array.origin if array is not None else None
            first = slot.span if slot is not None else before.span if before is not None else None
            raise again(stmt.target, f"the node `{name}`", "declared", first, scope.via)
        if isinstance(array, NodeArray) and index in array.items:
            shown = f"{name}[{', '.join(map(str, index))}]"
            first = array.items[index].origin.span
            raise again(stmt.target, f"the node `{shown}`", "declared", first, scope.via)
        make = make_shadow if stmt.role == "shadow" else make_handle
        handle = make(self, stmt, name, index, scope)
        if isinstance(array, NodeArray):
            array.items[index] = handle
        else:
            self.nodes[name] = handle

    def _output(self, stmt: ast.OutPort, scope: Any) -> None:
        origin = Origin(stmt.span, scope.via)
        # A derived body may say anew what leaves; the base's value is what it reads under that name.
        anew = self.output_levels.get(stmt.name, scope.level) > scope.level
        if stmt.value is not None:
            value = evaluate(stmt.value, scope)
            if anew or scope.find(stmt.name, stmt.span) is None:  # else it is what leaves, and nothing else
                self.names[stmt.name] = Slot(value, span=stmt.span, read=True)
        else:
            found = scope.find(stmt.name, stmt.span)
            if found is None:
                raise error(
                    "DET0315",
                    f"the output `{stmt.name}` has no value",
                    origin,
                    f"no wire `{stmt.name}` is defined before this" + did_you_mean(stmt.name, self.names),
                )
            value = found
        if stmt.name in self.outputs and not anew:
            raise error(
                "DET0307", f"the output `{stmt.name}` is assigned twice", origin, "assigned again here"
            )
        if stmt.type is not None and value.data is not POISON:
            try:
                value = check_port(value, stmt.type, stmt.name, self.instance.name, origin, stmt.span)
            except DetError as problem:
                d = problem.diagnostics[0]
                message = (
                    f"the output `{stmt.name}` is declared as {type_text(stmt.type)} and is {a_kind(value)}"
                )
                raise error(
                    d.code, message, origin, "declared here", secondary=[(value.origin, "computed here")]
                ) from None
        self.outputs[stmt.name] = value
        self.output_levels[stmt.name] = scope.level

    # --- applying ---

    def apply(self, callee: Value, inputs: Inputs, span: Span, via: tuple[Span, ...]) -> Value:
        """`inputs -> callee` in this frame."""
        return apply.apply(self, callee, inputs, Origin(span, via))


def _unpack(value: Value) -> list[Value] | None:
    from detc.compiler.types import Struct

    if isinstance(value.data, Bundle):
        return list(value.data.fields.values())
    if isinstance(value.data, Wire) and isinstance(value.data.type, Struct):
        return [Value(value.data.part(n, t), value.origin) for n, t in value.data.type.fields]
    return elements(value)


def _word(stmt: ast.Stmt) -> str:
    words = {"StepStmt": "name:", "AtStmt": "at", "ExpectStmt": "expect"}
    return words.get(type(stmt).__name__, type(stmt).__name__)


__all__ = ["BodyScope", "Edits", "Active", "Frame", "ParamScope", "wires_of"]
