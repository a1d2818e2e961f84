"""`detc fmt`: the one style of `.det` files, and a printer for trees that never had a text."""

from __future__ import annotations

from collections.abc import Sequence

from detc.dsl import ast
from detc.dsl.diagnostics import DetError
from detc.dsl.doc import HARD, Doc, Line, Suffix, concat, group, indent, join, layout
from detc.dsl.format_expr import ExprPrinter, quote
from detc.dsl.parser import parse
from detc.dsl.source import Source
from detc.dsl.trivia import HEADER, Leading, Trivia, read_trivia


def format_text(text: str, name: str = "<text>") -> str:
    """Format a whole file.

    Comments stay, at most one empty line is kept between things, lines have at most 100 columns where that is
    possible. Raises DetError for text with syntax errors.
    """
    file, problems = parse(Source(name, text))
    if problems:
        raise DetError(*problems)
    printed = _layout(Printer(read_trivia(file, text)).file(file))
    again, problems = parse(Source(name, printed))
    assert not problems and again == file, "formatting must not change the meaning of a file"
    return printed


def format_file(file: ast.File) -> str:
    """Print a tree that need not come from a text; parsing the result gives an equal tree."""
    return _layout(Printer(Trivia()).file(file))


def format_expr(expr: ast.Expr) -> str:
    """Print one expression, on one line if it fits in 100 columns."""
    return layout(ExprPrinter(Trivia()).expr(expr))


def format_path(path: ast.Path) -> str:
    """Print one path."""
    return layout(ExprPrinter(Trivia()).path(path))


def _layout(doc: Doc) -> str:
    text = layout(doc).strip("\n")
    return text + "\n" if text else ""


