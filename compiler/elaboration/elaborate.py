"""From a model's constructor to its two graphs (train and infer) over one table of weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from detc.compiler.elaboration.edits import Active, Edits, unmatched
from detc.compiler.elaboration.generated import Generation, Layouts, never_applied
from detc.compiler.elaboration.params import Instance
from detc.compiler.elaboration.shadow import check_shadows, weights_used
from detc.compiler.elaboration.size_limit import check_size
from detc.compiler.elaboration.ties import resolve_ties
from detc.compiler.expressions import functions
from detc.compiler.expressions.evaluate import Inputs
from detc.compiler.expressions.unused import unused_wires
from detc.compiler.graph import Decision, DetGraph, Loss, Model, Node, Shadow, State, Weight
from detc.compiler.ops.base import Op
from detc.compiler.primitives import Primitive
from detc.compiler.types import Map, Pyramid, Tensor, Type
from detc.compiler.values import POISON, Construct, Poisoned, TemplateRef, Value, Wire, kind_of, raw, show
from detc.dsl.diagnostics import WARNING, DetError, Report, error
from detc.dsl.source import Origin, Span

if TYPE_CHECKING:
    from detc.compiler.elaboration.frame import Frame
    from detc.compiler.elaboration.handles import NodeHandle

ALIGN = 32
ATTEMPTS = 3  # elaborations until all `params(…)` are known: one in most models, two with `using`


class Elaborator:
    """What one elaboration shares: the graph being built, weights, claims of edits, known paths."""

    def __init__(
        self,
        report: Report,
        *,
        align: int = ALIGN,
        testing: bool = False,
        layouts: Layouts | None = None,
    ) -> None:
        self.report, self.align, self.testing = report, align, testing
        self.phase = "infer"
        self.graph = DetGraph("infer")
        self.weights: dict[str, Weight] = {}
        self.states: dict[str, State] = {}
        self.shadows: dict[str, Shadow] = {}
        self.sources: dict[str, tuple[str, Origin]] = {}
        self.decisions: dict[str, Decision] = {}
        self.claims: list[Active] = []
        self.paths: dict[str, None] = {}
        self.unused: dict[str, dict[tuple[str, str], DetError]] = {"train": {}, "infer": {}}
        self.frames: list[Frame] = []
        self.touched: set[str] = set()  # nodes that something reads, as component.name
        self.idle: dict[str, DetError] = {}  # nodes that nothing reads, with what to say about each
        self._layer = 1_000_000
        self._counts: dict[str, int] = {}
        self._origins: dict[int, tuple[Primitive, dict[str, Origin]]] = {}
        self.layouts = Layouts() if layouts is None else layouts
        self.generation: Generation | None = None
        self._excused = False
        self._depth = 0

    def begin(self, phase: str) -> None:
        """Start the graph of a phase."""
        self.phase, self.graph = phase, DetGraph(phase)
        self._counts, self.frames = {}, []

    # --- bookkeeping used by instances, frames and ops ---

    def next_layer(self) -> int:
        """A layer number for edits; later ones are further in and lose."""
        self._layer -= 1
        return self._layer

    def know(self, path: str) -> None:
        """Remember a path that an edit may name."""
        self.paths[path] = None

    def excuse(self) -> None:
        """Part of the tree could not be built: edits that arrive nowhere are not reported."""
        self._excused = True

    def decide(self, path: str, value: Value) -> None:
        """Remember how a param got its value."""
        history: list[tuple[str, str, Origin]] = []
        step: Value | None = value
        while step is not None:
            history.append(("set" if step.was is not None else "given", show(step), step.origin))
            step = step.was
        self.decisions[path] = Decision(path, value.data, history)

    def decide_default(self, path: str, data: Any, origin: Origin) -> None:
        """Remember that a param has its default."""
        self.decisions[path] = Decision(path, data, [("default", show(data), origin)])

    def remember(self, op: Primitive, origins: dict[str, Origin]) -> None:
        """Keep where the arguments of a primitive were written."""
        self._origins[id(op)] = (op, origins)

    def origins_of(self, op: Primitive) -> dict[str, Origin]:
        """Where the arguments of a primitive were written, by field."""
        return self._origins.get(id(op), (op, {}))[1]

    def unique(self, base: str) -> str:
        """`base`, or `base#2`, `base#3` … when it is taken."""
        self._counts[base] = count = self._counts.get(base, 0) + 1
        return base if count == 1 else f"{base}#{count}"

    def inline_path(self, path: str, name: str) -> str:
        """A path for a component that is applied without a name."""
        return self.unique(f"{path}.{name}" if path else name)

    def source(self, path: str, text: str, origin: Origin) -> None:
        """A node's `from`."""
        self.sources[path] = (text, origin)

    def shadow(self, shadow: Shadow) -> None:
        """A node that follows another."""
        self.shadows[shadow.path] = shadow

    @contextmanager
    def evaluating(self, frozen: bool) -> Iterator[None]:
        """Within the block bodies run as in inference, if `frozen`: so do nodes that never learn."""
        before, self.phase = self.phase, "infer" if frozen else self.phase
        try:
            yield
        finally:
            self.phase = before

    def touch(self, path: str, name: str) -> None:
        """The node `name` of the component at `path` is read by something."""
        self.touched.add(f"{path}.{name}")

    def loss(self, loss: Loss) -> None:
        """A named training output."""
        if any(x.name == loss.name for x in self.graph.losses):
            raise error(
                "DET0307", f"the loss `{loss.name}` is defined twice", loss.origin, "defined again here"
            )
        self.graph.losses.append(loss)

    def warn_unused(self, found: DetError, path: str, name: str) -> None:
        """A wire that nothing reads in this phase; reported if no phase reads it."""
        self.unused[self.phase][path, name] = found

    def weight(self, node: NodeHandle, op: Op, types: tuple[Type, ...], origin: Origin) -> None:
        """Register the weights of a node, or check a further application against them.

        Raises:
            DetError: DET0314 if the same weights would need another shape.
        """
        old = self.weights.get(node.path)
        if old is None:
            self.weights[node.path] = Weight(node.path, op, types, origin, node.frozen)
            return
        if old.op != op:
            raise error(
                "DET0314",
                f"`{node.path}` is built in two ways: {_args(old.op)} and {_args(op)}",
                origin,
                "applied here",
                secondary=[(old.origin, "first applied here")],
            )
        before, now = _widths(old.types), _widths(types)
        if before != now:
            raise error(
                "DET0314",
                f"`{node.path}` has weights for {_channels(before)}, and gets {_channels(now)} here",
                origin,
                "applied again here",
                secondary=[(old.origin, "first applied here")],
                help="nodes that see different channel counts need weights of their own: declare one for each",
            )

    def visible_params(self, construct: Construct, path: str, below: Edits) -> dict[str, Value]:
        """Params of a node that `replace` is about to put another in place of."""
        if isinstance(construct.target, TemplateRef):
            inner = Instance(self, construct, path, construct.origin.via, below)
            found = {n: inner.param(n) for n in inner.param_names()}
            return {n: v for n, v in found.items() if v is not None}
        from detc.compiler.elaboration.build_op import build_primitive, field_names

        op = build_primitive(construct, self, path, below)
        return {n: Value(getattr(op, f), construct.origin) for n, f in field_names(type(op)).items()}

    def member(
        self, value: Value, name: str, frame: Frame | None = None, span: Span | None = None
    ) -> Value | None:
        """Attributes of data sets; `params(node)`; inputs that tests make."""
        if name == "params()":
            return self._params(value)
        if name.endswith("()"):
            return self._test_input(value, name[:-2], frame, span)
        get = getattr(value.data, "detc_member", None)
        return get(name, value.origin) if get is not None else None

    def _params(self, call: Value) -> Value:
        from detc.compiler.elaboration.handles import NodeHandle

        node = next(iter(call.data.values()), None)
        if node is None or len(call.data) != 1 or not isinstance(node.data, NodeHandle):
            given = "nothing" if node is None else kind_of(node) if len(call.data) == 1 else "several values"
            raise error("DET0301", f"`params` takes one node, not {given}", call.origin, "called here")
        return Value(self.layouts.params(node.data.path, call.origin), call.origin)

    def _test_input(self, value: Value, name: str, frame: Frame | None, span: Span | None) -> Value | None:
        if name not in functions.TEST_INPUTS or frame is None or not self.testing:
            return None
        t = functions.test_input(name, raw(value), value.origin)
        return Value(self.input(self.unique(name), t, value.origin), value.origin)

    def input(self, id: str, t: Type, origin: Origin) -> Wire:
        """Add a graph input."""
        self.graph.add(Node(id, None, (), t, origin))
        return Wire(id, (), t)

    def run(self, frame: Frame, inputs: Inputs) -> Value:
        """Run a frame inside the current one."""
        if self._depth > 60:
            raise error(
                "DET0210",
                f"{frame.instance.name} contains itself",
                frame.call,
                "components cannot be recursive",
            )
        self._depth += 1
        try:
            self.frames.append(frame)
            return frame.run(inputs)
        finally:
            self._depth -= 1


