"""The resolved spec: one `.det` text without imports, params or edits that gives the same run.

Nodes keep their paths, so checkpoints fit: components become bare containers of nodes, and the wiring of the
whole model stands flat in its body, one application a line, in the order of the graph.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING

from detc.compiler.elaboration.state import capacity_text, declared_type
from detc.compiler.expressions.literal import number_text, primitive_text, value_text
from detc.compiler.graph import Arg, DetGraph, Model, Node
from detc.compiler.pairing import paired
from detc.compiler.primitives import Primitive
from detc.compiler.spec import DataSpec, Follow, NamedStep, Step, TargetSpec, TrainSpec
from detc.compiler.values import Wire, show

if TYPE_CHECKING:
    from detc.compiler.experiments.runs import ResolvedRun

KEYWORDS = {"input", "output", "node", "let", "loss", "where", "repeat", "when", "set", "replace", "remove", "insert", "tie", "expect", "at", "state", "next", "frozen", "shadow", "true", "false", "none", "train", "infer", "and", "or", "not", "in", "if", "else", "for", "per", "step", "using", "from", "with", "extends"}  # fmt: skip


@dataclass
class _Place:
    """A node of the path tree: children by name and index, or a leaf's declaration."""

    children: dict[str, _Place] = field(default_factory=dict)
    leaf: str | None = None
    source: str | None = None
    frozen: bool = False
    shadow: str | None = None  # the rule of a shadow node


def _tree(model: Model) -> _Place:
    root = _Place()
    for path in _in_order(model):
        weight = model.weights[path]
        place = root
        for part in split_path(path):
            place = place.children.setdefault(part, _Place())
        place.leaf, place.frozen = primitive_text(weight.op), weight.frozen
    for path, (text, _) in model.sources.items():
        place = root
        for part in split_path(path):
            if part not in place.children:
                break
            place = place.children[part]
        else:
            place.source = text
    for shadow in model.shadows.values():
        followed, above = _places(root, shadow.path)
        if followed is not None:
            name = split_path(shadow.path)[-1]
            followed.shadow = _rule_text(shadow.rule, shadow.source.removeprefix(shadow.path[: -len(name)]))
            above.children[name] = above.children.pop(name)  # behind what it follows
    return root


def _in_order(model: Model) -> list[str]:
    """Paths of weights by their first use that counts, which is the order that reading the text again gives."""
    used = [
        n.weights
        for g in (model.infer, model.train)
        for n in _without_dead(g).nodes()
        if n.weights is not None
    ]
    return list(dict.fromkeys([*(path for path in used if path in model.weights), *model.weights]))


def _places(root: _Place, path: str) -> tuple[_Place | None, _Place]:
    """The place of a path, or None, and the place that it is in."""
    place, above = root, root
    for part in split_path(path):
        if part not in place.children:
            return None, above
        place, above = place.children[part], place
    return place, above


def _rule_text(rule: Follow, source: str) -> str:
    head, _, rest = primitive_text(rule).partition("(")
    return f"{head}({source}{', ' if rest != ')' else ''}{rest}"


def split_path(path: str) -> list[str]:
    """`a[0].b[1, 2].c` -> `a[0]`, `b[1, 2]`, `c`."""
    parts, depth, current = [], 0, ""
    for ch in path:
        depth += (ch == "[") - (ch == "]")
        if ch == "." and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += ch
    return [*parts, current]


class _Writer:
    def __init__(self) -> None:
        self.components: dict[str, str] = {}  # body -> name
        self.lines: list[str] = []

    def container(self, place: _Place, hint: str) -> str:
        """The name of a component that declares the nodes of `place`; equal ones are written once."""
        body = "\n".join(f"  {line}" for line in self.nodes(place, hint))
        if body not in self.components:
            name = f"Nodes{len(self.components)}"
            self.components[body] = name
            self.lines += [f"component {name} {{", body, "}", ""]
        return self.components[body]

    def nodes(self, place: _Place, hint: str) -> list[str]:
        """The `node` statements of a place."""
        found = []
        for name, child in place.children.items():
            if child.shadow is not None:
                found.append(f"shadow node {name} = {child.shadow}")
                continue
            made = child.leaf if child.leaf is not None else f"{self.container(child, name)}()"
            source = f" from {show(child.source)}" if child.source is not None else ""
            frozen = "frozen " if child.frozen and child.leaf is not None else ""
            found.append(f"{frozen}node {name} = {made}{source}")
        return found


def _names(graphs: list[DetGraph], order: list[Node], others: set[str]) -> dict[str, str]:
    """A wire name for each node id, given in the order in which nodes are written; `others` stand for something else."""
    taken: dict[str, str] = {name: name for name in ("image", "truth", "detections", "step")}
    taken |= {n.id: n.id for g in graphs for n in g.nodes() if getattr(n.type, "kind", "") == "view"}
    for graph in graphs:
        carried = [n.id for n in graph.nodes() if n.op is None and n.id.startswith("state.")]
        taken.update((id, id.removeprefix("state.")) for id in carried)
    names = {*taken.values(), *KEYWORDS, *others}
    for node in order:
        if node.id in taken:
            continue
        base = node.weights if node.weights is not None else type(node.op).name if node.op else node.id
        base = re.sub(r"\W+", "_", base).strip("_")
        name, n = f"{base}_", 2
        while name in names:
            name, n = f"{base}_{n}", n + 1
        taken[node.id] = name
        names.add(name)
    return taken


