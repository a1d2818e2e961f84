"""DetGraph -> torch.fx `GraphModule` over the module tree, with `.det` places as stack traces."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

from torch import fx, nn

from detc.compiler.backends.tree import Tree, module_path
from detc.compiler.graph import Arg, DetGraph, Node
from detc.compiler.ops.base import Function
from detc.compiler.types import Type
from detc.compiler.values import Wire
from detc.dsl.source import Origin


@cache
def function(path: str) -> Callable[..., Any]:
    """The function behind `package.module:name`."""
    module, _, name = path.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found


def place_of(origin: Origin, node_id: str) -> str:
    """A stack-trace frame for a place in a spec, the user's line last, as Python prints frames."""
    frames = []
    seen = set()
    for span in (*reversed(origin.via), origin.span):
        line, _ = span.source.position(span.start)
        key = (span.source.name, line)
        if key not in seen and span.source.text:
            seen.add(key)
            frames.append(f'  File "{span.source.name}", line {line}, in {node_id}')
    return "\n".join(frames)


class Lowering:
    """Turns one graph into an fx graph."""

    def __init__(self, graph: DetGraph, tree: Tree, extra: nn.Module | None = None) -> None:
        self.graph, self.tree = graph, tree
        self.fx = fx.Graph()
        self.values: dict[str, fx.Node] = {}
        self.parts: dict[tuple[str, tuple[str | int, ...]], fx.Node] = {}
        self.root = nn.Module()
        self.extra = extra

    def run(self, name: str) -> fx.GraphModule:
        """The graph module; its inputs are `image` (and `truth`), perhaps `state`, its output a dict."""
        for id in ("image", "truth"):
            if id in self.graph:
                self.values[id] = self.fx.placeholder(id)
        carried = [n.id for n in self.graph.nodes() if n.op is None and n.id.startswith("state.")]
        others = [n.id for n in self.graph.nodes() if n.op is None and n.id not in carried]
        for id in others:
            if id not in self.values:
                self.values[id] = self.fx.placeholder(_identifier(id))
        if carried:
            state = self.fx.placeholder("state")
            for id in carried:
                name = id.removeprefix("state.")
                self.values[id] = self.fx.call_function(operator.getitem, (state, name))
        for node in self.graph.nodes():
            if node.op is None:
                continue
            self.values[node.id] = self._node(node)
        if self.graph.phase == "train":
            output: Any = {}
            for loss in self.graph.losses:
                value = self._wire(loss.wire)
                if loss.weight != 1.0:
                    value = self.fx.call_function(operator.mul, (value, loss.weight))
                    value.stack_trace = place_of(loss.origin, f"loss.{loss.name}")
                output[loss.name] = value
        else:
            output = {k: self._arg(a) for k, a in self.graph.outputs.items()}
            if self.graph.nexts:
                # a call, so that what comes out is a plain dict in exported programs too, and can go in again
                kept = {k: self._arg(a) for k, a in self.graph.nexts.items()}
                output["state"] = self.fx.call_function(dict, kwargs=kept)
        self.fx.output(output)
        self.fx.lint()
        return fx.GraphModule(self.root, self.fx, class_name=name)

    def _node(self, node: Node) -> fx.Node:
        assert node.op is not None
        args = tuple(self._arg(a) for a in node.args)
        while args and args[-1] is None:
            args = args[:-1]
        if node.weights is not None:
            path = module_path(node.weights)
            self._mount(path, self.tree.get_submodule(path))
            made = self.fx.call_module(path, args)
        else:
            implementation = node.op.torch(*self._types(node))
            if isinstance(implementation, Function):
                kwargs = dict(implementation.kwargs)
                made = self.fx.call_function(function(implementation.path), args, kwargs)
            else:
                path = f"ops.{_identifier(node.id)}"
                self._mount(path, implementation)
                made = self.fx.call_module(path, args)
        made.stack_trace = place_of(node.origin, node.id)
        return made

    def _mount(self, path: str, module: nn.Module) -> None:
        *parents, leaf = path.split(".")
        here = self.root
        for name in parents:
            if name not in here._modules:
                here.add_module(name, nn.Module())
            child = here._modules[name]
            assert child is not None
            here = child
        if leaf not in here._modules:
            here.add_module(leaf, module)

    def _types(self, node: Node) -> list[Type]:
        return [arg_type(a) for a in node.args if a is not None]

    def _wire(self, wire: Wire) -> fx.Node:
        value = self.values[wire.node]
        path: tuple[str | int, ...] = ()
        for key in wire.path:
            path = (*path, key)
            part = self.parts.get((wire.node, path))
            if part is None:
                with self.fx.inserting_after(value):
                    part = self.fx.call_function(operator.getitem, (value, key))
                part.stack_trace = self.values[wire.node].stack_trace
                self.parts[wire.node, path] = part
            value = part
        return value

    def _arg(self, arg: Arg) -> Any:
        if isinstance(arg, Wire):
            return self._wire(arg)
        if isinstance(arg, tuple):
            return [self._arg(a) for a in arg]
        if isinstance(arg, dict):
            return {k: self._arg(a) for k, a in arg.items()}
        return None


def arg_type(arg: Arg) -> Type:
    """The type of a graph argument."""
    from detc.compiler.types import Pyramid, Struct

    if isinstance(arg, Wire):
        return arg.type
    if isinstance(arg, tuple):
        return Pyramid(tuple(arg_type(a) for a in arg))  # type: ignore[misc]
    assert isinstance(arg, dict)
    return Struct("record", tuple((k, arg_type(a)) for k, a in arg.items()))


def _identifier(text: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in text).strip("_")


def lower(graph: DetGraph, tree: Tree, name: str) -> fx.GraphModule:
    """The fx graph module of a graph, over the modules of `tree`."""
    return Lowering(graph, tree).run(name)
