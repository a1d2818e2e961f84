"""Lark's parse tree -> statements, declarations and files."""

from __future__ import annotations

from typing import Any

from detc.dsl import ast
from detc.dsl.build import Builder, Parsed, dotted
from detc.dsl.diagnostics import Edit, error
from detc.dsl.recovery import DECLARING
from detc.dsl.source import Span

FOREIGN_BLOCKS = {
    "elif": "else when",
    "elsif": "else when",
    "elseif": "else when",
    "while": "a `repeat i in 0 .. n` over a known range",
    "class": "a `component` or a `model`, outside of other declarations",
    "def": "a `component`, outside of other declarations",
    "function": "a `component`, outside of other declarations",
    "switch": "a chain of `when … { } else when … { }`",
    "match": "a chain of `when … { } else when … { }`",
    "try": "a `where` condition, since nothing fails at run time",
}


def parts(tree: Parsed) -> dict[str, Any]:
    """The children by rule name or token type; of equal ones the last."""
    return {child.data if hasattr(child, "data") else child.type: child for child in tree.children}


class FileBuilder(Builder):
    """Adds statements and declarations to the expression builder."""

    def file(self, tree: Parsed) -> ast.File:
        edition = None
        imports, decls = [], []
        for child in tree.children:
            if child.data == "header":
                edition = self.integer(child.children[0])
            elif child.data in ("import_names", "import_module"):
                imports.append(self.import_(child))
            elif child.meta.start_pos not in self.dropped:
                decls.append(self.decl(child))
        span = Span(self.source, 0, len(self.source.text))
        return ast.File(edition=edition, imports=tuple(imports), decls=tuple(decls), span=span)

    def import_(self, tree: Parsed) -> ast.Import:
        module, *rest = tree.children
        first = module.children[0]
        is_file = first.type == "STRING"
        names = []
        alias = None
        if tree.data == "import_module":
            alias = str(rest[0])
        else:
            for item in rest:
                name, *local = (str(token) for token in item.children)
                names.append(
                    ast.ImportName(name=name, alias=local[0] if local else name, span=self.span(item))
                )
        return ast.Import(
            module=self.string(first) if is_file else dotted(module),
            is_file=is_file,
            alias=alias,
            names=tuple(names),
            module_span=self.span(module),
            span=self.span(tree),
        )

    # --- declarations --------------------------------------------------------------------------

    def decl(self, tree: Parsed) -> ast.Decl:
        found = parts(tree)
        name = found.get("NAME") or found.get("STRING")
        common: dict[str, Any] = {
            "body": self.block(found["block"]),
            "name_span": self.span(name) if name else self.span(tree),
            "doc": self.doc(tree.meta.start_pos),
            "span": self.span(tree),
        }
        if tree.data == "test":
            assert name is not None
            return ast.TestDecl(name=self.string(name), **common)
        common["name"] = str(name) if name else ""
        if tree.data == "interface":
            return ast.InterfaceDecl(**common)
        if tree.data == "run":
            return ast.RunDecl(**common)
        common["params"] = tuple(self.param(p) for p in found["params"].children) if "params" in found else ()
        common["kind"] = str(found["KIND"])
        if tree.data == "patch":
            return ast.PatchDecl(**common)
        return ast.Template(
            role=dotted(found["role"].children[0]) if "role" in found else None,
            base=self.applied(found["base"].children[0]) if "base" in found else None,
            mixins=tuple(self.applied(a) for a in found["mixins"].children) if "mixins" in found else (),
            **common,
        )

    def param(self, tree: Parsed) -> ast.Param:
        found = parts(tree)
        return ast.Param(
            name=str(found["NAME"]),
            type=self.type(found["typed"]),
            default=self.assigned(found),
            doc=self.doc(tree.meta.start_pos),
            span=self.span(tree),
        )

    def assigned(self, found: dict[str, Any], rule: str = "assigned") -> ast.Expr | None:
        return self.expr(found[rule].children[0]) if rule in found else None

    # --- statements ----------------------------------------------------------------------------

    def block(self, tree: Parsed) -> tuple[ast.Stmt, ...]:
        return tuple(self.stmt(child) for child in tree.children if child.meta.start_pos not in self.dropped)

    def stmt(self, tree: Parsed) -> ast.Stmt:
        self.depth += 1
        self.check_depth(0, tree)
        common = {"doc": self.doc(tree.meta.start_pos), "span": self.span(tree)}
        result: ast.Stmt = getattr(self, "stmt_" + tree.data)(tree, common)
        self.depth -= 1
        return result

    def stmt_in_port(self, tree: Parsed, common: dict[str, Any]) -> ast.Stmt:
        name, typed = tree.children
        return ast.InPort(name=str(name), type=self.type(typed), **common)

    def stmt_out_port(self, tree: Parsed, common: dict[str, Any]) -> ast.Stmt:
        found = parts(tree)
        kind = self.type(found["typed"]) if "typed" in found else None
        return ast.OutPort(name=str(found["NAME"]), type=kind, value=self.assigned(found), **common)

    def stmt_node(self, tree: Parsed, common: dict[str, Any]) -> ast.Stmt:
        found = parts(tree)
        value = next(
            c for c in tree.children if hasattr(c, "data") and c.data not in ("target", "typed", "from_")
        )
        return ast.NodeStmt(
            target=self.target(found["target"]),
            type=self.type(found["typed"]) if "typed" in found else None,
            value=self.expr(value),
            weights=self.assigned(found, "from_"),
            role="frozen" if "FROZEN" in found else "shadow" if "SHADOW" in found else "",
            **common,
        )

    def stmt_state(self, tree: Parsed, common: dict[str, Any]) -> ast.Stmt:
        name, typed, value = tree.children
        return ast.StateStmt(name=str(name), type=self.type(typed), value=self.expr(value), **common)

    def stmt_next(self, tree: Parsed, common: dict[str, Any]) -> ast.Stmt:
        name, value = tree.children
        return ast.NextStmt(name=str(name), value=self.expr(value), **common)

    def stmt_let(self, tree: Parsed, common: dict[str, Any]) -> ast.Stmt:
        name, value = tree.children
        return ast.LetStmt(name=str(name), value=self.expr(value), **common)

    def stmt_wire(self, tree: Parsed, common: dict[str, Any]) -> ast.Stmt:
        targets = [c for c in tree.children if c.data == "target"]
        value = tree.children[len(targets)]
        weights = self.assigned(parts(tree), "from_")
        return ast.WireStmt(
            targets=tuple(self.target(t) for t in targets), value=self.expr(value), weights=weights, **common
        )

    def stmt_step(self, tree: Parsed, common: dict[str, Any]) -> ast.StepStmt:
        name, value = tree.children
        return ast.StepStmt(name=str(name.children[0]), value=self.expr(value), **common)

    def stmt_sub(self, tree: Parsed, common: dict[str, Any]) -> ast.Stmt:
        found = parts(tree)
        self.check_swallowed(tree, found)
        self.check_foreign(tree, str(found["name"].children[0]))
        label: str | ast.QuantityLit | None = None
        quoted = False
        if "label" in found:
            (token,) = found["label"].children
            quoted = token.type == "STRING"
            if token.type == "QUANTITY":
                label = self.quantity(token)
            else:
                label = self.string(token) if quoted else str(token)
        return ast.SubBlock(
            kind=str(found["name"].children[0]),
            label=label,
            label_quoted=quoted,
            base=self.applied(found["base"].children[0]) if "base" in found else None,
            body=self.block(found["block"]),
            **common,
        )

    def check_foreign(self, tree: Parsed, kind: str) -> None:
        """Report a block of another language that happens to read as a sub-block: `elif x { … }`."""
        right = FOREIGN_BLOCKS.get(kind)
        if right is None:
            return
        start = tree.meta.start_pos
        span = Span(self.source, start, start + len(kind))
        fix = Edit(span, right) if not right.startswith("a ") else None
        message = f"`{kind}` is not a block of this language"
        if right.startswith("else"):
            message = f"`{kind}` is written `{right}`"
        label = f"write `{right}`" if fix else f"use {right}"
        self.problems.append(error("DET0101", message, span, label, fix=fix))

    def check_swallowed(self, tree: Parsed, found: dict[str, Any]) -> None:
        """Note a declaration that an unclosed block above has taken for a sub-block."""
        start = tree.meta.start_pos
        kind = str(found["name"].children[0])
        if kind not in DECLARING or (start > 0 and self.source.text[start - 1] != "\n"):
            return
        if "label" in found or "base" in found or kind == "run":
            self.swallowed.append(start)

    def stmt_loss(self, tree: Parsed, common: dict[str, Any]) -> ast.Stmt:
        target, *args, value = tree.children
        items = self.args(args[0].children) if args else ()
        return ast.LossStmt(target=self.target(target), args=items, value=self.expr(value), **common)

    def stmt_where(self, tree: Parsed, common: dict[str, Any]) -> ast.Stmt:
        condition, message = tree.children
        return ast.WhereStmt(
            condition=self.expr(condition),
            message=self.string(message),
            message_span=self.span(message),
            **common,
        )

    def stmt_repeat(self, tree: Parsed, common: dict[str, Any]) -> ast.Stmt:
        name, iterable, body = tree.children
        return ast.RepeatStmt(name=str(name), iterable=self.expr(iterable), body=self.block(body), **common)

    def stmt_when(self, tree: Parsed, common: dict[str, Any]) -> ast.Stmt:
        condition, body, *rest = tree.children
        otherwise: tuple[ast.Stmt, ...] = ()
        if rest:
            (inner,) = rest[0].children
            otherwise = (self.stmt(inner),) if inner.data == "when" else self.block(inner)
        return ast.WhenStmt(
            condition=self.expr(condition), body=self.block(body), otherwise=otherwise, **common
        )

    def stmt_at(self, tree: Parsed, common: dict[str, Any]) -> ast.Stmt:
        time, body = tree.children
        return ast.AtStmt(time=self.expr(time), body=self.block(body), **common)

    def stmt_expect(self, tree: Parsed, common: dict[str, Any]) -> ast.Stmt:
        return ast.ExpectStmt(condition=self.expr(tree.children[0]), **common)

    def stmt_set(self, tree: Parsed, common: dict[str, Any]) -> ast.Stmt:
        path, value = tree.children
        return ast.SetStmt(path=self.path(path), value=self.expr(value), **common)

    def stmt_replace(self, tree: Parsed, common: dict[str, Any]) -> ast.Stmt:
        path, value = tree.children
        return ast.ReplaceStmt(path=self.path(path), value=self.expr(value), **common)

    def stmt_remove(self, tree: Parsed, common: dict[str, Any]) -> ast.Stmt:
        return ast.RemoveStmt(path=self.path(tree.children[0]), **common)

    def stmt_insert(self, tree: Parsed, common: dict[str, Any]) -> ast.Stmt:
        step, where, path = tree.children
        inner = {"doc": "", "span": self.span(step)}
        return ast.InsertStmt(
            step=self.stmt_step(step, inner), where=str(where), path=self.path(path), **common
        )

    def stmt_tie(self, tree: Parsed, common: dict[str, Any]) -> ast.Stmt:
        path, other = tree.children
        return ast.TieStmt(path=self.path(path), other=self.path(other), **common)
