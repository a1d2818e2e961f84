"""`--set path=value`: edits from the command line."""

from __future__ import annotations

from typing import Any

from detc.compiler.edits import Active, Claim, path_segments
from detc.compiler.modules import Module
from detc.compiler.values import Value
from detc.dsl import ast
from detc.dsl.diagnostics import DetError, did_you_mean, error
from detc.dsl.parser import parse_expression, parse_path
from detc.dsl.source import COMMAND_LINE, Origin, Source, Span

RUN_FIELDS = ("data", "model", "train", "target")


def command_line_edit(text: str, module: Module) -> tuple[str, Active]:
    """`--set path=value` as an edit of one of the run's parts.

    Raises:
        DetError: DET0906 if it is no edit.
    """
    path_text, eq, value_text = text.partition("=")
    if not eq or not path_text.strip():
        raise error("DET0906", f"--set wants path=value, not `{text}`")
    head, _, rest = path_text.strip().partition(".")
    if head not in RUN_FIELDS or not rest:
        head, rest = "model", path_text.strip()
    path = parse_path(rest, COMMAND_LINE)
    source = Source(COMMAND_LINE, value_text.strip())
    span = Span(source, 0, len(source.text))
    expr: ast.Expr
    try:
        expr = parse_expression(source.text, COMMAND_LINE)
        if isinstance(expr, (ast.Ref, ast.Attr)):
            raise error("DET0101", "a bare word")
    except DetError:
        expr = ast.Literal(value=source.text, span=span)
    stmt = ast.SetStmt(path=path, value=expr, span=span)
    scope = _TextScope(module)
    claim = Claim(path_text.strip(), Origin(span), "set")
    return head, Active(
        stmt, path_segments(path, scope), scope, Origin(span), claim, layer=2_000_000, source="<body>"
    )


class _TextScope:
    """The scope of values on the command line: no names of their own."""

    via: tuple[Span, ...] = ()

    def __init__(self, module: Module) -> None:
        self.module = module

    def find(self, name: str, span: Span) -> Value | None:
        """Nothing is local here."""
        return None

    def missing(self, name: str, span: Span) -> DetError:
        """An unknown word in a value."""
        return error(
            "DET0201",
            f"unknown name `{name}`",
            span,
            "not defined" + did_you_mean(name, self.module.visible()),
        )

    def apply(self, callee: Value, inputs: Any, span: Span) -> Value:
        """No wires here."""
        raise error("DET0313", "wires cannot be used on the command line", span, "applied here")

    def member(self, value: Value, name: str, span: Span) -> Value | None:
        """Nothing has members here."""
        return None
