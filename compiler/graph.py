"""The component-level graph: a networkx multigraph behind typed nodes and edges.

Nothing outside this file touches networkx's attribute dicts. A `Model` holds two graphs, one a phase, over one
table of weights: the same path names the same weights in both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Union

from detc.compiler.ops.base import Op
from detc.compiler.spec import Follow
from detc.compiler.types import Type
from detc.compiler.values import Wire
from detc.dsl.source import Origin

Arg = Union[Wire, tuple["Arg", ...], dict[str, "Arg"], None]  # noqa: UP007  (a forward name)


@dataclass(frozen=True)
class Node:
    """One application of an op. `op` is None for a graph input.

    `id` is unique in the graph; `weights` is the path of the declaring `node`, for weighted ops; `path` is
    the component path in which the application stands.
    """

    id: str
    op: Op | None
    args: tuple[Arg, ...]
    type: Type
    origin: Origin = field(compare=False, repr=False)
    weights: str | None = None
    path: str = ""


@dataclass(frozen=True)
class Edge:
    """`source` feeds input number `slot` of `target`; `part` is the path inside the source's value."""

    source: str
    target: str
    slot: int
    part: tuple[str | int, ...] = ()


@dataclass(frozen=True)
class Loss:
    """A named training output with its weight."""

    name: str
    wire: Wire
    weight: float
    origin: Origin = field(compare=False, repr=False)


@dataclass(frozen=True)
class Weight:
    """A set of weights: the path of a `node`, its op and the input types that shape it."""

    path: str
    op: Op
    types: tuple[Type, ...]
    origin: Origin = field(compare=False, repr=False)
    frozen: bool = False
    source: str | None = None  # of `from`, kept at the node that states it


@dataclass(frozen=True)
class Shadow:
    """Weights at `path` that follow those at `source` by a rule (a `compiler.spec.Follow`)."""

    path: str
    source: str
    rule: Follow
    origin: Origin = field(compare=False, repr=False)


@dataclass(frozen=True)
class State:
    """A value carried from frame to frame: the graph input `state.<name>`, which the first frame has from `op`."""

    name: str
    op: Op
    type: Type
    origin: Origin = field(compare=False, repr=False)


def arg_wires(arg: Arg) -> Iterator[Wire]:
    """All wires in an argument."""
    if isinstance(arg, Wire):
        yield arg
    elif isinstance(arg, tuple):
        for a in arg:
            yield from arg_wires(a)
    elif isinstance(arg, dict):
        for a in arg.values():
            yield from arg_wires(a)


def map_wires(arg: Arg, fn: Any) -> Arg:
    """`arg` with every wire replaced by `fn(wire)`."""
    if isinstance(arg, Wire):
        return fn(arg)
    if isinstance(arg, tuple):
        return tuple(map_wires(a, fn) for a in arg)
    if isinstance(arg, dict):
        return {k: map_wires(a, fn) for k, a in arg.items()}
    return arg


