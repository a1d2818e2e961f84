"""`detc why`: how a value came to be what it is."""

from __future__ import annotations

from collections.abc import Iterable

from detc.compiler.graph import Decision, Model
from detc.compiler.runs import ResolvedRun
from detc.compiler.text import node_text
from detc.dsl.diagnostics import did_you_mean, error
from detc.dsl.source import Span


def why(run: ResolvedRun, path: str) -> str:
    """The value at a path of the model (`neck.lateral[2].out`), with every place that had a say; or, for the
    path of a node, its parameters, and where it is applied.

    Raises:
        DetError: DET0401 if there is no such path.
    """
    model = run.model
    decision = model.decisions.get(path)
    if decision is not None:
        return _decision(decision)
    if path in model.weights or any(p.startswith(f"{path}.") for p in model.decisions):
        return _node(model, path)
    known = [*model.decisions, *model.weights]
    tail = path.rsplit(".", 1)[-1]
    near = did_you_mean(path, known) or did_you_mean(path, [k for k in known if k.rsplit(".", 1)[-1] == tail])
    raise error(
        "DET0401", f"{model.name} has no path `{path}`{near}", None, help="`detc graph` lists the paths"
    )


def _decision(d: Decision) -> str:
    words = {"set": "set", "given": "given", "default": "default"}
    lines = [f"{d.path} = {d.history[0][1]}"]
    for i, (kind, value, origin) in enumerate(d.history):
        label = words[kind] if i == 0 else f"was {value}"
        lines.append(_line(label, origin.span))
        lines += [_line("  via", span) for span in origin.via if span.source.text]
    return "\n".join(lines) + "\n"


def _line(label: str, span: Span) -> str:
    if not span.source.text:
        return f"  {label:<10} (built in)"
    line, _ = span.source.position(span.start)
    return f"  {label:<10} {span!s:<34} {span.source.line(line).strip()}"


def _node(model: Model, path: str) -> str:
    lines = [path]
    weight = model.weights.get(path)
    if weight is not None:
        lines.append(_line("declared", weight.origin.span))
        if weight.frozen:
            lines.append("  frozen")
    for own, (text, origin) in model.sources.items():
        if path == own or path.startswith(f"{own}.") or own.startswith(f"{path}."):
            lines.append(_line(f"from {text!r}", origin.span))
    for d in _direct(model.decisions.values(), path):
        lines.append(
            f"  {d.path.removeprefix(path + '.')} = {d.history[0][1]}  ({d.history[0][0]} {d.history[0][2].span})"
        )
    for graph in (model.infer, model.train):
        for node in graph.nodes():
            if node.weights == path:
                lines.append(f"  {graph.phase}: {node_text(node)}")
    return "\n".join(lines) + "\n"


def _direct(decisions: Iterable[Decision], path: str) -> list[Decision]:
    return [
        d for d in decisions if d.path.startswith(f"{path}.") and "." not in d.path.removeprefix(f"{path}.")
    ]
