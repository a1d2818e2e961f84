"""Printing of expressions, types and paths, with as few parentheses as the grammar allows."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise

from detc.dsl import ast
from detc.dsl.doc import HARD, LINE, SOFT, Doc, IfBroken, Suffix, concat, group, indent, join
from detc.dsl.trivia import Trivia

# How tightly an expression binds; a child that binds less than its place asks for stands in parentheses.
CHAIN, TERNARY, OR, AND, NOT, COMPARE, RANGE, SUM, TERM, RATE, UNARY, POSTFIX = range(12)
COMPARISONS = ("==", "!=", "<=", ">=", "<", ">")
# operator: own level, level asked of the left and of the right child
BINARY = {
    "or": (OR, OR, AND),
    "and": (AND, AND, NOT),
    "in": (COMPARE, RANGE, RANGE),
    **dict.fromkeys(COMPARISONS, (COMPARE, RANGE, RANGE)),
    **dict.fromkeys(("+", "-"), (SUM, SUM, TERM)),
    **dict.fromkeys(("*", "/", "//", "%"), (TERM, TERM, RATE)),
    "per": (RATE, UNARY, UNARY),
}
LITERALS = (ast.Literal, ast.QuantityLit, ast.SizeLit)


def quote(text: str) -> str:
    """A string literal."""
    for raw, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\t", "\\t"), ("\r", "\\r")):
        text = text.replace(raw, escaped)
    return f'"{text}"'


def level(expr: ast.Expr) -> int:
    """How tightly `expr` binds when it is printed."""
    match expr:
        case ast.Chain() | ast.Using():
            return CHAIN
        case ast.Conditional():
            return TERNARY
        case ast.Binary():
            return COMPARE if comparison_chain(expr) else BINARY[expr.op][0]
        case ast.Unary(op=op):
            return NOT if op == "not" else UNARY
        case ast.RangeExpr():
            return RANGE
        case ast.Literal(value=value) if type(value) in (int, float) and str(value).startswith("-"):
            return UNARY
    return POSTFIX


def comparison_chain(expr: ast.Expr) -> list[ast.Binary] | None:
    """The pairs of `a < b < c`: `and`s of comparisons that share their middle operand (the very object)."""
    pairs: list[ast.Binary] = []
    rest: ast.Expr = expr
    while isinstance(rest, ast.Binary) and rest.op == "and":
        right = rest.right
        if not isinstance(right, ast.Binary) or right.op not in COMPARISONS:
            return None
        pairs.insert(0, right)
        rest = rest.left
    if not pairs or not isinstance(rest, ast.Binary) or rest.op not in COMPARISONS:
        return None
    pairs.insert(0, rest)
    shared = all(a.right is b.left for a, b in pairwise(pairs))
    return pairs if shared else None


class ExprPrinter:
    """Prints expressions. With the trivia of a text, numbers keep their spelling and comments their place."""

    def __init__(self, trivia: Trivia) -> None:
        self.trivia = trivia

    def expr(self, expr: ast.Expr, least: int = CHAIN) -> Doc:
        """Print `expr` where at least level `least` is needed."""
        doc: Doc = getattr(self, "expr_" + type(expr).__name__.lower())(expr)
        if level(expr) >= least:
            return doc
        return group("(", indent(SOFT, doc), SOFT, ")")

    def expr_literal(self, node: ast.Literal) -> Doc:
        value = node.value
        if isinstance(value, str):
            return quote(value)
        if value is None or isinstance(value, bool):
            return {True: "true", False: "false", None: "none"}[value]
        return node.span.text if self.trivia.source else repr(value)

    def expr_quantitylit(self, node: ast.QuantityLit) -> Doc:
        return self.quantity(node)

    def quantity(self, node: ast.QuantityLit) -> str:
        if self.trivia.source:
            return node.span.text
        number = format(Decimal(repr(node.value)), "f")
        return f"{number}{'.0' if isinstance(node.value, float) and '.' not in number else ''}{node.unit}"

    def expr_sizelit(self, node: ast.SizeLit) -> Doc:
        return f"{node.width}x{node.height}"

    def expr_ref(self, node: ast.Ref) -> Doc:
        return node.name

    def expr_attr(self, node: ast.Attr) -> Doc:
        return concat(self.before_postfix(node.value), f".{node.name}")

    def before_postfix(self, value: ast.Expr) -> Doc:
        """What a `.`, `[` or `(` follows. A number stands in parentheses, so that no point seems its own."""
        if isinstance(value, LITERALS) and not (
            isinstance(value, ast.Literal) and isinstance(value.value, str)
        ):
            return concat("(", self.expr(value), ")")
        return self.expr(value, POSTFIX)

    def expr_index(self, node: ast.Index) -> Doc:
        return concat(self.before_postfix(node.value), self.indices(node.items))

    def indices(self, items: Sequence[ast.Expr]) -> Doc:
        return concat("[", join(", ", [self.expr(item) for item in items]), "]")

    def expr_call(self, node: ast.Call) -> Doc:
        return concat(self.before_postfix(node.func), self.args((id(node), "args"), node.args))

    def expr_tupleexpr(self, node: ast.TupleExpr) -> Doc:
        return self.args((id(node), "items"), node.items)

    def expr_listexpr(self, node: ast.ListExpr) -> Doc:
        items = [(item, self.expr(item)) for item in node.items]
        simple = all(isinstance(item, LITERALS) for item in node.items)
        return self.bracketed("[]", (id(node), "items"), items, fill=simple)

    def expr_comprehension(self, node: ast.Comprehension) -> Doc:
        tail: list[Doc] = [LINE, f"for {node.name} in ", self.expr(node.iterable, OR)]
        if node.condition is not None:
            tail += [LINE, "if ", self.expr(node.condition, OR)]
        return group("[", indent(SOFT, self.expr(node.body), *tail), SOFT, "]")

    def expr_recordexpr(self, node: ast.RecordExpr) -> Doc:
        items = [(item, self.arg(item)) for item in node.fields]
        return self.bracketed("{}", (id(node), "items"), items)

    def expr_unary(self, node: ast.Unary) -> Doc:
        if node.op == "not":
            return concat("not ", self.expr(node.operand, NOT))
        return concat("-", self.expr(node.operand, UNARY))

    def expr_binary(self, node: ast.Binary) -> Doc:
        pairs = comparison_chain(node)
        if pairs:
            tail = [part for p in pairs for part in (f" {p.op}", LINE, self.expr(p.right, RANGE))]
            return group(self.expr(pairs[0].left, RANGE), indent(*tail))
        own, left_least, right_least = BINARY[node.op]
        # No line starts with an operator: `//` there would read as a comment of other languages.
        spine: list[Doc] = []
        left: ast.Expr = node
        while (
            isinstance(left, ast.Binary)
            and BINARY[left.op][0] == own
            and own not in (COMPARE, RATE)
            and not comparison_chain(left)
        ):
            spine[:0] = [f" {left.op}", LINE, self.expr(left.right, right_least)]
            left = left.left
        if own in (COMPARE, RATE):
            spine, left = [f" {node.op}", LINE, self.expr(node.right, right_least)], node.left
        return group(self.expr(left, left_least), indent(*spine))

    def expr_conditional(self, node: ast.Conditional) -> Doc:
        condition = concat(" if ", self.expr(node.condition, OR))
        otherwise = concat("else ", self.expr(node.otherwise, TERNARY))
        return group(self.expr(node.then, OR), condition, indent(LINE, otherwise))

    def expr_rangeexpr(self, node: ast.RangeExpr) -> Doc:
        parts: list[Doc] = []
        if node.start is not None:
            parts += [self.expr(node.start, SUM), " "]
        parts.append("..")
        if node.stop is not None:
            parts += [" ", self.expr(node.stop, SUM)]
        if node.step is not None:
            parts += [" step ", self.expr(node.step, SUM)]
        return tuple(parts)

    def expr_chain(self, node: ast.Chain) -> Doc:
        hops: list[Doc] = [
            concat(LINE, "-> ", self.expr_using(h) if isinstance(h, ast.Using) else self.expr(h, UNARY))
            for h in node.hops
        ]
        return group(self.expr(node.head, TERNARY), indent(*hops))

    def expr_using(self, node: ast.Using) -> Doc:
        return concat(self.expr(node.node, UNARY), " using ", self.expr(node.weights, UNARY))

    # --- argument lists, types, paths ----------------------------------------------------------

    def arg(self, node: ast.Arg) -> Doc:
        value = self.expr(node.value)
        return value if node.name is None else concat(f"{node.name} = ", value)

    def args(self, key: tuple[int, str], args: Sequence[ast.Arg]) -> Doc:
        return self.bracketed("()", key, [(arg, self.arg(arg)) for arg in args])

    def bracketed(
        self,
        brackets: str,
        key: tuple[int, str],
        items: Sequence[tuple[object, Doc]],
        *,
        rows: bool = False,
        fill: bool = False,
    ) -> Doc:
        """A comma list on one line; else its items on one line of their own; else one item a line.

        With `rows` the middle way is left out; with `fill` the items fill lines. Braces are padded.
        """
        opening, closing = brackets[0], brackets[1]
        nodes = tuple(node for node, _ in items)
        if self.trivia.has_inside(key, nodes):
            return self.commented(brackets, key, items)
        if not items:
            return brackets
        inside: list[Doc] = []
        for index, (_, doc) in enumerate(items):
            if index:
                inside.append(group(LINE, doc) if fill else concat(LINE, doc))
            else:
                inside.append(doc)
            inside.append("," if index < len(items) - 1 else IfBroken(","))
        edge = LINE if opening == "{" else SOFT
        body = concat(*inside) if rows or fill else group(*inside)
        return group(opening, indent(edge, body), edge, closing)

    def commented(self, brackets: str, key: tuple[int, str], items: Sequence[tuple[object, Doc]]) -> Doc:
        """A comma list with comments between its items, which then stand on lines of their own."""
        lines: list[Doc] = []
        for node, doc in items:
            lines += [comment.text for comment in self.trivia.leading.get(id(node), [])]
            lines.append(concat(doc, ",", *self.trailing(node)))
        lines += [comment.text for comment in self.trivia.dangling.get(key, [])]
        opened = [Suffix(" " + text) for text in self.trivia.opening.get(key, [])]
        return group(brackets[0], *opened, indent(HARD, join(HARD, lines)), HARD, brackets[1])

    def trailing(self, node: object) -> list[Doc]:
        return [Suffix(" " + text) for text in self.trivia.trailing.get(id(node), [])]

    def applied(self, node: ast.Applied) -> Doc:
        return concat(node.name, self.args((id(node), "args"), node.args) if node.args else "")

    def target(self, node: ast.Target) -> Doc:
        return concat(node.name, self.indices(node.indices) if node.indices else "")

    def path(self, node: ast.Path) -> Doc:
        parts: list[Doc] = [node.head]
        for segment in node.segments:
            if segment.every:
                parts.append("[*]")
            elif segment.name is not None:
                parts.append(f".{segment.name}")
            else:
                parts.append(self.indices(segment.indices))
        return tuple(parts)

    def type(self, node: ast.TypeExpr) -> Doc:
        if isinstance(node, ast.TypeUnion):
            return group(indent(join(concat(" |", LINE), [self.type(option) for option in node.options])))
        if isinstance(node, ast.TypeString):
            return quote(node.value)
        args = concat("[", join(", ", [self.arg(arg) for arg in node.args]), "]") if node.args else ""
        return concat(node.name, args, "?" if node.optional else "")
