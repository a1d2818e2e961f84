"""`tie a.weight = b.weight`: one parameter under two names."""

from __future__ import annotations

import re
from collections.abc import Iterable

from detc.compiler.elaboration.edits import Active, Segment, path_segments
from detc.compiler.elaboration.params import ParamScope
from detc.compiler.graph import Weight
from detc.dsl import ast
from detc.dsl.diagnostics import DetError, Report, did_you_mean, error
from detc.dsl.source import Origin

_STEP = re.compile(r"([A-Za-z_]\w*)(?:\[([^\]]*)\])?")
Shapes = dict[str, tuple[tuple[int, ...] | None, Origin]]


def parameters(weights: dict[str, Weight]) -> Shapes:
    """Every parameter's path, with its shape (None if only torch knows it) and where its node stands."""
    found: Shapes = {}
    for path, weight in weights.items():
        shapes = weight.op.parameter_shapes(*weight.types)
        for name in shapes or ("weight", "bias"):
            found[f"{path}.{name}"] = (shapes[name] if shapes else None, weight.origin)
    return found


def steps(path: str) -> list[tuple[str, tuple[int, ...]]]:
    """`a[0].b[1, 2]` -> [("a", (0,)), ("b", (1, 2))]."""
    return [
        (m.group(1), tuple(int(i) for i in m.group(2).split(",")) if m.group(2) else ())
        for m in _STEP.finditer(path)
    ]


def resolve_ties(
    claims: Iterable[Active], weights: dict[str, Weight], report: Report
) -> list[tuple[str, str, Origin]]:
    """Pairs (own, other) of parameter paths: `own` becomes the parameter `other`.

    A path that ends at a node ties all of its parameters. Findings go to `report`: DET0401 for a path that
    matches nothing, DET0311 for several things on the right, DET0302 for different shapes, DET0210 for a cycle.
    """
    known = parameters(weights)
    shared: dict[str, tuple[str, Origin]] = {}
    for claim in {
        (str(c.origin.span), c.claim.text): c for c in claims if isinstance(c.stmt, ast.TieStmt)
    }.values():
        try:
            for own, other in _pairs(claim, known):
                _check(own, other, known, claim.origin)
                before = shared.get(own)
                if before is not None and before[0] != other:
                    raise error(
                        "DET0402",
                        f"`{own}` is tied to two parameters",
                        claim.origin,
                        f"to `{other}` here",
                        secondary=[(before[1], f"to `{before[0]}` here")],
                    )
                shared[own] = (other, claim.origin)
        except DetError as problem:
            report.add(*problem.diagnostics)
    return _roots(shared, report)


def _pairs(claim: Active, known: Shapes) -> list[tuple[str, str]]:
    assert isinstance(claim.stmt, ast.TieStmt) and isinstance(claim.scope, ParamScope)
    here = tuple(Segment(n, i or None) for n, i in steps(claim.scope.owner.path))
    left = _matching(claim, here + path_segments(claim.stmt.path, claim.scope), claim.stmt.path, known)
    claim.claim.hits += len(left)
    right = _matching(claim, here + path_segments(claim.stmt.other, claim.scope), claim.stmt.other, known)
    if len(right) > 1:
        message = f"`tie` shares one thing, and {len(right)} match on the right: {', '.join(list(right)[:3])}"
        raise error("DET0311", message, Origin(claim.stmt.other.span, claim.scope.via), "more than one")
    ((source, names),) = right.items()
    pairs = []
    for place, own in left.items():
        if place == source:
            continue  # `tie head.cls[*] = head.cls[0]` names the source too
        for name in own:
            if name not in names:
                message = f"`{place}{name}` has no partner: `{source}` has no such parameter"
                raise error("DET0401", message, claim.origin, "tied here")
            pairs.append((place + name, source + name))
    if not pairs:
        raise error(
            "DET0311", f"`{source}` is tied to itself", claim.origin, "the same parameter on both sides"
        )
    return pairs


def _matching(
    claim: Active, path: tuple[Segment, ...], written: ast.Path, known: Shapes
) -> dict[str, list[str]]:
    """What a path names: place -> its parameters' names ("" for a single parameter, ".weight" below a node)."""
    found: dict[str, list[str]] = {}
    for full in known:
        parts = steps(full)
        if len(parts) - len(path) not in (0, 1):
            continue
        if all(s.matches(n, i) for s, (n, i) in zip(path, parts, strict=False)):
            whole = len(parts) == len(path)
            node, _, name = full.rpartition(".")
            found.setdefault(full if whole else node, []).append("" if whole else f".{name}")
    if not found:
        text = ".".join(map(str, path))
        raise error(
            "DET0401",
            f"`tie` finds no parameter `{text}`",
            Origin(written.span, claim.scope.via),
            "no such parameter" + did_you_mean(text, [*known, *{k.rpartition(".")[0]: None for k in known}]),
        )
    return found


def _check(own: str, other: str, known: Shapes, origin: Origin) -> None:
    a, b = known[own], known[other]
    if a[0] is not None and b[0] is not None and a[0] != b[0]:
        raise error(
            "DET0302",
            f"`{own}` has the shape {list(a[0])}, and `{other}` {list(b[0])}",
            origin,
            "they cannot be one parameter",
            secondary=[(a[1], f"{list(a[0])} from here"), (b[1], f"{list(b[0])} from here")],
        )


def _roots(shared: dict[str, tuple[str, Origin]], report: Report) -> list[tuple[str, str, Origin]]:
    """Chains of ties followed to their ends."""
    found = []
    for own, (other, origin) in shared.items():
        seen = [own]
        while other in shared:
            seen.append(other)
            if other == own or shared[other][0] in seen:
                message = "ties go round in a circle: " + " = ".join([*seen, shared[other][0]])
                report.add(*error("DET0210", message, origin, "in this circle").diagnostics)
                break
            other = shared[other][0]
        else:
            found.append((own, other, origin))
    return found
