"""Edits: `set`, `replace`, `remove`, `insert`, `tie`, and the claims that they make on a tree.

Every edit is collected before the tree that it edits is built, and applied where its path arrives. Layers are
ordered from the innermost `extends` to the command line; within one layer, patches come before the body, and two
patches that claim one path are a conflict unless the body settles it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from detc.compiler.expressions.evaluate import Scope, evaluate
from detc.compiler.values import Span1, Value, raw, show
from detc.dsl import ast
from detc.dsl.diagnostics import Report, closest, did_you_mean, error
from detc.dsl.source import Origin

BODY = "<body>"
COMMAND_LAYER = 2_000_000  # edits of the command line have the last word
RUN_FIELDS = ("data", "model", "train", "target")
_INDEX = re.compile(r"\[[^\]]*\]")


@dataclass
class Claim:
    """What is shared by all copies of one edit on its way down: whether it arrived somewhere."""

    text: str
    origin: Origin
    kind: str
    hits: int = 0
    excused: bool = False


@dataclass(frozen=True)
class Segment:
    """A path step: a name, and which indices it selects (None: no index written, "*": all)."""

    name: str
    select: tuple[Any, ...] | str | None = None

    def matches(self, name: str, index: tuple[int, ...]) -> bool:
        """True if this step selects the node `name[index]`."""
        if name != self.name and self.name != "*":
            return False
        if self.select is None:
            return not index
        if self.select == "*":
            return bool(index)
        assert isinstance(self.select, tuple)
        if len(index) > 1:
            return len(self.select) == len(index) and all(
                _selects(s, i) for s, i in zip(self.select, index, strict=True)
            )
        return len(index) == 1 and any(_selects(s, index[0]) for s in self.select)

    def __str__(self) -> str:
        if self.select is None:
            return self.name
        inner = "*" if self.select == "*" else ", ".join(show(s) for s in self.select)
        return f"{self.name}[{inner}]"


def _selects(selector: Any, index: int) -> bool:
    if isinstance(selector, Span1):
        return index in selector.indices(10**6)
    return selector == index


@dataclass(frozen=True)
class Active:
    """An edit at some node, with what is left of its path below that node."""

    stmt: ast.Stmt
    path: tuple[Segment, ...]
    scope: Scope
    origin: Origin
    claim: Claim
    layer: int = 0
    source: str = BODY

    @property
    def last(self) -> Segment | None:
        """The only step left, or None if more or fewer are left."""
        return self.path[0] if len(self.path) == 1 else None

    def enter(self) -> Active:
        """This edit one step further down."""
        return replace(self, path=self.path[1:])


@dataclass
class Edits:
    """All edits that concern one node and what lies below it, innermost layer first."""

    items: list[Active] = field(default_factory=list)

    def into(self, name: str, index: tuple[int, ...] = ()) -> tuple[list[Active], Edits]:
        """Edits of the child `name[index]` itself, and those of what lies below it."""
        arrived = [e.enter() for e in self.items if e.path and e.path[0].matches(name, index)]
        return [e for e in arrived if not e.path], Edits([e for e in arrived if e.path])

    def of_field(self, name: str) -> list[Active]:
        """Edits whose last step is the plain name `name`."""
        return [e for e in self.items if e.last is not None and e.last == Segment(name)]


def new_value(edit: Active, scope: Scope | None = None) -> Value:
    """What a `set` or `replace` puts there, marked as put there by an edit."""
    assert isinstance(edit.stmt, (ast.SetStmt, ast.ReplaceStmt))
    return _marked(evaluate(edit.stmt.value, scope or edit.scope))


def _marked(value: Value) -> Value:
    data = value.data
    if isinstance(data, list):
        data = [_marked(v) for v in data]
    elif isinstance(data, dict):
        data = {k: _marked(v) for k, v in data.items()}
    return Value(data, replace(value.origin, edited=True), value.was)


def path_segments(path: ast.Path, scope: Scope) -> tuple[Segment, ...]:
    """The steps of a written path, with its indices evaluated."""
    steps = [Segment(path.head)]
    for part in path.segments:
        if part.name is not None:
            steps.append(Segment(part.name))
        elif part.every:
            steps[-1] = replace(steps[-1], select="*")
        else:
            picked = []
            for item in part.indices:
                value = evaluate(item, scope)
                if isinstance(value.data, list):
                    picked += raw(value)
                else:
                    picked.append(value.data if isinstance(value.data, Span1) else raw(value))
            steps[-1] = replace(steps[-1], select=tuple(picked))
    return tuple(steps)


def edit_path(stmt: ast.Stmt) -> ast.Path:
    """The path that an edit statement names."""
    assert isinstance(stmt, ast.EDITS)
    return stmt.path


KINDS = {
    ast.SetStmt: "set",
    ast.ReplaceStmt: "replace",
    ast.RemoveStmt: "remove",
    ast.InsertStmt: "insert",
    ast.TieStmt: "tie",
}


def activate(
    stmt: ast.Stmt, scope: Scope, layer: int, source: str, prefix: tuple[Segment, ...] = ()
) -> Active:
    """A written edit as an active one."""
    path = prefix + path_segments(edit_path(stmt), scope)
    origin = Origin(stmt.span, scope.via)
    text = ".".join(map(str, path))
    return Active(stmt, path, scope, origin, Claim(text, origin, KINDS[type(stmt)]), layer, source)


def settle(edits: Sequence[Active], what: str, report: Report) -> Active | None:
    """The edit that wins among those that write one thing; reports conflicts (DET0402).

    The outermost layer wins; within a layer the body wins over patches; two patches, or two statements of one
    body, conflict.
    """
    if not edits:
        return None
    for e in edits:
        e.claim.hits += 1
    top = max(e.layer for e in edits)
    same = [e for e in edits if e.layer == top]
    body = [e for e in same if e.source == BODY]
    rivals = body or same
    if len(rivals) > 1:
        first, second = rivals[0], rivals[1]
        where = "twice in one body" if body else f"by the patches {first.source} and {second.source}"
        report.add(
            *error(
                "DET0402",
                f"`{what}` is written {where}",
                second.origin,
                "written again here",
                secondary=[(first.origin, "first written here")],
                help=None if body else f"settle it by writing `{what}` in the body yourself",
            ).diagnostics
        )
    return rivals[-1]


def unmatched(
    edits: Sequence[Active],
    known: Sequence[str],
    report: Report,
    shadows: Mapping[str, str] | None = None,
    addable: Sequence[str] = (),
) -> None:
    """Report every edit whose path arrived nowhere (DET0401), or inside of a shadow (DET0406).

    shadows: the path of each shadow node, and of the node that it follows.
    addable: fields that a declaration of this kind may have, whether or not the base has them.
    """
    seen: set[int] = set()
    for edit in edits:
        claim = edit.claim
        if claim.hits or claim.excused or id(claim) in seen or claim.kind == "tie":
            continue
        seen.add(id(claim))
        full = claim.text
        within = next((p for p in shadows or {} if full.startswith(f"{p}.")), None)
        if shadows and within is not None:
            twin = shadows[within] + full.removeprefix(within)
            report.add(
                *error(
                    "DET0406",
                    f"`{within}` is a shadow: set the fields of its rule, or edit the node that it follows",
                    Origin(edit_path(edit.stmt).span, edit.scope.via),
                    "a shadow has no other structure",
                    help=f"to change both, write `{claim.kind} {twin}`",
                ).diagnostics
            )
            continue
        head, dot, rest = full.partition(".")
        if edit.layer == COMMAND_LAYER and head in RUN_FIELDS:
            hint = _nearest(full, [f"{head}.{k}" for k in known])
        else:
            hint = _nearest(full, known)
            near = closest(head, RUN_FIELDS) if dot and edit.layer == COMMAND_LAYER and not hint else None
            hint = f"; did you mean `{near}.{rest}`?" if near else hint
        report.add(
            *error(
                "DET0401",
                f"`{claim.kind} {full}` matches nothing",
                Origin(edit_path(edit.stmt).span, edit.scope.via),
                "no such path" + hint,
                help="an edit has to hit something that exists; `detc graph` lists the paths"
                if full not in addable
                else f"the base gives no `{full}`: write `{full} = …` without `{claim.kind}` to add it",
            ).diagnostics
        )


def _nearest(path: str, known: Sequence[str]) -> str:
    """`; did you mean …?`: the same path of an array, a path that looks like it, or one that ends like it."""
    plain = _INDEX.sub("", path)
    array = next((k for k in known if _INDEX.sub("", k) == plain and k != path), None)
    if array is not None and "[" not in path:
        return f"; did you mean `{_INDEX.sub('[*]', array)}`?"
    inner = [k for k in known if k.startswith(f"{path}.")]
    if inner:
        return f"; it holds {', '.join(f'`{k}`' for k in inner[:4])}{', …' if len(inner) > 4 else ''}"
    parent, _, tail = path.rpartition(".")
    same_tail = [k for k in known if k.rsplit(".", 1)[-1] == tail]
    siblings = [k for k in known if parent and k.rpartition(".")[0] == parent]
    if siblings and not same_tail:  # its name alone decides: long paths resemble each other anyway
        near = closest(tail, [k.rpartition(".")[2] for k in siblings])
        if near is None:
            shown = ", ".join(f"`{k}`" for k in siblings[:6])
            return (
                f"; there {'are' if len(siblings) > 1 else 'is'} {shown}{', …' if len(siblings) > 6 else ''}"
            )
        return f"; did you mean `{parent}.{near}`?"
    same_depth = [k for k in known if k.count(".") == path.count(".")]
    hint = did_you_mean(path, same_depth) or did_you_mean(path, known) or did_you_mean(path, same_tail)
    return hint or (f"; there is `{same_tail[0]}`" if same_tail and "." in same_tail[0] else "")