def _args(op: Op) -> str:
    fields = ", ".join(f"{k} = {show(v)}" for k, v in op.model_dump().items())
    return f"{op.name}({fields})"


def _widths(types: tuple[Type, ...]) -> tuple[Any, ...]:
    found: list[Any] = []
    for t in types:
        if isinstance(t, Map):
            found.append(t.channels)
        elif isinstance(t, Pyramid):
            found.append(tuple(m.channels for m in t.maps if isinstance(m, Map)))
        elif isinstance(t, Tensor) and t.shape:
            found.append(str(t.shape[-1]))
    return tuple(found)


def _channels(widths: tuple[Any, ...]) -> str:
    return " and ".join(map(str, widths)) + " channels"


def elaborate(
    construct: Construct,
    report: Report,
    *,
    edits: list[Active] | None = None,
    align: int = ALIGN,
    classes: tuple[str, ...] = (),
) -> Model:
    """Build the train and the infer graph of a model.

    Findings go to `report`; the result is meaningful only if it holds no errors.
    """
    layouts = Layouts()
    for _ in range(ATTEMPTS):
        trial = Report()
        ctx = Elaborator(trial, align=align, layouts=layouts)
        model = _elaborate(ctx, construct, list(edits or []), classes, quiet=bool(report.errors))
        if layouts.settled:
            break
        layouts = layouts.next()
    report.add(*trial.diagnostics)
    return model


