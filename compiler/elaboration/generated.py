"""Weights that a wire gives: `x -> node using k` (CondInst, Tian et al., ECCV 2020; SOLOv2; RTMDet-Ins).

The applied node owns no parameters: each weighted op below it reads its share of `k`. The last dimension of `k`
holds all weights first, in the order in which the ops are applied, and then all biases. Where a share begins
depends on everything in the node, and `params(node)`, the width that `k` must have, on the types that the node
is applied to. Both are learnt in a first elaboration and used in a second one, which is the one that counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

from detc.compiler.types import Map, Tensor, Type
from detc.compiler.values import Value, Wire, a_kind, kind_of
from detc.dsl.diagnostics import Report, error
from detc.dsl.source import Origin

if TYPE_CHECKING:
    from detc.compiler.elaboration.frame import Frame
    from detc.compiler.elaboration.handles import NodeHandle
    from detc.compiler.ops.base import Op


@dataclass
class Layout:
    """Where each op's weights and biases lie: op path -> (elements of the weight, elements of the bias)."""

    shares: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many numbers all ops take together."""
        return sum(weight + bias for weight, bias in self.shares.values())

    def offsets(self, path: str) -> tuple[int, int]:
        """Where the weight and the bias of an op begin."""
        weight_at = bias_at = 0
        for other, (weight, bias) in self.shares.items():
            if other == path:
                break
            weight_at, bias_at = weight_at + weight, bias_at + bias
        return weight_at, sum(weight for weight, _ in self.shares.values()) + bias_at


@dataclass
class Generation:
    """One `using` that is being applied."""

    node: NodeHandle
    weights: Value
    origin: Origin
    known: Layout | None
    found: Layout = field(default_factory=Layout)


@dataclass
class Layouts:
    """What elaborations learn of the nodes that are applied `using` a wire, by path."""

    known: dict[str, Layout] = field(default_factory=dict)
    found: dict[str, Layout] = field(default_factory=dict)
    asked: dict[str, Origin] = field(default_factory=dict)

    @property
    def settled(self) -> bool:
        """Whether this elaboration knew all that it needed."""
        return all(self.known.get(path) == layout for path, layout in self.found.items())

    def next(self) -> Layouts:
        """For the next elaboration."""
        return Layouts(known=self.known | self.found)

    def params(self, path: str, origin: Origin) -> int:
        """`params(node)`: how many numbers the node takes; 1 as long as that is unknown."""
        self.asked.setdefault(path, origin)
        layout = self.known.get(path)
        return layout.total if layout is not None else 1


def never_applied(layouts: Layouts, report: Report) -> None:
    """Report `params(node)` of nodes that no wire gives weights (DET0312)."""
    for path, origin in layouts.asked.items():
        if path not in layouts.found:
            found = error(
                "DET0312",
                f"`params({path})` is unknown: no wire gives `{path}` its weights",
                origin,
                "asked here",
                help="apply the node with `using`: x -> node using weights",
            )
            report.add(*found.diagnostics)


def begin(node: NodeHandle, weights: Value, origin: Origin, frame: Frame) -> Generation:
    """Check what stands behind `using`.

    Raises:
        DetError: DET0304 if it is no tensor with a last dimension of known size.
    """
    wire = weights.data
    if not isinstance(wire, Wire) or not isinstance(wire.type, Tensor):
        help = None
        if isinstance(wire, Wire) and isinstance(wire.type, Map):
            help = (
                "take the values at some positions of the map, so that there is one row for each application"
            )
        raise error(
            "DET0304",
            f"`using` wants a tensor whose last dimension holds the weights, not {a_kind(weights)}",
            origin,
            "applied here",
            secondary=[(weights.origin, f"the {kind_of(weights)} comes from here")],
            help=help,
        )
    if not wire.type.shape or not wire.type.shape[-1].is_const:
        raise error(
            "DET0303",
            f"`using` needs a last dimension of known size, not {wire.type}",
            origin,
            "applied here",
            secondary=[(weights.origin, "this wire")],
        )
    return Generation(node, weights, origin, frame.ctx.layouts.known.get(node.path))


def finish(generation: Generation, frame: Frame) -> None:
    """After the application: the width has to fit, and every application has to take the same.

    Raises:
        DetError: DET0302 if the wire has another width; DET0314 if two applications differ.
    """
    layouts, path, found = frame.ctx.layouts, generation.node.path, generation.found
    before = layouts.found.setdefault(path, found)
    if before != found:
        raise error(
            "DET0314",
            f"`{path}` takes {before.total} numbers in one place and {found.total} here",
            generation.origin,
            "applied again here",
            help="a node that sees different channel counts needs another shape each time: declare one for each",
        )
    if not found.total:
        raise error(
            "DET0312",
            f"`{path}` has no weights that a wire could give",
            generation.origin,
            "applied here",
            help="leave `using` out",
        )
    if generation.known is None:
        return  # the width may be `params(…)` of this very node: judged in the next elaboration
    assert isinstance(generation.weights.data, Wire) and isinstance(generation.weights.data.type, Tensor)
    width = int(generation.weights.data.type.shape[-1])
    if width != found.total:
        shares = ", ".join(f"{name} {w} + {b}" for name, (w, b) in _local(found, path).items())
        raise error(
            "DET0302",
            f"`{path}` takes {found.total} numbers, and {width} are given",
            generation.origin,
            f"applied here: {shares}",
            secondary=[(generation.weights.origin, f"{width} numbers come from here")],
            help=f"predict as many as it takes: params({generation.node.name})",
        )


def _local(layout: Layout, path: str) -> dict[str, tuple[int, int]]:
    return {(p.removeprefix(path).removeprefix(".") or p): share for p, share in layout.shares.items()}


def twin(generation: Generation, op: Op, node: NodeHandle, types: tuple[Type, ...]) -> Op:
    """The stateless op that stands for the op of `node`, with its share of what the wire gives.

    Raises:
        DetError: DET0312 if weights of this op cannot come from a wire.
    """
    shapes = op.parameter_shapes(*types) or {}
    share = (prod(shapes.get("weight", (0,))), prod(shapes.get("bias", (0,))))
    generation.found.shares.setdefault(node.path, share)
    layout = generation.known if generation.known is not None else generation.found
    made = op.generated(*layout.offsets(node.path))
    if made is None:
        raise error(
            "DET0312",
            f"the weights of {op.name} cannot come from a wire",
            generation.origin,
            f"`{generation.node.path}` is applied `using` a wire here",
            secondary=[(node.origin, f"`{node.path}` is declared here")],
            help="those of convolutions and linear layers can; declare other layers outside of this node",
        )
    return made