def _wire(wire: Wire, names: dict[str, str]) -> str:
    text = names[wire.node]
    for key in wire.path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}"
    return text


def _arg(arg: Arg, names: dict[str, str]) -> str:
    if isinstance(arg, Wire):
        return _wire(arg, names)
    if isinstance(arg, tuple):
        return "[" + ", ".join(_arg(a, names) for a in arg) + "]"
    assert isinstance(arg, dict)
    return "{" + ", ".join(f"{k} = {_arg(a, names)}" for k, a in arg.items()) + "}"


def _application(node: Node, names: dict[str, str]) -> str:
    assert node.op is not None
    ports = type(node.op).inputs
    args: list[str] = []
    gap = False
    for i, arg in enumerate(node.args):
        port = ports[min(i, len(ports) - 1)]
        if arg is None:
            gap = True
            continue
        args.append(f"{port.name} = {_arg(arg, names)}" if gap else _arg(arg, names))
    callee = node.weights if node.weights is not None else primitive_text(node.op)
    inputs = args[0] if len(args) == 1 and not gap and not args[0].startswith("[") else f"({', '.join(args)})"
    if len(args) == 1 and args[0].startswith("["):
        port = ports[0]
        inputs = args[0] if not port.variadic else f"({args[0][1:-1]})"
    return f"{names[node.id]} = {inputs} -> {callee}"


def model_text(model: Model, name: str = "Model") -> str:
    """The containers and the flat model."""
    writer = _Writer()
    root = writer.nodes(_tree(model), "")
    infer = _without_dead(model.infer)
    train, shared = paired(infer, _without_dead(model.train))
    model = replace(model, infer=infer, train=train)
    order = _order(model, shared)
    nodes = {path.partition(".")[0].partition("[")[0] for path in (*model.weights, *model.shadows)}
    names = _names([infer, train], [node for _, node in order], nodes)
    lines = [f"model {name} {{"]
    if "image" in model.infer or "image" in model.train:
        lines.append("  input image: image")
    if "detections" in model.infer:
        lines.append(f"  input detections: {capacity_text(model.infer.node('detections').type)}")
    if "truth" in model.train:
        lines.append("  train { input truth: instances }")
    if model.clocked:
        lines.append("  train { input step: step }")
    lines += [f"  train {{ input {view}: view }}" for view in model.views]
    lines += [f"  {n}" for n in root]
    lines += [f"  tie {own} = {other}" for own, other, _ in model.ties]
    for state in model.states.values():
        lines.append(f"  state {state.name}: {declared_type(state)} = {primitive_text(state.op)}")
    for kind, node in order:
        text = _application(node, names)
        lines.append(f"  {kind} {{ {text} }}" if kind else f"  {text}")
    for out, arg in model.infer.outputs.items():
        lines.append(f"  infer {{ output {out} = {_arg(arg, names)} }}")
    for name, arg in model.infer.nexts.items():
        lines.append(f"  infer {{ next {name} = {_arg(arg, names)} }}")
    for loss in model.train.losses:
        target, _, index = _loss_target(loss.name)
        lines.append(
            f"  train {{ loss {target}{index}(weight = {number_text(float(loss.weight))}) = {_arg(loss.wire, names)} }}"
        )
    return "\n".join([*writer.lines, *lines, "}", ""])


def _without_dead(graph: DetGraph) -> DetGraph:
    """The graph without what nothing needs; of nodes with weights one application stays, so that the weights do."""
    graph = graph.copy()
    if graph.phase == "train":
        graph.outputs = {}  # training yields losses
    alive: set[str] = set()

    def keep(todo: list[str]) -> None:
        while todo:
            id = todo.pop()
            if id not in alive:
                alive.add(id)
                todo += [w.node for a in graph.node(id).args for w in _wires(a)]

    keep([w.node for w in graph.roots()])
    used = {n.weights for n in graph.nodes() if n.id in alive}
    for node in graph.nodes():
        if node.weights is not None and node.weights not in used:
            used.add(node.weights)
            keep([node.id])
    for node in reversed(graph.nodes()):
        if node.id not in alive and node.op is not None:
            graph.remove(node.id)
    return graph


def _loss_target(name: str) -> tuple[str, str, str]:
    """A flat loss name: dots become underscores, a last index stays."""
    match = re.fullmatch(r"(.*?)(\[[^\]]*\])?", name)
    assert match is not None
    return re.sub(r"\W+", "_", match.group(1)).strip("_"), "", match.group(2) or ""


def _wires(arg: Arg) -> list[Wire]:
    from detc.compiler.graph import arg_wires

    return list(arg_wires(arg))


