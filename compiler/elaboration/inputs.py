"""Binding the inputs of a component: by position, by name, and from the wires around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from detc.compiler.dims import dim
from detc.compiler.expressions.evaluate import Inputs, evaluate
from detc.compiler.expressions.typecheck import check_port
from detc.compiler.types import Image, Type, clock, detections, instances, view
from detc.compiler.values import POISON, Bundle, Poisoned, Value, WireArray
from detc.dsl import ast
from detc.dsl.diagnostics import did_you_mean, error
from detc.dsl.source import Origin, Span

if TYPE_CHECKING:
    from detc.compiler.elaboration.frame import Frame


@dataclass(eq=False)
class Slot:
    """A name defined in a frame: a value or an array, with the place of its definition."""

    value: Value | None = None
    array: WireArray | None = None
    span: Span | None = None
    places: dict[tuple[int, ...], Span] = field(default_factory=dict)
    read: bool = False


def ports_of(frame: Frame) -> list[ast.InPort]:
    """Input ports in this phase, bases first."""
    found: dict[str, ast.InPort] = {}
    for level in reversed(frame.instance.chain):
        for stmt in _phase_statements(level.decl.body, frame.ctx.phase):
            if isinstance(stmt, ast.InPort):
                found.setdefault(stmt.name, stmt)
    return list(found.values())


def root_input(frame: Frame, port: ast.InPort) -> Value:
    """The graph input behind an input port of a model.

    Raises:
        DetError: DET0304 for what no model can take.
    """
    ctx, origin = frame.ctx, Origin(port.span)
    name = port.type.name if isinstance(port.type, ast.TypeName) else ""
    if name == "image":
        t: Type = Image(dim("h") * ctx.align, dim("w") * ctx.align)
    elif name == "instances":
        t = instances(masks=True)  # a data set that lacks what training reads of it is reported (DET0604)
    elif name == "detections":
        t = _detections(frame, port)
    elif name == "step" and ctx.phase == "train":
        return Value(ctx.input("step", clock(), origin), origin)
    elif name == "step":
        message = f"`{port.name}` is the training clock, which inference does not have"
        raise error(
            "DET0501", message, port.span, "a port of both phases", help="write: train { input step: step }"
        )
    elif name == "view" and ctx.phase == "train" and port.name not in ("image", "truth", "step", "state"):
        t = view(Image(dim("h") * ctx.align, dim("w") * ctx.align))
        return Value(ctx.input(port.name, t, origin), origin)
    elif name == "view":
        wrong = "is read by training" if ctx.phase == "train" else "exists only in training"
        help = "write: train { input weak: view }" if ctx.phase == "infer" else "choose another name"
        raise error("DET0304", f"the view `{port.name}` {wrong}", port.span, "a view of a fan", help=help)
    else:
        raise error(
            "DET0304",
            f"a model cannot take a {name or 'value'} as input",
            port.span,
            "use image, instances, detections, view or step",
        )
    id = "truth" if name == "instances" else name
    if id in ctx.graph:
        first = ctx.graph.node(id).origin
        message = f"a model takes one input of the type `{name}`, and `{port.name}` is a second"
        raise error("DET0205", message, port.span, "the second", secondary=[(first, "the first")])
    return Value(ctx.input(id, t, origin), origin)


def _detections(frame: Frame, port: ast.InPort) -> Type:
    """Detections from a file or another program: `input found: detections[cap = 100]`."""
    assert isinstance(port.type, ast.TypeName)
    for arg in port.type.args:
        value = evaluate(arg.value, frame.scopes[0])
        if arg.name == "cap" and isinstance(value.data, int) and value.data > 0:
            return detections(value.data)
    raise error(
        "DET0304",
        f"the input `{port.name}` needs a capacity: the most detections of a frame",
        port.span,
        "declared here",
        help=f"write: input {port.name}: detections[cap = 100]",
    )


def bind_inputs(frame: Frame, inputs: Inputs) -> None:
    ports = {p.name: p for p in ports_of(frame)}
    given: dict[str, Value] = {}
    free = [n for n in ports if all(n != name for name, _ in inputs)]
    positional = [v for name, v in inputs if name is None]
    if len(positional) == 1 and isinstance(positional[0].data, Bundle) and len(ports) > 1:
        fields = positional[0].data.fields
        matching = {k: v for k, v in fields.items() if k in ports}
        if len(matching) > 1:
            given.update(matching)
            positional, free = [], []
    if len(positional) > len(free):
        raise error(
            "DET0309",
            f"{frame.instance.name} takes {len(ports)} inputs, and {len(inputs)} are given",
            frame.call,
            "applied here",
            secondary=[(p.span, "input declared here") for p in list(ports.values())[:2]],
        )
    given.update(zip(free, positional, strict=False))
    for name, value in inputs:
        if name is None:
            continue
        if name not in ports:
            label = "no such input" + did_you_mean(name, ports)
            raise error("DET0207", f"{frame.instance.name} has no input `{name}`", frame.call, label)
        given[name] = value
    for name, port in ports.items():
        found = given.get(name)
        if optional(port.type) and (found is None or found.data is None):
            # as with ops, an input that may be left out is not taken from around
            frame.names[name] = Slot(Value(None, frame.call), span=port.span, read=True)
            continue
        value = found if found is not None else from_outside(frame, name)  # type: ignore[assignment]
        is_clock = isinstance(port.type, ast.TypeName) and port.type.name == "step"
        if value is None and is_clock and frame.ctx.testing:
            value = Value(frame.ctx.input(frame.ctx.unique("step"), clock(), frame.call), frame.call)
        if value is None:
            raise error(
                "DET0309",
                f"the input `{name}` of {frame.instance.name} is not given, and there is no wire `{name}` here",
                frame.call,
                "applied here",
                secondary=[(port.span, "declared here")],
                help="the model takes the training clock: train { input step: step }"
                if is_clock
                else f"pass it: (…, {name} = …) -> …, or name a wire `{name}`",
            )
        if value.data is POISON:
            raise Poisoned
        value = check_port(value, port.type, name, frame.instance.name, frame.call, port.span)
        frame.names[name] = Slot(value, span=port.span, read=True)


def optional(t: ast.TypeExpr) -> bool:
    """True for the type of an input that may be left out: `tensor?`."""
    return any(
        o.optional
        for o in (t.options if isinstance(t, ast.TypeUnion) else (t,))
        if isinstance(o, ast.TypeName)
    )


def from_outside(frame: Frame, name: str) -> Value | None:
    call = frame.call
    outer = frame.caller
    while outer is not None:
        slot = outer.names.get(name)
        if slot is not None:
            slot.read = True
            return slot.value if slot.value is not None else Value(slot.array, call)
        outer = outer.caller
    return None


def _phase_statements(body: Sequence[ast.Stmt], phase: str) -> list[ast.Stmt]:
    found: list[ast.Stmt] = []
    for stmt in body:
        if isinstance(stmt, ast.SubBlock) and stmt.kind == phase and stmt.label is None:
            found += stmt.body
        else:
            found.append(stmt)
    return found
