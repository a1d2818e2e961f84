"""The textual form of graphs: one line a node, deterministic, for people, golden files and `--print-after`."""

from __future__ import annotations

from typing import Any

from detc.compiler.graph import Arg, DetGraph, Model, Node
from detc.compiler.ops.base import Op
from detc.compiler.types import Image, Map, Pyramid, Struct, Tensor, Type
from detc.compiler.values import Wire, show
from detc.dsl.render import place


def part_type(t: Type, path: tuple[str | int, ...]) -> Type:
    """The type of a part of a value.

    Raises:
        KeyError, IndexError, TypeError: if there is no such part.
    """
    for key in path:
        if isinstance(t, Pyramid):
            t = t.maps[key]  # type: ignore[index]
        elif isinstance(t, Struct):
            t = dict(t.fields)[str(key)]
        elif isinstance(t, Image):
            parts: dict[str, Type] = {"pixels": t.pixels, "size": Tensor((t.batch,))}
            t = parts[str(key)]
        else:
            raise TypeError(f"{t} has no parts")
    return t


def arg_text(arg: Arg) -> str:
    """An argument as text."""
    if isinstance(arg, Wire):
        return f"%{arg}"
    if isinstance(arg, tuple):
        return "[" + ", ".join(arg_text(a) for a in arg) + "]"
    if isinstance(arg, dict):
        return "{" + ", ".join(f"{k} = {arg_text(a)}" for k, a in arg.items()) + "}"
    return "none"


def op_text(op: Op) -> str:
    """An op with the arguments that differ from their defaults."""
    given = []
    for name, info in type(op).model_fields.items():
        value = getattr(op, name)
        if info.is_required() or value != info.get_default(call_default_factory=True):
            given.append(f"{info.alias or name} = {show(_plain(value))}")
    return f"{type(op).name}({', '.join(given)})"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def type_text(t: Type) -> str:
    """A type with its sizes."""
    if isinstance(t, Map):
        return f"map[{t.channels}, {t.height}, {t.width}; /{t.stride}]"
    if isinstance(t, Pyramid):
        return "[" + ", ".join(type_text(m) for m in t.maps) + "]"
    if isinstance(t, Struct):
        return f"{t.kind}{{" + ", ".join(f"{n}: {type_text(f)}" for n, f in t.fields) + "}"
    return str(t)


def node_text(node: Node) -> str:
    """One node on one line."""
    if node.op is None:
        return f"%{node.id} = input : {type_text(node.type)}"
    args = ", ".join(arg_text(a) for a in node.args)
    weights = f" @{node.weights}" if node.weights is not None and node.weights != node.id else ""
    return f"%{node.id} = {op_text(node.op)}({args}){weights} : {type_text(node.type)}"


def graph_text(graph: DetGraph) -> str:
    """A graph: inputs and nodes in order, then outputs and losses."""
    lines = [f"graph {graph.phase} {{"]
    lines += [f"  {node_text(n)}" for n in graph.nodes()]
    lines += [f"  output {name} = {arg_text(arg)}" for name, arg in graph.outputs.items()]
    lines += [f"  next {name} = {arg_text(arg)}" for name, arg in graph.nexts.items()]
    lines += [f"  loss {x.name} = {x.weight:g} * {arg_text(x.wire)}" for x in graph.losses]
    return "\n".join([*lines, "}", ""])


def graph_data(graph: DetGraph) -> dict[str, Any]:
    """A graph as plain data: inputs and nodes in order, outputs, losses."""
    nodes = [
        {
            "id": node.id,
            "op": op_text(node.op) if node.op is not None else "input",
            "inputs": [arg_text(a) for a in node.args],
            "weights": node.weights,
            "type": type_text(node.type),
            "place": place(node.origin.user()),
        }
        for node in graph.nodes()
    ]
    return {
        "phase": graph.phase,
        "nodes": nodes,
        "outputs": {name: arg_text(arg) for name, arg in graph.outputs.items()},
        "next": {name: arg_text(arg) for name, arg in graph.nexts.items()},
        "losses": [{"name": x.name, "weight": x.weight, "wire": arg_text(x.wire)} for x in graph.losses],
    }


def model_text(model: Model) -> str:
    """Both graphs of a model; nodes that only training has are marked by standing only there."""
    return f"model {model.name}\n\n{graph_text(model.infer)}\n{graph_text(model.train)}"
