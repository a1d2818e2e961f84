"""Lark's parse tree -> the AST of `dsl.ast`, with exact spans.

Optional parts of a rule are rules of their own, so children are found by name and never by position.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from detc.dsl import ast
from detc.dsl.diagnostics import DetError, Edit, error
from detc.dsl.scan import comments, docs_before
from detc.dsl.source import Source, Span

if TYPE_CHECKING:
    from lark import Token

Parsed = Any  # a tree of Lark, whose children have no better type than Any
MAX_DEPTH = 120  # of the AST: far beyond any real file, and safe for every recursive reader of the tree
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\"}
CONSTANTS: dict[str, bool | None] = {"TRUE": True, "FALSE": False, "NONE": None}
UNITS = ("GiB", "MiB", "img", "ep", "it", "ms", "px", "s", "%")


class Builder:
    """Builds the tree of one source. Not reusable.

    `dropped` holds the start offsets of statements and declarations that recovery made up; they are left out.
    """

    def __init__(self, source: Source, dropped: frozenset[int] = frozenset()) -> None:
        self.source = source
        self.dropped = dropped
        self.depth = 0
        self.comments = comments(source.text)
        self.comment_starts = [c.start for c in self.comments]
        self.problems: list[DetError] = []
        self.swallowed: list[int] = []  # starts of declarations that stand inside an unclosed block

    # --- helpers -------------------------------------------------------------------------------

    def span(self, item: Parsed | Token) -> Span:
        place: Any = item if hasattr(item, "start_pos") else getattr(item, "meta", None)
        return Span(self.source, place.start_pos, place.end_pos)

    def doc(self, start: int) -> str:
        index = bisect_left(self.comment_starts, start)
        if index == 0:
            return ""
        return docs_before(self.source.text, self.comments, index, start)[0]

    def string(self, token: Token) -> str:
        """The value of a quoted string."""
        text = token[1:-1]
        if "\\" not in text:
            return text
        out, at = [], 0
        while at < len(text):
            ch = text[at]
            if ch == "\\":
                at += 1
                if text[at] not in ESCAPES:
                    place = Span(self.source, token.start_pos + at, token.start_pos + at + 2)  # type: ignore[operator]
                    self.problems.append(
                        error(
                            "DET0101",
                            f"unknown escape `\\{text[at]}` in a string",
                            place,
                            "not an escape",
                            help='the escapes are \\n, \\t, \\r, \\" and \\\\; write \\\\ for a backslash',
                        )
                    )
                ch = ESCAPES.get(text[at], text[at])
            out.append(ch)
            at += 1
        return "".join(out)

    def fold(self, parts: list[ast.Expr], ops: list[str]) -> ast.Expr:
        """Left-associative folding of `a op b op c`."""
        result = parts[0]
        for op, right in zip(ops, parts[1:], strict=True):
            result = self.binary(op, result, right)
        return result

    def binary(self, op: str, left: ast.Expr, right: ast.Expr) -> ast.Binary:
        return ast.Binary(
            op=op, left=left, right=right, span=Span(self.source, left.span.start, right.span.end)
        )

    def check_depth(self, extra: int, item: Parsed) -> None:
        if self.depth + extra > MAX_DEPTH:
            raise error(
                "DET0101",
                f"this is nested more than {MAX_DEPTH} levels deep",
                self.span(item),
                "too deep",
                help="split it with `let` or into components",
            )

    # --- expressions ---------------------------------------------------------------------------

    def expr(self, tree: Parsed) -> ast.Expr:
        self.depth += 1
        self.check_depth(0, tree)
        result: ast.Expr = getattr(self, "expr_" + tree.data)(tree)
        self.depth -= 1
        return result

    def exprs(self, children: list[Any]) -> tuple[ast.Expr, ...]:
        return tuple(self.expr(child) for child in children)

    def expr_expression(self, tree: Parsed) -> ast.Expr:
        return self.expr(tree.children[0])

    def expr_literal(self, tree: Parsed) -> ast.Expr:
        (token,) = tree.children
        span = self.span(token)
        match token.type:
            case "INT":
                return ast.Literal(value=self.integer(token), span=span)
            case "FLOAT":
                return ast.Literal(value=float(token), span=span)
            case "STRING":
                return ast.Literal(value=self.string(token), span=span)
            case "SIZE":
                width, height = token.split("x")
                return ast.SizeLit(
                    width=self.integer(width, span), height=self.integer(height, span), span=span
                )
            case "QUANTITY":
                return self.quantity(token)
        return ast.Literal(value=CONSTANTS[token.type], span=span)

    def integer(self, text: str, span: Span | None = None) -> int:
        if len(text) > 18:
            raise error("DET0101", "this number has more than 18 digits", span or self.span(text))  # type: ignore[arg-type]
        return int(text)

    def quantity(self, token: Token) -> ast.QuantityLit:
        unit = next(u for u in UNITS if token.endswith(u))
        number = token[: -len(unit)]
        value = float(number) if "." in number else self.integer(number, self.span(token))
        return ast.QuantityLit(value=value, unit=unit, span=self.span(token))

    def expr_ref(self, tree: Parsed) -> ast.Expr:
        token = tree.children[0]
        span = self.span(token)
        if token in FOREIGN_CONSTANTS:
            self.problems.append(foreign_constant(str(token), span))
            return ast.Literal(value=FOREIGN_CONSTANTS[token], span=span)
        return ast.Ref(name=str(token), span=span)

    def expr_chain(self, tree: Parsed) -> ast.Expr:
        head, *hops = self.exprs(tree.children)
        return ast.Chain(head=head, hops=tuple(hops), span=self.span(tree))

    def expr_using(self, tree: Parsed) -> ast.Expr:
        node, weights = self.exprs(tree.children)
        return ast.Using(node=node, weights=weights, span=self.span(tree))

    def expr_conditional(self, tree: Parsed) -> ast.Expr:
        then, condition, otherwise = self.exprs(tree.children)
        return ast.Conditional(condition=condition, then=then, otherwise=otherwise, span=self.span(tree))

    def expr_or_(self, tree: Parsed) -> ast.Expr:
        self.check_depth(len(tree.children), tree)
        parts = list(self.exprs(tree.children))
        return self.fold(parts, ["or"] * (len(parts) - 1))

    def expr_and_(self, tree: Parsed) -> ast.Expr:
        self.check_depth(len(tree.children), tree)
        parts = list(self.exprs(tree.children))
        return self.fold(parts, ["and"] * (len(parts) - 1))

    def expr_negation(self, tree: Parsed) -> ast.Expr:
        return ast.Unary(op="not", operand=self.expr(tree.children[0]), span=self.span(tree))

    def expr_cmp(self, tree: Parsed) -> ast.Expr:
        self.check_depth(len(tree.children) // 2, tree)
        parts = self.exprs(tree.children[::2])
        pairs: list[ast.Expr] = [
            self.binary(str(op), left, right)
            for left, op, right in zip(parts, tree.children[1::2], parts[1:], strict=False)
        ]
        return self.fold(pairs, ["and"] * (len(pairs) - 1))

    def expr_contains(self, tree: Parsed) -> ast.Expr:
        return self.fold(list(self.exprs(tree.children)), ["in"])

    def expr_range(self, tree: Parsed) -> ast.Expr:
        start, stop, *step = self.exprs(tree.children)
        return ast.RangeExpr(start=start, stop=stop, step=step[0] if step else None, span=self.span(tree))

    def expr_range_from(self, tree: Parsed) -> ast.Expr:
        return ast.RangeExpr(start=self.expr(tree.children[0]), stop=None, step=None, span=self.span(tree))

    def expr_range_to(self, tree: Parsed) -> ast.Expr:
        return ast.RangeExpr(start=None, stop=self.expr(tree.children[0]), step=None, span=self.span(tree))

    def expr_range_all(self, tree: Parsed) -> ast.Expr:
        return ast.RangeExpr(start=None, stop=None, step=None, span=self.span(tree))

    def expr_sum(self, tree: Parsed) -> ast.Expr:
        self.check_depth(len(tree.children) // 2, tree)
        return self.fold(list(self.exprs(tree.children[::2])), [str(op) for op in tree.children[1::2]])

    expr_term = expr_sum

    def expr_per(self, tree: Parsed) -> ast.Expr:
        return self.fold(list(self.exprs(tree.children)), ["per"])

    def expr_minus(self, tree: Parsed) -> ast.Expr:
        return ast.Unary(op="-", operand=self.expr(tree.children[0]), span=self.span(tree))

    def expr_attr(self, tree: Parsed) -> ast.Expr:
        inner, name = tree.children
        value = self.expr(inner)
        touching = self.source.text[value.span.end : value.span.end + 1] == "."
        if touching and isinstance(value, ast.Literal) and type(value.value) in (int, float):
            point = Span(self.source, value.span.end, value.span.end + 1)
            fix = Edit(point, ".0")
            self.problems.append(error("DET0101", "a number ends with a digit", point, "write `.0`", fix=fix))
        return ast.Attr(value=value, name=str(name), span=self.span(tree))

    def expr_index(self, tree: Parsed) -> ast.Expr:
        value, indices = tree.children
        return ast.Index(value=self.expr(value), items=self.exprs(indices.children), span=self.span(tree))

    def expr_call(self, tree: Parsed) -> ast.Expr:
        func, args = tree.children
        return ast.Call(func=self.expr(func), args=self.args(args.children), span=self.span(tree))

    def expr_tuple(self, tree: Parsed) -> ast.Expr:
        items = self.args(tree.children)
        if len(items) == 1 and items[0].name is None:
            return items[0].value
        return ast.TupleExpr(items=items, span=self.span(tree))

    def expr_list(self, tree: Parsed) -> ast.Expr:
        return ast.ListExpr(items=self.exprs(tree.children), span=self.span(tree))

    def expr_comprehension(self, tree: Parsed) -> ast.Expr:
        body, name, iterable, *condition = tree.children
        return ast.Comprehension(
            body=self.expr(body),
            name=str(name),
            iterable=self.expr(iterable),
            condition=self.expr(condition[0]) if condition else None,
            span=self.span(tree),
        )

    def expr_record(self, tree: Parsed) -> ast.Expr:
        return ast.RecordExpr(fields=self.args(tree.children), span=self.span(tree))

    def args(self, children: list[Any]) -> tuple[ast.Arg, ...]:
        """`arg` and `field` trees -> arguments."""
        found = []
        for tree in children:
            *key, value = tree.children
            name = str(key[0].children[0]) if key else None
            found.append(ast.Arg(name=name, value=self.expr(value), span=self.span(tree)))
        return tuple(found)

    # --- types and paths -----------------------------------------------------------------------

    def type(self, tree: Parsed) -> ast.TypeExpr:
        """`type_atom`, `union`, or the `typed` around them."""
        if tree.data == "typed":
            return self.type(tree.children[0])
        if tree.data == "union":
            options = tuple(self.type(child) for child in tree.children)
            return ast.TypeUnion(options=options, span=self.span(tree))  # type: ignore[arg-type]
        first = tree.children[0]
        if not hasattr(first, "data"):
            return ast.TypeString(value=self.string(first), span=self.span(tree))
        args: tuple[ast.Arg, ...] = ()
        optional = False
        for child in tree.children[1:]:
            if hasattr(child, "data"):
                args = self.args(child.children)
            else:
                optional = True
        return ast.TypeName(name=dotted(first), args=args, optional=optional, span=self.span(tree))

    def target(self, tree: Parsed) -> ast.Target:
        name, *indices = tree.children
        items = self.exprs(indices[0].children) if indices else ()
        return ast.Target(name=str(name.children[0]), indices=items, span=self.span(tree))

    def path(self, tree: Parsed) -> ast.Path:
        head, *rest = tree.children
        segments = []
        for seg in rest:
            span = self.span(seg)
            if seg.data == "path_attr":
                segments.append(ast.PathSegment(name=str(seg.children[0]), span=span))
            elif seg.data == "path_every":
                segments.append(ast.PathSegment(every=True, span=span))
            else:
                items = self.exprs(seg.children[0].children)
                segments.append(ast.PathSegment(indices=items, span=span))
        return ast.Path(head=str(head.children[0]), segments=tuple(segments), span=self.span(tree))

    def applied(self, tree: Parsed) -> ast.Applied:
        name, *args = tree.children
        return ast.Applied(
            name=dotted(name),
            args=self.args(args[0].children) if args else (),
            name_span=self.span(name),
            span=self.span(tree),
        )


def dotted(tree: Parsed) -> str:
    """`a.b.c` as written, without blanks."""
    return ".".join(str(token) for token in tree.children)


FOREIGN_CONSTANTS: dict[str, bool | None] = {
    "True": True, "False": False, "None": None, "null": None, "nil": None
}  # fmt: skip


def foreign_constant(name: str, span: Span) -> DetError:
    """The error for Python's and JSON's spelling of a constant."""
    right = {True: "true", False: "false", None: "none"}[FOREIGN_CONSTANTS[name]]
    return error(
        "DET0101",
        f"`{name}` is written `{right}` here",
        span,
        f"write `{right}`",
        fix=Edit(span, right),
    )