def _order(model: Model, shared: set[str]) -> list[tuple[str, Node]]:
    """The applications in the order in which they are written, with the phase of those of one phase."""
    found = [("", n) for n in model.infer.nodes() if n.id in shared]
    for graph in (model.train, model.infer):
        found += [(graph.phase, n) for n in graph.nodes() if n.op is not None and n.id not in shared]
    return found


def data_text(data: DataSpec, name: str = "Data") -> str:
    """A data declaration."""
    lines = [
        f"data {name} {{",
        f"  classes = {value_text(list(data.classes))}",
        f"  source = {primitive_text(data.source)}",
    ]
    for key, value in data.fields.items():
        lines.append(f"  {key} = {value_text(value)}")
    if data.active != "train":
        lines.append(f"  active = {show(data.active)}")
    if data.sources:
        lines.append("  sources {")
        lines += [f"    {s.name}: {primitive_text(s.source)}" for s in data.sources]
        lines.append("  }")
    if data.sample is not None:
        epoch = f"  epoch = {show(data.sample.epoch)}" if data.sample.epoch is not None else ""
        lines.append(f"  sample {{ ratio = {value_text(list(data.sample.ratio))}{epoch} }}")
    for label, steps in data.pipelines.items():
        lines.append(f"  pipeline {label} {{")
        lines += [f"    {line}" for s in steps for line in _step_lines(s)]
        lines.append("  }")
    return "\n".join([*lines, "}", ""])


def _step_lines(item: NamedStep) -> list[str]:
    """A step, or a block of steps."""
    if isinstance(item.step, Step):
        return [f"{item.name}: {primitive_text(item.step)}"]
    lines = [f"{item.step.name} {item.name} {{"]
    for branch, steps in item.step.branches.items():
        lines += [
            f"  {branch} {{",
            *(f"    {line}" for s in steps for line in _step_lines(s)),
            "  }",
        ]
    if item.step.weights is not None:
        lines.append(f"  weights = {value_text(list(item.step.weights))}")
    return [*lines, "}"]


def train_text(train: TrainSpec, name: str = "Train") -> str:
    """A train declaration."""
    lines = [
        f"train {name} {{",
        f"  epochs = {train.epochs}",
        f"  batch = {train.batch}img",
        f"  optim = {primitive_text(train.optim)}",
    ]
    if train.clip is not None:
        lines.append(f"  clip = {number_text(float(train.clip))}")
    late = f", every_late = {train.validate_late}" if train.validate_late is not None else ""
    lines += [
        f"  amp = {show(train.amp)}",
        f"  accumulate = {train.accumulate}",
        f"  seed = {train.seed}",
        f"  validate = {{every = {train.validate_every}{late}}}",
    ]
    lines += [f"  {k} = {value_text(v)}" for k, v in train.fields.items()]
    for rule in train.groups:
        inner = " ".join(f"{k} = {value_text(v)}" for k, v in rule.fields.items())
        lines.append(f"  group {show(rule.selector)} {{ {inner} }}")
    for block in ("lr", "hooks"):
        pieces: Mapping[str, Primitive] = getattr(train, block)
        if pieces:
            lines.append(f"  {block} {{")
            lines += [f"    {n}: {primitive_text(p)}" for n, p in pieces.items()]
            lines.append("  }")
    lines += [f"  at {s.at} {{ set {s.path} = {value_text(s.value)} }}" for s in train.switches]
    return "\n".join([*lines, "}", ""])


def target_text(target: TargetSpec, name: str = "Target") -> str:
    """A target declaration with the fields that were stated."""
    lines = [f"target {name} {{"]
    for f in fields(target):
        if f.name not in target.stated:
            continue
        value = getattr(target, f.name)
        if f.name == "batch" and value is not None:
            lines.append(
                f"  batch = {value[0]} .. {value[1]}" if value[0] != value[1] else f"  batch = {value[0]}"
            )
        elif f.name == "image":
            lines.append(f"  image = {value if value is not None else show('dynamic')}")
        else:
            lines.append(f"  {f.name} = {value_text(value)}")
    return "\n".join([*lines, "}", ""])


def resolved_text(run: ResolvedRun) -> str:
    """The whole run."""
    parts = ["det 1\n"]
    taken: set[str] = set()

    def own(name: str, kind: str) -> str:
        name = name if name and name not in taken and not re.match(r"Nodes\d+$", name) else kind
        taken.add(name)
        return name

    body = []
    model_name = own(run.model.name, "Model")
    if run.data is not None:
        data_name = own(run.data.name, "Data")
        parts.append(data_text(run.data, data_name))
        body.append(f"  data = {data_name}()")
    parts.append(model_text(run.model, model_name))
    body.append(f"  model = {model_name}()" + (f" from {show(run.weights[0])}" if run.weights else ""))
    if run.train is not None:
        train_name = own(run.train.name, "Train")
        parts.append(train_text(run.train, train_name))
        body.append(f"  train = {train_name}()")
    if run.target.stated:
        target_name = own(run.target.name, "Target")
        parts.append(target_text(run.target, target_name))
        body.append(f"  target = {target_name}()")
    parts.append("\n".join([f"run {run.name} {{" if run.name else "run {", *body, "}", ""]))
    return "\n".join(parts)