def _elaborate(
    ctx: Elaborator, construct: Construct, edits: list[Active], classes: tuple[str, ...], quiet: bool
) -> Model:
    """One elaboration; `quiet` leaves out what depends on a whole model, because a part could not be built."""
    from detc.compiler.elaboration.frame import Frame
    from detc.compiler.elaboration.inputs import ports_of, root_input

    report = ctx.report
    graphs: dict[str, DetGraph] = {}
    named: dict[str, set[tuple[str, str]]] = {}  # the wires that each phase defines
    needs: set[str] = set()
    for phase in ("infer", "train"):
        ctx.begin(phase)
        ctx._layer = 1_000_000
        claims_before = len(ctx.claims)
        try:
            via = (construct.origin.span, *construct.origin.via)
            instance = Instance(ctx, construct, "", via, Edits(list(edits)))
            frame = Frame(instance, None, construct.origin)
            inputs: Inputs = [(p.name, root_input(frame, p)) for p in ports_of(frame)]
            ctx.run(frame, inputs)
            for name, value in frame.outputs.items():
                _add_output(ctx, name, value)
        except DetError as problem:
            report.add(*problem.diagnostics)
            ctx.excuse()
        except Poisoned:
            ctx.excuse()
        if phase == "train":
            _merge_claims(ctx, claims_before)
        for f in ctx.frames:
            if not f.instance.frozen:  # a frozen body runs without what only its training reads
                unused_wires(f)
        named[phase] = {(f.path, name) for f in ctx.frames for name in f.names}
        graphs[phase] = ctx.graph
    ties: list[tuple[str, str, Origin]] = []
    if not ctx._excused:
        ties = resolve_ties(ctx.claims, ctx.weights, report)
        followed = {s.path: s.source for s in ctx.shadows.values()}
        unmatched([*edits, *ctx.claims], list(ctx.paths), report, followed)
    if not report.errors and ctx.layouts.settled:
        never_applied(ctx.layouts, report)
        check_size(ctx, report)
    if not report.errors and not quiet:
        for phase, other in (("train", "infer"), ("infer", "train")):
            for key, found in ctx.unused[phase].items():
                if key in ctx.unused[other] or key not in named[other]:
                    report.add(*found.diagnostics)
        for path, found in ctx.idle.items():
            if path not in ctx.touched:
                report.add(*found.diagnostics)
        check_shadows(ctx, weights_used(graphs["infer"]))
        _check_losses(ctx, graphs["train"], report)
    truth = graphs["train"].node("truth") if "truth" in graphs["train"] else None
    if truth is not None:
        for user in graphs["train"].nodes():  # not users(): a check does without networkx
            from detc.compiler.graph import arg_wires

            for arg in user.args:
                for w in arg_wires(arg):
                    if w.node == "truth":
                        needs |= {str(w.path[0])} if w.path else {"boxes", "labels"}
    return Model(
        construct.name, graphs["train"], graphs["infer"], ctx.weights, ctx.sources, ties, ctx.decisions, classes,
        fields=frozenset(needs), states=ctx.states, shadows=ctx.shadows, views=views_of(graphs["train"]),
    )  # fmt: skip


