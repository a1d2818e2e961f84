"""Applying a node, a component or a stateless op to wires: port binding, inference, blame."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from detc.compiler.elaboration import generated
from detc.compiler.elaboration.build_op import build_primitive, field_names
from detc.compiler.elaboration.edits import Edits
from detc.compiler.elaboration.handles import NodeArray, NodeHandle
from detc.compiler.elaboration.inputs import from_outside
from detc.compiler.elaboration.params import Instance
from detc.compiler.expressions.evaluate import USING, Inputs
from detc.compiler.graph import Arg, Node
from detc.compiler.ops.base import Op, Port
from detc.compiler.types import Image, Map, Mismatch, Pyramid, Struct, Tensor, Type
from detc.compiler.values import (
    POISON,
    Builtin,
    Bundle,
    Construct,
    Poisoned,
    PrimitiveRef,
    TemplateRef,
    Value,
    Wire,
    WireArray,
    a_kind,
    elements,
    is_wire,
    kind_of,
    show,
)
from detc.dsl import ast
from detc.dsl.diagnostics import DetError, did_you_mean, error
from detc.dsl.source import Origin, Span

if TYPE_CHECKING:
    from detc.compiler.elaboration.frame import Frame


def apply(frame: Frame, callee: Value, inputs: Inputs, origin: Origin) -> Value:
    """`inputs -> callee`, written at `origin`, inside `frame`.

    Raises:
        DetError: if it cannot be applied, or the inputs do not fit.
    """
    if any(v.data is POISON for _, v in inputs):
        raise Poisoned
    data = callee.data
    if isinstance(data, Builtin):
        from detc.compiler.expressions.functions import on_wires

        data = on_wires(data.name) or data
    if isinstance(data, (PrimitiveRef, TemplateRef)):
        data = Construct(data, (), callee.origin)
    weights = next((v for n, v in inputs if n == USING), None)
    if weights is not None:
        inputs = [(n, v) for n, v in inputs if n != USING]
        if not isinstance(data, NodeHandle):
            raise error(
                "DET0312",
                f"{a_kind(callee)} cannot be applied `using` a wire",
                origin,
                "only a node can",
                help="declare it: node name = …, and write -> name using …",
            )
        return _apply_using(frame, data, inputs, weights, origin)
    if isinstance(data, NodeHandle):
        return _apply_node(frame, data, inputs, origin)
    if isinstance(data, Construct):
        return _apply_inline(frame, data, inputs, origin)
    if isinstance(data, NodeArray):
        raise error("DET0312", f"`{data.name}` is an array of nodes", origin, f"choose one: {data.name}[…]")
    raise error(
        "DET0312",
        f"{a_kind(callee)} cannot be applied",
        origin,
        "a node, a component or a stateless op is wanted behind `->`",
        secondary=[(callee.origin, f"{show(callee)} comes from here")],
    )


def _apply_node(frame: Frame, node: NodeHandle, inputs: Inputs, origin: Origin) -> Value:
    if node.removed is not None:
        raise error(
            "DET0404",
            f"`{node.path}` is removed and still used",
            node.removed.origin,
            "removed here",
            secondary=[(origin, "used here")],
            help="replace it, or remove what uses it too",
        )
    if node.component:
        from detc.compiler.elaboration.frame import Frame as NewFrame

        with frame.ctx.evaluating(node.frozen):
            return frame.ctx.run(NewFrame(node.instance(frame), frame, origin), inputs)
    op = node.op(frame)
    if node.replaced_by is not None:
        origin = replace(origin, because=replace(node.replaced_by, edited=True))
    return apply_op(frame, op, inputs, origin, node if op.weighted else None)


def _apply_using(frame: Frame, node: NodeHandle, inputs: Inputs, weights: Value, origin: Origin) -> Value:
    """Apply a node whose weights a wire gives."""
    ctx = frame.ctx
    if ctx.generation is not None:
        message = (
            f"`{node.path}` is applied `using` a wire inside of `{ctx.generation.node.path}`, which is too"
        )
        raise error("DET0312", message, origin, "weights come from one wire only")
    ctx.generation = generated.begin(node, weights, origin, frame)
    errors = len(ctx.report.errors)
    try:
        result = _apply_node(frame, node, inputs, origin)
        if len(ctx.report.errors) == errors:
            generated.finish(ctx.generation, frame)
    finally:
        ctx.generation = None
    return result


def _apply_inline(frame: Frame, construct: Construct, inputs: Inputs, origin: Origin) -> Value:
    if isinstance(construct.target, TemplateRef):
        decl = construct.target.decl
        if not isinstance(decl, ast.Template) or decl.kind not in ("component", "model"):
            raise error(
                "DET0312", f"`{construct.name}` cannot be applied", construct.origin, "it is no component"
            )
        from detc.compiler.elaboration.frame import Frame as NewFrame

        path = frame.ctx.inline_path(frame.path, construct.name)
        via = (construct.origin.span, *construct.origin.via)
        instance = Instance(frame.ctx, construct, path, via, Edits(), anonymous=not frame.ctx.testing)
        return frame.ctx.run(NewFrame(instance, frame, origin), inputs)
    if not issubclass(construct.target.cls, Op):
        raise error(
            "DET0312", f"`{construct.name}` cannot be applied to wires", construct.origin, "it is no op"
        )
    if construct.target.cls.weighted and not frame.ctx.testing:
        raise error(
            "DET0312",
            f"{construct.name} has weights, so it needs a name",
            construct.origin,
            "only stateless ops may be applied inline",
            help=f"declare it: node {construct.name.lower()} = {show(construct)}, and write -> {construct.name.lower()}",
        )
    op = build_primitive(construct, frame.ctx, "", Edits())
    assert isinstance(op, Op)
    node = None
    if op.weighted:
        path = frame.ctx.inline_path(frame.path, construct.name)
        node = NodeHandle(path, construct.name, construct, Edits(), construct.origin)
    return apply_op(frame, op, inputs, origin, node)


def apply_op(frame: Frame, op: Op, inputs: Inputs, origin: Origin, node: NodeHandle | None) -> Value:
    """Add one application of `op` to the graph and return its output."""
    ctx = frame.ctx
    if node is not None and node.anonymous:
        raise error(
            "DET0312",
            f"`{node.path}` has weights, and the component around it is applied without a name",
            origin,
            "applied here",
            help="declare the component with `node`",
        )
    bound = _bind(frame, op, inputs, origin)
    pairs = [_convert(value, port, op, origin) for port, value in bound]
    args, types = [p[0] for p in pairs], [p[1] for p in pairs]
    values = [v for _, v in bound]
    try:
        result = op.infer(*_group(op, types))
    except Mismatch as problem:
        raise _blame(problem, op, values, types, origin, ctx) from None
    if op.phase == "train" and ctx.phase == "infer" and not ctx.testing:
        raise error("DET0501", f"{op.name} makes sense only in training", origin, "used outside of `train`")
    result = _with_origin(result, op, types, origin, ctx)
    # weights are made for what is always there, whether or not an application also passes a mask
    given = tuple(t for (port, _), t in zip(bound, types, strict=True) if t is not None and not port.optional)
    base = node.path if node is not None else f"{frame.path}.{op.name}" if frame.path else op.name
    if node is not None and ctx.generation is not None:
        op = generated.twin(ctx.generation, op, node, given)
        args.append(ctx.generation.weights.data)
        node = None
    weights = node.path if node is not None else None
    if node is not None:
        ctx.weight(node, op, given, origin)
    id = ctx.unique(base)
    ctx.graph.add(Node(id, op, tuple(args), result, origin, weights, frame.path))
    return Value(Wire(id, (), result), origin)


def _bind(frame: Frame, op: Op, inputs: Inputs, origin: Origin) -> list[tuple[Port, Value | None]]:
    ports = type(op).inputs
    named = {n: v for n, v in inputs if n is not None}
    positional = [v for n, v in inputs if n is None]
    for name in named:
        if name not in [p.name for p in ports]:
            label = "no such input" + did_you_mean(name, [p.name for p in ports])
            raise error("DET0207", f"{op.name} has no input `{name}`", origin, label)
    bound: list[tuple[Port, Value | None]] = []
    for port in ports:
        if port.name in named:
            bound.append((port, named[port.name]))
        elif port.variadic:
            if len(positional) == 1 and (items := elements(positional[0])) is not None:
                positional = items
            bound += [(port, v) for v in positional]
            positional = []
        elif positional:
            bound.append((port, positional.pop(0)))
        elif port.optional:
            bound.append((port, _by_name(frame, port.name) if _ambient(port) else None))
        else:
            outside = _by_name(frame, port.name)
            if outside is None:
                wanted = ", ".join(p.name + ("?" if p.optional else "") for p in ports)
                raise error(
                    "DET0309",
                    f"{op.name} needs the input `{port.name}`: it takes ({wanted}), and {len(inputs)} are given",
                    origin,
                    "applied here",
                )
            bound.append((port, outside))
    if positional:
        wanted = ", ".join(p.name for p in ports)
        raise error(
            "DET0309",
            f"{op.name} takes {len(ports)} inputs ({wanted}), and {len(inputs)} are given",
            origin,
            "applied here",
        )
    return bound


def _ambient(port: Port) -> bool:
    """Optional inputs that are taken from around if they are there: the image and the ground truth."""
    types = port.types if isinstance(port.types, tuple) else (port.types,)
    return types == (Image,) or port.kinds == ("instances",)


def _by_name(frame: Frame, name: str) -> Value | None:
    slot = frame.names.get(name)
    if slot is not None:
        slot.read = True
        return slot.value if slot.value is not None else Value(slot.array, frame.call)
    return from_outside(frame, name)


def _group(op: Op, types: list[Type | None]) -> list[Any]:
    return list(types)


def _convert(value: Value | None, port: Port, op: Op, origin: Origin) -> tuple[Arg, Type | None]:
    """The graph argument and its type for what is given at a port."""
    if value is None or (value.data is None and port.optional):
        return None, None
    if value.data is POISON:
        raise Poisoned
    accepted = port.types if isinstance(port.types, tuple) else (port.types,)
    arg, t = as_arg(value)
    if t is None:
        raise error(
            "DET0304",
            f"the input `{port.name}` of {op.name} wants a wire, not {a_kind(value)}",
            origin,
            "applied here",
            secondary=[(value.origin, f"{show(value)} comes from here")],
        )
    pixels_wanted = Map in accepted or Pyramid in accepted
    if isinstance(t, Image) and Image not in accepted and isinstance(arg, Wire) and pixels_wanted:
        arg, t = arg.part("pixels", t.pixels), t.pixels
    if isinstance(t, Map) and Map not in accepted and Pyramid in accepted:
        arg, t = (arg,), Pyramid((t,))
    ok = isinstance(t, accepted)
    if ok and port.kinds and isinstance(t, (Tensor, Struct)):
        ok = t.kind in port.kinds or t.kind in ("tensor", "record")
    if not ok:
        wanted = " or ".join(port.kinds or tuple(a.__name__.lower() for a in accepted))
        raise error(
            "DET0304",
            f"the input `{port.name}` of {op.name} wants a {wanted}, not {a_kind(value)}",
            origin,
            "applied here",
            secondary=[(value.origin, f"the {kind_of(value)} comes from here")],
        )
    return arg, t


def as_arg(value: Value) -> tuple[Arg, Type | None]:
    """A value as a graph argument with its type; (None, None) if it is no wire."""
    data = value.data
    if isinstance(data, Wire):
        return data, data.type
    if isinstance(data, WireArray) or (isinstance(data, list) and is_wire(data)):
        items = elements(value) or []
        pairs = [as_arg(v) for v in items]
        if any(v.data is POISON for v in items):
            raise Poisoned
        if any(t is None for _, t in pairs):
            return None, None
        return tuple(a for a, _ in pairs), Pyramid(tuple(t for _, t in pairs))  # type: ignore[misc]
    if isinstance(data, (dict, Bundle)) and is_wire(data):
        fields = data if isinstance(data, dict) else data.fields
        made = {k: as_arg(v) for k, v in fields.items()}
        if any(t is None for _, t in made.values()):
            return None, None
        fields_ = tuple((k, t) for k, (_, t) in made.items() if t is not None)
        return {k: a for k, (a, _) in made.items()}, Struct("record", fields_)
    return None, None


def _with_origin(result: Type, op: Op, types: list[Type | None], origin: Origin, ctx: Any) -> Type:
    """Maps remember where their channel count was decided."""

    def mark(m: Any) -> Any:
        if not isinstance(m, Map) or m.origin is not None:
            return m
        source = None
        if op.channels_from is not None:
            source = ctx.origins_of(op).get(op.channels_from)
        if source is None:
            same = [
                t for t in types if isinstance(t, Map) and t.channels == m.channels and t.origin is not None
            ]
            source = same[0].origin if same else origin
        return replace(m, origin=source)

    if isinstance(result, Map):
        return mark(result)
    if isinstance(result, Pyramid):
        return Pyramid(tuple(mark(m) for m in result.maps))
    return result


def _blame(
    problem: Mismatch, op: Op, values: list[Value | None], types: list[Type | None], origin: Origin, ctx: Any
) -> DetError:
    """A mismatch as a diagnostic: the user's own line first, both sides of the conflict labelled."""
    sides: list[tuple[Origin, str]] = []
    for index, text in problem.inputs:
        value = values[index] if index < len(values) else None
        t = types[index] if index < len(types) else None
        place = getattr(t, "origin", None) or (value.origin if value is not None else None)
        because = value.origin.because if value is not None else None
        if place is not None and place.because is None and because is not None and because.edited:
            place = replace(place, because=because)  # the node that gave it was put there by an edit
        if place is not None:
            sides.append((place, text))
    if problem.param is not None:
        place = ctx.origins_of(op).get(field_names(type(op)).get(problem.param, problem.param))
        if place is not None:
            sides.insert(0, (place, f"`{problem.param}` is given here"))
    direct = [s for s in sides if not s[0].span.source.library]
    here = (origin, f"{op.name} is applied here")
    ordered = (
        [*direct, here, *(s for s in sides if s not in direct)]
        if direct and (origin.span.source.library or not problem.inputs)  # no wire is at fault
        else [here, *sides]
    )
    unique: dict[Span, tuple[Origin, str]] = {}
    for place, text in ordered:
        first, said = unique.get(place.span, (place, text))
        # both sides may come from one line, of two rounds of a `repeat`
        unique[place.span] = (first, said if said == text or place is origin else f"{said}; {text}")
    (first, label), *rest = unique.values()
    return error(problem.code, problem.message, first, label, secondary=rest, help=problem.help)