class Printer(ExprPrinter):
    """Statements, declarations and files."""

    def file(self, file: ast.File) -> Doc:
        parts: list[tuple[object, Doc]] = []
        if file.edition is not None:
            parts.append((HEADER, f"det {file.edition}"))
        parts += [(node, self.import_(node)) for node in file.imports]
        parts += [(node, self.decl(node)) for node in file.decls]
        return self.lines((id(file), "body"), parts, self.bare_blank)

    def bare_blank(self, node: object, previous: object) -> bool:
        """Empty lines of a tree without a text: around declarations."""
        if isinstance(node, ast.Import):
            return False
        return isinstance(node, ast.Decl) and previous is not None

    def lines(self, key: tuple[int, str], parts: Sequence[tuple[object, Doc]], bare=None) -> Doc:  # type: ignore[no-untyped-def]
        """Things on lines of their own, with their comments and empty lines."""
        out: list[Doc] = []
        previous: object = None
        for node, doc in parts:
            if out:
                out.append(HARD)
            out += self.leading(self.trivia.leading.get(id(node), []))
            blank = self.trivia.blank.get(id(node), False)
            if not self.trivia.source and bare is not None:
                blank = bare(node, previous)
            if blank:
                out.append(HARD)
            out.append(concat(doc, *self.trailing(node)))
            previous = node
        dangling = self.trivia.dangling.get(key, [])
        if dangling:
            lines = self.leading(dangling)[:-1]
            out += [HARD, *lines] if out else lines
        return tuple(out)

    def leading(self, comments: Sequence[Leading]) -> list[Doc]:
        out: list[Doc] = []
        for comment in comments:
            out += [HARD] if comment.blank else []
            out += [comment.text, HARD]
        return out

    # --- declarations --------------------------------------------------------------------------

    def import_(self, node: ast.Import) -> Doc:
        module = quote(node.module) if node.is_file else node.module
        if node.alias is not None:
            return f"import {module} as {node.alias}"
        names = [n.name if n.alias == n.name else f"{n.name} as {n.alias}" for n in node.names]
        items = list(zip(node.names, names, strict=True))
        return concat(f"import {module} ", self.bracketed("{}", (id(node), "names"), items, fill=True))

    def decl(self, node: ast.Decl) -> Doc:
        head: list[Doc] = [self.doc(node.doc)]
        match node:
            case ast.TestDecl():
                head.append(f"test {quote(node.name)} ")
            case ast.RunDecl():
                head.append(f"run {node.name} " if node.name else "run ")
            case ast.InterfaceDecl():
                head.append(f"interface {node.name} ")
            case ast.PatchDecl():
                head += [f"patch {node.name}", self.params(node), f" for {node.kind} "]
            case ast.Template():
                head += [f"{node.kind} {node.name}", self.params(node)]
                head.append(f" : {node.role}" if node.role else "")
                head.append(concat(" extends ", self.applied(node.base)) if node.base else "")
                for index, mixin in enumerate(node.mixins):
                    head.append(concat(", " if index else " with ", self.applied(mixin)))
                head.append(" ")
        return concat(*head, self.block((id(node), "body"), node.body))

    def params(self, node: ast.Template | ast.PatchDecl) -> Doc:
        if not node.params:
            return ""
        items = [(param, self.param(param)) for param in node.params]
        return self.bracketed("()", (id(node), "params"), items, rows=True)

    def param(self, node: ast.Param) -> Doc:
        default = concat(" = ", self.expr(node.default)) if node.default is not None else ""
        return concat(self.doc(node.doc), f"{node.name}: ", self.type(node.type), default)

    def doc(self, text: str) -> Doc:
        """`##` lines; each ends in a newline, so a group around them is broken."""
        if not text:
            return ""
        return tuple(part for line in text.split("\n") for part in (f"## {line}".rstrip(), HARD))

    # --- statements ----------------------------------------------------------------------------

    def block(self, key: tuple[int, str], body: tuple[ast.Stmt, ...]) -> Doc:
        """`{ … }`; on one line if its author wrote it so and it fits."""
        if self.is_flat(key, body):
            return group(self.flat_block(body))
        return self.tall_block(key, body)

    def is_flat(self, key: tuple[int, str], body: tuple[ast.Stmt, ...]) -> bool:
        """Whether a block was written on one line and can stay there."""
        written = key in self.trivia.flat or not body
        return written and not self.trivia.has_inside(key, body)

    def flat_block(self, body: tuple[ast.Stmt, ...]) -> Doc:
        """A block for the inside of a group: flat or tall as the group is."""
        if not body:
            return "{}"
        lines: list[Doc] = []
        for stmt in body:
            lines += [Line("  ")] if lines else []
            lines.append(self.stmt(stmt))
        return concat("{", indent(Line(), *lines), Line(), "}")

    def tall_block(self, key: tuple[int, str], body: tuple[ast.Stmt, ...]) -> Doc:
        opening: list[Doc] = [Suffix(" " + text) for text in self.trivia.opening.get(key, [])]
        inside = self.lines(key, [(stmt, self.stmt(stmt)) for stmt in body])
        return concat("{", *opening, indent(HARD, inside) if inside else "", HARD, "}")

    def stmt(self, node: ast.Stmt) -> Doc:
        body: Doc = getattr(self, "stmt_" + type(node).__name__.lower())(node)
        return concat(self.doc(node.doc), body)

    def stmt_inport(self, node: ast.InPort) -> Doc:
        return concat(f"input {node.name}: ", self.type(node.type))

    def stmt_outport(self, node: ast.OutPort) -> Doc:
        kind = concat(": ", self.type(node.type)) if node.type is not None else ""
        return concat(f"output {node.name}", kind, self.assigned(node.value))

    def stmt_nodestmt(self, node: ast.NodeStmt) -> Doc:
        role = f"{node.role} " if node.role else ""
        kind = concat(": ", self.type(node.type)) if node.type is not None else ""
        return concat(
            f"{role}node ",
            self.target(node.target),
            kind,
            self.assigned(node.value),
            self.from_(node.weights),
        )

    def stmt_statestmt(self, node: ast.StateStmt) -> Doc:
        return concat(f"state {node.name}: ", self.type(node.type), self.assigned(node.value))

    def stmt_nextstmt(self, node: ast.NextStmt) -> Doc:
        return concat(f"next {node.name}", self.assigned(node.value))

    def stmt_letstmt(self, node: ast.LetStmt) -> Doc:
        return concat(f"let {node.name}", self.assigned(node.value))

    def stmt_wirestmt(self, node: ast.WireStmt) -> Doc:
        targets: list[Doc] = []
        for target in node.targets:
            targets += [", "] if targets else []
            targets.append(self.target(target))
        return concat(*targets, self.assigned(node.value), self.from_(node.weights))

    def stmt_stepstmt(self, node: ast.StepStmt) -> Doc:
        return concat(f"{node.name}: ", self.expr(node.value))

    def stmt_subblock(self, node: ast.SubBlock) -> Doc:
        label = ""
        if isinstance(node.label, ast.QuantityLit):
            label = " " + self.quantity(node.label)
        elif node.label is not None:
            label = " " + (quote(node.label) if node.label_quoted else node.label)
        base = concat(" extends ", self.applied(node.base)) if node.base is not None else ""
        return concat(node.kind, label, base, " ", self.block((id(node), "body"), node.body))

    def stmt_lossstmt(self, node: ast.LossStmt) -> Doc:
        args = self.args((id(node), "args"), node.args) if node.args else ""
        return concat("loss ", self.target(node.target), args, self.assigned(node.value))

    def stmt_wherestmt(self, node: ast.WhereStmt) -> Doc:
        return group("where ", self.expr(node.condition), indent(Line(), f"else {quote(node.message)}"))

    def stmt_repeatstmt(self, node: ast.RepeatStmt) -> Doc:
        head = concat(f"repeat {node.name} in ", self.expr(node.iterable), " ")
        return concat(head, self.block((id(node), "body"), node.body))

    def stmt_whenstmt(self, node: ast.WhenStmt) -> Doc:
        branches = self.branches(node)
        if all(self.is_flat(key, body) for _, key, body in branches):
            parts = [concat(head, self.flat_block(body)) for head, _, body in branches]
            return group(join(" else ", parts))
        if len(branches) == 1:
            return concat(branches[0][0], self.block(branches[0][1], node.body))
        return join(" else ", [concat(head, self.tall_block(key, body)) for head, key, body in branches])

    def branches(self, node: ast.WhenStmt) -> list[tuple[Doc, tuple[int, str], tuple[ast.Stmt, ...]]]:
        """Head, container and statements of each branch of `when … else when … else …`."""
        found: list[tuple[Doc, tuple[int, str], tuple[ast.Stmt, ...]]] = []
        head = concat("when ", self.expr(node.condition), " ")
        found.append((head, (id(node), "body"), node.body))
        key = (id(node), "else")
        inner = node.otherwise[0] if len(node.otherwise) == 1 else None
        commented = self.trivia.has_inside(key, node.otherwise)
        if isinstance(inner, ast.WhenStmt) and not inner.doc and not commented:
            return found + self.branches(inner)
        if node.otherwise or commented:
            found.append(("", key, node.otherwise))
        return found

    def stmt_atstmt(self, node: ast.AtStmt) -> Doc:
        return concat("at ", self.expr(node.time), " ", self.block((id(node), "body"), node.body))

    def stmt_expectstmt(self, node: ast.ExpectStmt) -> Doc:
        return concat("expect ", self.expr(node.condition))

    def stmt_setstmt(self, node: ast.SetStmt) -> Doc:
        return concat("set ", self.path(node.path), self.assigned(node.value))

    def stmt_replacestmt(self, node: ast.ReplaceStmt) -> Doc:
        return concat("replace ", self.path(node.path), self.assigned(node.value))

    def stmt_removestmt(self, node: ast.RemoveStmt) -> Doc:
        return concat("remove ", self.path(node.path))

    def stmt_insertstmt(self, node: ast.InsertStmt) -> Doc:
        return concat("insert ", self.stmt_stepstmt(node.step), f" {node.where} ", self.path(node.path))

    def stmt_tiestmt(self, node: ast.TieStmt) -> Doc:
        return concat("tie ", self.path(node.path), " = ", self.path(node.other))

    def assigned(self, value: ast.Expr | None) -> Doc:
        return concat(" = ", self.expr(value)) if value is not None else ""

    def from_(self, value: ast.Expr | None) -> Doc:
        return concat(" from ", self.expr(value)) if value is not None else ""
