"""Names that a component gives to two things: params, inputs, nodes, `let`s, wires, states and loop variables share
one scope, so the second of a name is an error with both places, wherever it stands (DET0205, DET0307).

Not a clash: elements of one array, what the branches of a `when` or the two phases define each for themselves,
`let`s and variables of loops that are not inside of each other, and outputs, which have names of their own. What only
values can tell (`x[0]` twice) is found while the body runs.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass

from detc.compiler.expressions.template import Level
from detc.dsl import ast
from detc.dsl.diagnostics import DetError, error
from detc.dsl.source import Origin, Span

HELP = "params, inputs, nodes, lets, wires and loop variables share their names: give one of the two another"
_ARTICLES = {"input": "an input", "output": "an output"}


@dataclass(frozen=True)
class Definition:
    """One place that gives a name; `guards` are the blocks around it: (which block, which part of it)."""

    name: str
    kind: str
    span: Span
    indexed: bool = False
    guards: tuple[tuple[str, int, str], ...] = ()
    slot: bool = False

    @property
    def words(self) -> str:
        """`a node`, `an input`."""
        return _ARTICLES.get(self.kind, f"a {self.kind}")

    def never_with(self, other: Definition) -> bool:
        """True if only one of the two can exist: other branches of a `when`, other phases."""
        mine = {(kind, block): part for kind, block, part in self.guards if kind != "repeat"}
        return any(mine.get((kind, block), part) != part for kind, block, part in other.guards)

    def in_loop_of(self, other: Definition) -> bool:
        """True if every loop around the other is around this one too."""
        mine = {block for kind, block, _ in self.guards if kind == "repeat"}
        return {block for kind, block, _ in other.guards if kind == "repeat"} <= mine


def definitions(decl: ast.Decl) -> list[Definition]:
    """Everything that a declaration gives a name to, in order."""
    params = [Definition(p.name, "param", p.span) for p in getattr(decl, "params", ())]
    return [*params, *_of_body(decl.body, ())]


def _of_body(body: tuple[ast.Stmt, ...], guards: tuple[tuple[str, int, str], ...]) -> Iterator[Definition]:
    for s in body:
        match s:
            case ast.WireStmt():
                for t in s.targets:
                    yield Definition(t.name, "wire", t.span, bool(t.indices), guards)
            case ast.NodeStmt():
                t = s.target
                yield Definition(t.name, "node", t.span, bool(t.indices), guards, s.type is not None)
            case ast.LetStmt() | ast.InPort() | ast.OutPort() | ast.StateStmt():
                yield Definition(s.name, _KINDS[type(s)], _place(s), guards=guards)
            case ast.RepeatStmt():
                inner = (*guards, ("repeat", s.span.start, ""))
                yield Definition(s.name, "loop variable", _place(s), guards=inner)
                yield from _of_body(s.body, inner)
            case ast.WhenStmt():
                yield from _of_body(s.body, (*guards, ("when", s.span.start, "then")))
                yield from _of_body(s.otherwise, (*guards, ("when", s.span.start, "else")))
            case ast.SubBlock() if s.kind in ("train", "infer") and s.label is None:
                yield from _of_body(s.body, (*guards, ("phase", 0, s.kind)))
            case _:
                pass


_KINDS = {ast.LetStmt: "let", ast.InPort: "input", ast.OutPort: "output", ast.StateStmt: "state"}


def _place(stmt: ast.LetStmt | ast.InPort | ast.OutPort | ast.StateStmt | ast.RepeatStmt) -> Span:
    """The name behind the word that begins a statement."""
    word = re.match(r"\w+\s+", stmt.span.text)
    start = stmt.span.start + (word.end() if word else 0)
    return Span(stmt.span.source, start, start + len(stmt.name))


def clashes(decl: ast.Decl) -> dict[str, DetError]:
    """The names that are defined twice in one declaration, each with its report."""
    return _among(definitions(decl))


def clashes_with_base(chain: list[Level]) -> dict[str, DetError]:
    """The names of the outermost declaration that its bases use for something else."""
    found: dict[str, DetError] = {}
    bases: dict[str, Definition] = {}
    for level in chain[1:]:
        for d in definitions(level.decl):
            if d.kind not in (
                "let",
                "output",
                "loop variable",
            ):  # private to the base, or meant to be given anew
                bases.setdefault(d.name, d)
    for own in definitions(chain[0].decl):
        base = bases.get(own.name)
        if base is None or own.kind == "output" or own.never_with(base) or own.name in found:
            continue
        passed_on = own.kind == "param" and (base.kind == "param" or base.slot)
        if passed_on or own.kind == base.kind == "input" or (own.indexed and base.indexed):
            continue
        problem = _report(base, own)
        if base.kind == "node":
            help = f"to put something else in place of the base's, write: replace {own.name} = …"
            problem = DetError(*(dataclasses.replace(d, help=help) for d in problem.diagnostics))
        found[own.name] = problem
    return found


def _among(listed: list[Definition]) -> dict[str, DetError]:
    found: dict[str, DetError] = {}
    first: dict[str, list[Definition]] = {}
    for d in listed:
        for before in first.get(d.name, ()):
            if d.name not in found and _clash(before, d):
                found[d.name] = _report(before, d)
        first.setdefault(d.name, []).append(d)
    return found


def _clash(a: Definition, b: Definition) -> bool:
    if a.never_with(b) or ("output" in (a.kind, b.kind) and a.kind != b.kind):
        return False
    if a.kind == b.kind and a.indexed and b.indexed:
        return False
    local = ("let", "loop variable")  # a repeat's own, unless something around it has the name
    if a.kind in local and b.kind in local:
        return a.in_loop_of(b) or b.in_loop_of(a)
    return True


def _report(first: Definition, second: Definition) -> DetError:
    name = second.name
    if (first.kind, second.kind) == ("state", "wire"):
        return error(
            "DET0307",
            f"`{name}` is assigned twice",
            second.span,
            "assigned again here",
            secondary=[(first.span, "the state that has this name")],
            help=f"the frame after has it from: next {name} = …",
        )
    if first.kind != second.kind:
        return error(
            "DET0205",
            f"`{name}` is both {first.words} and {second.words}",
            second.span,
            f"{second.words} of this name",
            secondary=[(first.span, f"{first.words} of this name")],
            help=HELP,
        )
    code, done = ("DET0307", "assigned") if second.kind in ("wire", "output") else ("DET0205", "declared")
    what = f"`{name}`" if second.kind == "wire" else f"the {second.kind} `{name}`"
    return error(
        code,
        f"{what} is {done} twice",
        second.span,
        f"{done} again here",
        secondary=[(first.span, f"first {done} here")],
        help="a wire is assigned once; give the second value another name" if second.kind == "wire" else None,
    )


def again(
    target: ast.Target,
    what: str,
    done: str,
    first: Span | None,
    via: tuple[Span, ...],
    help: str | None = None,
) -> DetError:
    """The report for a wire or node that values make the second of its name: an index twice, a round of a `repeat`."""
    same = first is None or first == target.span
    if same:
        inner = f"{target.name}[…]"
        help = f"it stands in a `repeat`, and each round needs its own: {inner} = … with the loop variable inside"
    return error(
        "DET0307" if done == "assigned" else "DET0205",
        f"{what} is {done} twice",
        Origin(target.span, via),
        f"{done} again here",
        secondary=[] if same else [(first, f"first {done} here")],
        help=help,
    )


_KNOWN: dict[int, tuple[ast.Decl, list[DetError], frozenset[str]]] = {}


def taken_twice(chain: list[Level]) -> tuple[list[DetError], frozenset[str]]:
    """The reports for a chain of declarations and the names that they are about; looked for once a declaration.

    Library files are held to this by the tests.
    """
    reports: list[DetError] = []
    names: frozenset[str] = frozenset()
    for depth, level in enumerate(chain):
        decl = level.decl
        if decl.span.source.library:
            break
        known = _KNOWN.get(id(decl))
        if known is None or known[0] is not decl:
            own = clashes(decl)
            both = {**clashes_with_base(chain[depth:]), **own}
            known = _KNOWN[id(decl)] = (decl, list(both.values()), frozenset(both))
        reports += known[1]
        names |= known[2]
    return reports, names
