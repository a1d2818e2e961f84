"""State that a model carries from frame to frame: `state tracks: tracks[cap = 256] = NoTracks()`, `next tracks = …`.

A state belongs to inference. Reading its name gives the value of the frame before; `next` says what it becomes.
In the graph it is an input `state.<name>` and an entry of `nexts`, so the graph stays a pure function.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from detc.compiler.elaboration.build_op import build_primitive, field_names
from detc.compiler.elaboration.edits import settle
from detc.compiler.elaboration.inputs import Slot
from detc.compiler.expressions.evaluate import Scope, evaluate
from detc.compiler.expressions.typecheck import type_text
from detc.compiler.graph import State
from detc.compiler.ops.base import Op
from detc.compiler.types import Struct, Tensor, Type
from detc.compiler.values import BoundArg, Construct, PrimitiveRef, Value, Wire, a_kind, kind_of, raw, show
from detc.dsl import ast
from detc.dsl.diagnostics import did_you_mean, error
from detc.dsl.source import Origin

if TYPE_CHECKING:
    from detc.compiler.elaboration.frame import Frame

INPUT = "state"  # graph inputs are called state.<name>


@dataclass(eq=False)
class Carried:
    """The states of one frame: the name of each in the graph, and which have their `next`."""

    names: dict[str, State] = field(default_factory=dict)
    places: dict[str, Origin] = field(default_factory=dict)
    nexts: dict[str, Origin] = field(default_factory=dict)


def declare(frame: Frame, stmt: ast.StateStmt, scope: Scope, phase: str) -> None:
    """A `state` statement: build the initial value, check it against the type, add the graph input.

    Raises:
        DetError: what is wrong with it.
    """
    origin = Origin(stmt.span, scope.via)
    _not_in_train(stmt, "state", phase, origin)
    if frame.ctx.phase == "train":
        return
    before = frame.carried.places.get(stmt.name)
    slot = frame.names.get(stmt.name)
    if before is not None or slot is not None or stmt.name in frame.nodes:
        raise error(
            "DET0205",
            f"`{stmt.name}` is already defined",
            origin,
            "defined again here",
            secondary=[(before or (slot.span if slot is not None else None), "first defined here")],
        )
    if frame.instance.anonymous:
        raise error(
            "DET0312",
            f"{frame.instance.name} carries a state, and is applied without a name",
            frame.call,
            "applied here",
            secondary=[(origin, "the state")],
            help="declare the component with `node`",
        )
    path = f"{frame.path}.{stmt.name}" if frame.path else stmt.name
    name = re.sub(r"\W+", "_", path).strip("_")
    op = _initial(frame, stmt, scope, path)
    found = op.infer()
    _check_kind(stmt, found, op, scope, origin)
    if name in frame.ctx.states:
        raise error(
            "DET0505",
            f"the state `{path}` would be carried twice: `{frame.path or frame.instance.name}` is applied twice",
            frame.call,
            "applied again here",
            secondary=[(frame.ctx.states[name].origin, "one value is carried from frame to frame")],
            help="declare a node for each application",
        )
    state = State(name, op, found, origin)
    frame.ctx.states[name] = state
    frame.carried.names[stmt.name], frame.carried.places[stmt.name] = state, origin
    wire = frame.ctx.input(f"{INPUT}.{name}", found, origin)
    frame.names[stmt.name] = Slot(Value(wire, origin), span=stmt.span)


def become(frame: Frame, stmt: ast.NextStmt, scope: Scope, phase: str) -> None:
    """A `next` statement: what the state is in the frame after.

    Raises:
        DetError: DET0505 without such a state, DET0307 for a second one, DET0506 for another type.
    """
    from detc.compiler.elaboration.apply import as_arg

    origin = Origin(stmt.span, scope.via)
    _not_in_train(stmt, "next", phase, origin)
    if frame.ctx.phase == "train":
        return
    state = frame.carried.names.get(stmt.name)
    if state is None:
        slot = frame.names.get(stmt.name)
        if slot is not None and slot.value is not None and not isinstance(slot.value.data, Wire):
            return  # the state itself has failed, and that is reported
        raise error(
            "DET0505",
            f"`next {stmt.name}`, and this component has no state `{stmt.name}`",
            origin,
            "nothing carries this value" + did_you_mean(stmt.name, frame.carried.names),
            help=f"declare it: state {stmt.name}: tracks[cap = 256] = NoTracks()",
        )
    if stmt.name in frame.carried.nexts:
        raise error(
            "DET0307",
            f"`next {stmt.name}` is given twice",
            origin,
            "given again here",
            secondary=[(frame.carried.nexts[stmt.name], "first given here")],
            help="a state has one next value",
        )
    frame.carried.nexts[stmt.name] = origin
    value = evaluate(stmt.value, scope)
    arg, t = as_arg(value)
    if t != state.type:
        raise error(
            "DET0506",
            f"the state `{stmt.name}` is {describe(state.type)}, and its next value is "
            + (describe(t) if t is not None else f"{a_kind(value)}"),
            origin,
            "the next frame could not read this",
            secondary=[(state.origin, "declared here"), (value.origin, "computed here")],
            help=_next_help(state.type, t),
        )
    frame.ctx.graph.nexts[state.name] = arg


def assigned_help(frame: Frame, name: str) -> str:
    """What to do about a name that is assigned twice."""
    if name in frame.carried.places:
        return f"the frame after has it from: next {name} = …"
    return "a wire is assigned once; give the second value another name"


def complete(frame: Frame) -> None:
    """Report (DET0505) the states of a frame that have no `next`."""
    for name, place in frame.carried.places.items():
        if name not in frame.carried.nexts:
            found = error(
                "DET0505",
                f"the state `{name}` has no `next`",
                place,
                "this would have its first value in every frame",
                help=f"say what it becomes: next {name} = …",
            )
            frame.ctx.report.add(*found.diagnostics)


def describe(t: Type) -> str:
    """A type as the error about states names it."""
    if isinstance(t, Struct):
        sizes = [f.shape[1] for _, f in t.fields if isinstance(f, Tensor) and len(f.shape) > 1]
        mean = t.get("mean")
        motion = f', motion = "{mean.kind}"' if isinstance(mean, Tensor) and t.kind == "tracks" else ""
        return f"{t.kind}[cap = {sizes[0]}{motion}]" if sizes else t.kind
    return str(t)


def declared_type(state: State) -> str:
    """The type of a state as a spec writes it."""
    t = state.type
    if isinstance(t, Struct):
        fields = type(state.op).model_fields
        return f"{t.kind}[cap = {getattr(state.op, 'cap')}]" if "cap" in fields else t.kind  # noqa: B009
    assert isinstance(t, Tensor)
    return f"tensor[{', '.join(map(str, t.shape[1:]))}]"


def capacity_text(t: Type) -> str:
    """The type of padded things as a spec writes it: `detections[cap = 100]`."""
    assert isinstance(t, Struct)
    valid = t.get("valid")
    assert isinstance(valid, Tensor)
    return f"{t.kind}[cap = {valid.shape[1]}]"


def _not_in_train(stmt: ast.Stmt, word: str, phase: str, origin: Origin) -> None:
    if phase == "train":
        raise error(
            "DET0501",
            f"`{word}` belongs to inference, and this is `train`",
            origin,
            "training sees single images, in any order",
            help="write it in `infer { … }`, or outside of both blocks",
        )


def _initial(frame: Frame, stmt: ast.StateStmt, scope: Scope, path: str) -> Op:
    """The op behind the initial value, with what the type says filled in."""
    ctx = frame.ctx
    ctx.know(path)
    value = evaluate(stmt.value, scope)
    data = value.data
    if isinstance(data, PrimitiveRef):
        data = Construct(data, (), value.origin)
    good = (
        isinstance(data, Construct)
        and isinstance(data.target, PrimitiveRef)
        and issubclass(data.target.cls, Op)
        and data.target.cls.initial
    )
    if not good:
        raise error(
            "DET0506",
            f"the initial value of the state `{stmt.name}` must be known before the first frame, "
            f"and this is {a_kind(value)}",
            Origin(stmt.value.span, scope.via),
            "not known yet" if isinstance(data, Wire) else show(value),
            help="tracks begin as NoTracks(), tensors as Zeros()",
        )
    assert isinstance(data, Construct) and isinstance(data.target, PrimitiveRef)
    names = list(field_names(data.target.cls))
    given = {a.name or names[i]: a for i, a in enumerate(data.args) if a.name or i < len(names)}
    added = []
    for name, declared in _declared(stmt, scope, names, data.name):
        stated = given.get(name)
        if stated is None:
            added.append(BoundArg(name, declared, declared.origin))
        elif raw(stated.value) != raw(declared):
            raise error(
                "DET0506",
                f"the state `{stmt.name}` is declared with {name} = {show(declared)}, and begins with "
                f"{name} = {show(stated.value)}",
                stated.origin,
                show(stated.value),
                secondary=[(declared.origin, "declared here")],
                help=f"leave one out: {data.name}() takes what the type says",
            )
    own, below = frame.instance.edits.into(stmt.name, ())
    edit = settle(own, path, ctx.report)
    if edit is not None:
        raise error(
            "DET0406",
            f"`{path}` is a state: set one of its params",
            edit.origin,
            f"write {path}.{names[0]} = …" if names else "it has none",
        )
    op = build_primitive(Construct(data.target, (*data.args, *added), data.origin), ctx, path, below)
    assert isinstance(op, Op)
    return op


def _declared(stmt: ast.StateStmt, scope: Scope, names: list[str], maker: str) -> list[tuple[str, Value]]:
    """What the type's brackets say: named ones as they are, sizes without names as `shape`."""
    args = stmt.type.args if isinstance(stmt.type, ast.TypeName) else ()
    found, sizes = [], []
    for arg in args:
        value = evaluate(arg.value, scope)
        name = arg.name
        if name is None and "shape" in names:
            sizes.append(value)
            continue
        if name is None or name not in names:
            shown = f"`{name}`" if name is not None else "a number without a name"
            raise error(
                "DET0207",
                f"{type_text(stmt.type)} takes no {shown}: {maker} has {', '.join(names)}",
                arg.span,
                "no such argument" + did_you_mean(name or "", names),
            )
        found.append((name, value))
    if sizes:
        found.append(("shape", Value(list(sizes), sizes[0].origin)))
    return found


def _check_kind(stmt: ast.StateStmt, found: Type, op: Op, scope: Any, origin: Origin) -> None:
    wanted = stmt.type.name if isinstance(stmt.type, ast.TypeName) else type_text(stmt.type)
    kind = found.kind if isinstance(found, (Struct, Tensor)) else kind_of(Value(found, origin))
    if kind != wanted:
        raise error(
            "DET0506",
            f"the state `{stmt.name}` is declared as {wanted}, and {op.name} makes {kind}",
            Origin(stmt.value.span, scope.via),
            f"this is {kind}",
            secondary=[(Origin(stmt.type.span, scope.via), f"declared as {wanted}")],
        )


def _next_help(wanted: Type, found: Type | None) -> str | None:
    if isinstance(wanted, Struct) and isinstance(found, Struct) and wanted.kind == found.kind:
        return "capacity and motion are decided once, where the state is declared"
    return None
