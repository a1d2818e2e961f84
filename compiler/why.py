"""`detc why`: how a value came to be what it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from detc.compiler.experiments.runs import ResolvedRun
from detc.compiler.graph import Decision, Model
from detc.compiler.text import node_text
from detc.dsl.diagnostics import did_you_mean, error
from detc.dsl.render import place
from detc.dsl.source import Span


def why(run: ResolvedRun, path: str) -> str:
    """The value at a path of the model (`neck.lateral[2].out`), with every place that had a say; or, for the
    path of a node, its parameters, and where it is applied.

    Raises:
        DetError: DET0401 if there is no such path.
    """
    decision = _find(run.model, path)
    return _decision(decision) if decision is not None else _node(run.model, path)


def why_data(run: ResolvedRun, path: str) -> dict[str, Any]:
    """What `why` says, as plain data; a history begins with the last word.

    Raises:
        DetError: DET0401 if there is no such path.
    """
    model = run.model
    decision = _find(model, path)
    if decision is not None:
        return {"path": path, "value": decision.history[0][1], "history": _history(decision)}
    weight = model.weights.get(path)
    inside = [(own, s) for own, s in model.sources.items() if _related(path, own)]
    return {
        "path": path,
        "declared": place(weight.origin.span) if weight is not None else None,
        "frozen": weight is not None and weight.frozen,
        "from": [{"path": own, "text": text, **place(origin.span)} for own, (text, origin) in inside],
        "params": {
            d.path.removeprefix(f"{path}."): {"value": d.history[0][1], "history": _history(d)}
            for d in _direct(model.decisions.values(), path)
        },
        "applied": [
            {"phase": graph.phase, "id": node.id, "type": str(node.type), **place(node.origin.span)}
            for graph in (model.infer, model.train)
            for node in graph.nodes()
            if node.weights == path
        ],
    }


def _find(model: Model, path: str) -> Decision | None:
    """The decision about a value; None for a node."""
    decision = model.decisions.get(path)
    if decision is not None:
        return decision
    if path in model.weights or any(p.startswith(f"{path}.") for p in model.decisions):
        return None
    known = [*model.decisions, *model.weights]
    tail = path.rsplit(".", 1)[-1]
    near = did_you_mean(path, known) or did_you_mean(path, [k for k in known if k.rsplit(".", 1)[-1] == tail])
    raise error(
        "DET0401", f"{model.name} has no path `{path}`{near}", None, help="`detc graph` lists the paths"
    )


def _history(d: Decision) -> list[dict[str, Any]]:
    return [
        {"how": kind, "value": value, **place(origin.span), "via": [place(s) for s in origin.via]}
        for kind, value, origin in d.history
    ]


def _related(path: str, own: str) -> bool:
    return path == own or path.startswith(f"{own}.") or own.startswith(f"{path}.")


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
        if _related(path, own):
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
