"""Which comment belongs to which piece of syntax, by place.

The text is seen as containers (the file, blocks, argument lists, lists, …) with items in them. A comment
belongs to the innermost container around it: *trailing* an item that ends on its line, else *leading* the
next item, else *dangling* at the container's end; or *opening*, right behind the opening bracket. A comment
in the middle of an item that is no container itself is moved in front of that item.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field, fields

from detc.dsl import ast
from detc.dsl.scan import CLOSING, OPENING, Comment, comments, docs_before, marks

DOCUMENTED = (ast.Stmt, ast.Param, ast.Decl)


@dataclass(frozen=True)
class Item:
    """One item: the node and where it stands."""

    node: object
    start: int
    end: int


@dataclass
class Container:
    """`open` and `close` are the offsets of its brackets; `key` tells it from others of the same node."""

    key: tuple[int, str]
    open: int
    close: int
    items: list[Item]


@dataclass
class Leading:
    """A comment line before an item. `blank` asks for an empty line before it."""

    text: str
    blank: bool


@dataclass
class Trivia:
    """Comments and blank lines of one text, by `id` of the node or by container key."""

    source: bool = False
    leading: dict[int, list[Leading]] = field(default_factory=dict)
    trailing: dict[int, list[str]] = field(default_factory=dict)
    blank: dict[int, bool] = field(default_factory=dict)  # an empty line before the item, or before its docs
    opening: dict[tuple[int, str], list[str]] = field(default_factory=dict)
    dangling: dict[tuple[int, str], list[Leading]] = field(default_factory=dict)
    flat: set[tuple[int, str]] = field(default_factory=set)  # blocks that the author wrote on one line

    def has_inside(self, key: tuple[int, str], nodes: tuple[object, ...]) -> bool:
        """Whether any comment must be printed directly inside this container."""
        if key in self.opening or key in self.dangling:
            return True
        return any(id(n) in self.leading or id(n) in self.trailing for n in nodes)


class Reader:
    """Finds the containers of a parsed file and distributes its comments over them."""

    def __init__(self, file: ast.File, text: str) -> None:
        self.file = file
        self.text = text
        self.comments = comments(text)
        self.starts = [c.start for c in self.comments]
        masked = list(text)
        for comment in self.comments:
            masked[comment.start : comment.end] = " " * (comment.end - comment.start)
        self.masked = "".join(masked)
        self.partner = _partners(text)
        self.docs: dict[int, list[Comment]] = {}
        self.containers: list[Container] = []
        self.trivia = Trivia(source=True)

    def read(self) -> Trivia:
        self._collect_file()
        used = {c.start for group in self.docs.values() for c in group}
        free = [c for c in self.comments if c.start not in used]
        placed: dict[int, list[Comment]] = {}
        ends: dict[int, list[Comment]] = {}
        for comment in free:
            self._place(comment, placed, ends)
        for container in self.containers:
            self._blanks(container, placed, ends)
        return self.trivia

    # --- containers ----------------------------------------------------------------------------

    def _collect_file(self) -> None:
        items = [Item(x, x.span.start, x.span.end) for x in (*self.file.imports, *self.file.decls)]
        if self.file.edition is not None:
            start = self.masked.index("det")
            end = start + 3
            while end < len(self.masked) and (self.masked[end].isspace() or self.masked[end].isdigit()):
                end += 1
            end = len(self.masked[:end].rstrip())
            items.insert(0, Item(HEADER, start, end))
        self.containers.append(Container((id(self.file), "body"), -1, len(self.text), items))
        for node in (*self.file.imports, *self.file.decls):
            self._collect(node)

    def _collect(self, node: ast.Ast) -> None:
        if isinstance(node, DOCUMENTED):
            index = bisect_left(self.starts, node.span.start)
            found = docs_before(self.text, self.comments, index, node.span.start)[1] if node.doc else []
            self.docs[id(node)] = found
        for slot, opening, children in self._slots(node):
            close = self.partner.get(opening, opening)
            items = [Item(child, child.span.start, child.span.end) for child in children]
            self.containers.append(Container((id(node), slot), opening, close, items))
            self._note_flat((id(node), slot), opening, close, items)
        for name in fields(node):
            value = getattr(node, name.name)
            for child in value if isinstance(value, tuple) else (value,):
                if isinstance(child, ast.Ast):
                    self._collect(child)

    def _note_flat(self, key: tuple[int, str], opening: int, close: int, items: list[Item]) -> None:
        first = items[0].start if items else close
        if "\n" not in self.text[opening:first]:
            self.trivia.flat.add(key)

    def _slots(self, node: ast.Ast) -> Iterator[tuple[str, int, tuple[ast.Ast, ...]]]:
        """The containers of a node: slot, offset of the opening bracket, items."""
        last = node.span.end - 1
        match node:
            case ast.Import(alias=None):
                yield "names", self.partner[last], node.names
            case ast.Template() | ast.PatchDecl():
                if node.params:
                    yield "params", self.masked.index("(", node.name_span.end), node.params
                yield "body", self.partner[last], node.body
            case ast.Decl() | ast.SubBlock() | ast.RepeatStmt() | ast.AtStmt():
                yield "body", self.partner[last], node.body
            case ast.WhenStmt():
                opening = self.masked.index("{", node.condition.span.end)
                yield "body", opening, node.body
                rest = self.masked[self.partner[opening] + 1 : node.span.end].lstrip()
                if rest.startswith("else") and rest[4:].lstrip().startswith("{"):
                    yield "else", self.masked.index("{", self.partner[opening] + 1), node.otherwise
            case ast.Call(args=args) | ast.Applied(args=args) if args:
                yield "args", self.partner[last], args
            case ast.LossStmt(args=args) if args:
                yield "args", self.masked.index("(", node.target.span.end), args
            case ast.TupleExpr(items=items) | ast.ListExpr(items=items) | ast.RecordExpr(fields=items) if (
                items
            ):
                yield "items", node.span.start, items

    # --- comments ------------------------------------------------------------------------------

    def _place(
        self, comment: Comment, placed: dict[int, list[Comment]], ends: dict[int, list[Comment]]
    ) -> None:
        """Attach one comment; `placed` and `ends` remember where leading and dangling ones stood."""
        around = [c for c in self.containers if c.open < comment.start < c.close]
        container = min(around, key=lambda c: c.close - c.open)
        before = [i for i in container.items if i.end <= comment.start]
        inside = [i for i in container.items if i.start < comment.start < i.end]
        after = [i for i in container.items if i.start > comment.start]
        if inside:
            placed.setdefault(id(inside[0].node), []).append(comment)
        elif not comment.own_line and before and "\n" not in self.text[before[-1].end : comment.start]:
            self.trivia.trailing.setdefault(id(before[-1].node), []).append(comment.text)
        elif (
            not comment.own_line
            and not before
            and "\n" not in self.text[max(container.open, 0) : comment.start]
        ):
            self.trivia.opening.setdefault(container.key, []).append(comment.text)
        elif after:
            placed.setdefault(id(after[0].node), []).append(comment)
        else:
            ends.setdefault(id(container), []).append(comment)

    def _blanks(
        self, container: Container, placed: dict[int, list[Comment]], ends: dict[int, list[Comment]]
    ) -> None:
        """Turn the comments of one container into lines, keeping at most one empty line between things."""
        first = True
        for item in container.items:
            plain = placed.get(id(item.node), [])
            docs = self.docs.get(id(item.node), [])
            things = sorted([*plain, *docs], key=lambda c: c.start)
            inside = [c for c in plain if c.start > item.start]
            gap = self._gap(things[0].start if things and not inside else item.start)
            lines = []
            for index, comment in enumerate(plain):
                blank = gap and not first if index == 0 else self._gap(comment.start) and not inside
                after_doc = any(d.start < comment.start for d in docs)
                lines.append(Leading(_plain(comment, item.node), blank and not (index and after_doc)))
            if lines:
                self.trivia.leading[id(item.node)] = lines
                next_start = docs[0].start if docs else item.start
                late = not inside and all(c.start < next_start for c in plain)
                self.trivia.blank[id(item.node)] = late and self._gap(next_start)
            else:
                self.trivia.blank[id(item.node)] = gap and not first
            first = False
        for index, comment in enumerate(ends.get(id(container), [])):
            blank = self._gap(comment.start) and not (first and index == 0)
            self.trivia.dangling.setdefault(container.key, []).append(Leading(comment.text, blank))

    def _gap(self, offset: int) -> bool:
        """Whether an empty line stands directly before `offset`."""
        before = self.text[:offset].rstrip(" \t\r\ufeff")
        if not before.endswith("\n"):
            return False
        return before[:-1].rstrip(" \t\r").endswith("\n")


class _Header:
    """Stands for the `det 1` line, which is no node of its own."""


HEADER = _Header()


def read_trivia(file: ast.File, text: str) -> Trivia:
    """Distribute the comments of `text` over the nodes of `file`, which was parsed from it."""
    return Reader(file, text).read()


def _plain(comment: Comment, node: object) -> str:
    """A comment's text; one that has come before a documentable node must not turn into its docs."""
    if comment.text.startswith("##") and isinstance(node, DOCUMENTED):
        return "#" + comment.text.lstrip("#")
    return comment.text


def _partners(text: str) -> dict[int, int]:
    """Offsets of matching brackets, in both directions."""
    stack: list[int] = []
    found: dict[int, int] = {}
    for mark in marks(text):
        if mark.text in OPENING:
            stack.append(mark.start)
        elif mark.text in CLOSING and stack:
            opening = stack.pop()
            found[opening], found[mark.start] = mark.start, opening
    return found