def views_of(graph: DetGraph) -> dict[str, Origin]:
    """The views that a graph takes, with the places of its inputs."""
    return {n.id: n.origin for n in graph.nodes() if n.op is None and getattr(n.type, "kind", "") == "view"}


def _merge_claims(ctx: Elaborator, before: int) -> None:
    """An edit that arrived in one phase has arrived."""
    first = {(str(c.origin.span), c.claim.text): c.claim for c in ctx.claims[:before]}
    for c in ctx.claims[before:]:
        twin = first.get((str(c.origin.span), c.claim.text))
        if twin is not None:
            twin.hits = c.claim.hits = twin.hits + c.claim.hits


def _add_output(ctx: Elaborator, name: str, value: Value) -> None:
    from detc.compiler.elaboration.apply import as_arg

    if value.data is POISON:
        return
    arg, t = as_arg(value)
    if t is not None:
        ctx.graph.outputs[name] = arg


def _check_losses(ctx: Elaborator, graph: DetGraph, report: Report) -> None:
    """Warn about losses that reach no trainable node (DET0504)."""
    trainable: dict[str, bool] = {}
    for node in graph.nodes():
        own = node.weights is not None and not ctx.weights[node.weights].frozen
        if own and getattr(node.op, "frozen", False):
            own = False
        sources = {w.node for a in node.args for w in _wires(a)}
        trainable[node.id] = own or any(trainable[s] for s in sources)
    for loss in graph.losses:
        if not trainable.get(loss.wire.node, False):
            found = error(
                "DET0504",
                f"the loss `{loss.name}` reaches no trainable node",
                loss.origin,
                "nothing learns from this",
                severity=WARNING,
            )
            report.add(*found.diagnostics)


def _wires(arg: Any) -> list[Wire]:
    from detc.compiler.graph import arg_wires

    return list(arg_wires(arg))