class DetGraph:
    """A graph of op applications in declaration order, with named outputs and losses."""

    def __init__(self, phase: str) -> None:
        self.phase = phase
        self._nodes: dict[str, Node] = {}
        self._made: Any = None
        self.outputs: dict[str, Arg] = {}
        self.nexts: dict[str, Arg] = {}  # what each state becomes, by its name
        self.losses: list[Loss] = []

    @property
    def _g(self) -> Any:
        """The networkx graph, made when something asks for more than the order: a check does not."""
        if self._made is None:
            import networkx as nx

            self._made = nx.MultiDiGraph()
            self._made.add_nodes_from((id, {"order": i}) for i, id in enumerate(self._nodes))
            for node in self._nodes.values():
                self._connect(node)
        return self._made

    def _connect(self, node: Node) -> None:
        """Draw the edges of a node's arguments."""
        for slot, arg in enumerate(node.args):
            for wire in arg_wires(arg):
                self._made.add_edge(wire.node, node.id, edge=Edge(wire.node, node.id, slot, wire.path))

    def add(self, node: Node) -> None:
        """Add a node; its inputs must be there already.

        Raises:
            ValueError: if the id is taken or an input is unknown.
        """
        if node.id in self._nodes:
            raise ValueError(f"node {node.id} is in the graph already")
        for arg in node.args:
            for wire in arg_wires(arg):
                if wire.node not in self._nodes:
                    raise ValueError(f"input {wire.node} of {node.id} is not in the graph")
        self._nodes[node.id] = node
        if self._made is not None:
            self._made.add_node(node.id, order=len(self._made))
            self._connect(node)

    def __contains__(self, id: str) -> bool:
        return id in self._nodes

    def __len__(self) -> int:
        return len(self._nodes)

    def node(self, id: str) -> Node:
        """The node with this id."""
        return self._nodes[id]

    def nodes(self) -> list[Node]:
        """All nodes, inputs before users, otherwise in declaration order."""
        if self._made is None:  # inputs are added before their users
            return list(self._nodes.values())
        import networkx as nx

        key = dict(self._g.nodes(data="order"))
        return [self.node(n) for n in nx.lexicographical_topological_sort(self._g, key=key.__getitem__)]

    def edges(self) -> list[Edge]:
        """All edges, in the order of their targets."""
        return [d["edge"] for _, _, d in self._g.edges(data=True)]

    def users(self, id: str) -> list[Node]:
        """The nodes that read `id`."""
        return [self.node(n) for n in self._g.successors(id)]

    def replace(self, id: str, **changes: Any) -> None:
        """Change fields of a node other than its id; edges follow its args."""
        node = replace(self.node(id), **changes)
        self._nodes[id] = node
        if "args" in changes:
            self._g.remove_edges_from(list(self._g.in_edges(id, keys=True)))
            self._connect(node)

    def redirect(self, old: str, new: Wire) -> None:
        """Make every reader of the whole value of `old` read `new` instead."""

        def move(wire: Wire) -> Wire:
            return Wire(new.node, (*new.path, *wire.path), wire.type) if wire.node == old else wire

        for user in self.users(old):
            self.replace(user.id, args=tuple(map_wires(a, move) for a in user.args))
        self.outputs = {k: map_wires(a, move) for k, a in self.outputs.items()}
        self.nexts = {k: map_wires(a, move) for k, a in self.nexts.items()}
        self.losses = [replace(x, wire=move(x.wire)) for x in self.losses]

    def remove(self, id: str) -> None:
        """Take out a node that nobody reads.

        Raises:
            ValueError: if it still has readers.
        """
        if list(self._g.successors(id)):
            raise ValueError(f"node {id} still has readers")
        self._g.remove_node(id)
        del self._nodes[id]

    def roots(self) -> Iterator[Wire]:
        """The wires that leave the graph."""
        for arg in (*self.outputs.values(), *self.nexts.values()):
            yield from arg_wires(arg)
        for loss in self.losses:
            yield loss.wire

    def copy(self) -> DetGraph:
        """An independent graph over the same (immutable) nodes."""
        other = DetGraph(self.phase)
        for node in self.nodes():
            other.add(node)
        other.outputs, other.losses = dict(self.outputs), list(self.losses)
        other.nexts = dict(self.nexts)
        return other


@dataclass
class Decision:
    """How a parameter of a node got its value: `history` from the last word back to the first."""

    path: str
    value: Any
    history: list[tuple[str, str, Origin]] = field(default_factory=list)


@dataclass
class Model:
    """A resolved model: two graphs over one table of weights."""

    name: str
    train: DetGraph
    infer: DetGraph
    weights: dict[str, Weight] = field(default_factory=dict)
    sources: dict[str, tuple[str, Origin]] = field(default_factory=dict)  # node path -> `from` text
    ties: list[tuple[str, str, Origin]] = field(default_factory=list)
    decisions: dict[str, Decision] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    text: str = ""
    fields: frozenset[str] = frozenset()  # sample fields that training reads: boxes, labels, masks
    shadows: dict[str, Shadow] = field(default_factory=dict)
    views: dict[str, Origin] = field(default_factory=dict)  # inputs of training beside `image` and `truth`
    states: dict[str, State] = field(default_factory=dict)  # carried from frame to frame in inference

    @property
    def clocked(self) -> bool:
        """True if training takes the clock, `input step: step`."""
        return "step" in self.train
