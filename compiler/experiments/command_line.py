"""`--set path=value`: edits from the command line."""

from __future__ import annotations

from typing import Any

from detc.compiler.elaboration.edits import COMMAND_LAYER, RUN_FIELDS, Active, Claim, path_segments
from detc.compiler.expressions.modules import Module
from detc.compiler.values import Value
from detc.dsl import ast
from detc.dsl.diagnostics import DetError, did_you_mean, error
from detc.dsl.parser import parse_setting
from detc.dsl.source import COMMAND_LINE, Origin, Span


def command_line_edit(text: str, module: Module) -> tuple[str, Active]:
    """`--set path=value` as an edit of one of the run's parts.

    Raises:
        DetError: DET0906 if it is no edit.
    """
    path, value = parse_setting(text, COMMAND_LINE)
    head, segments = path.head, path.segments
    scope = _TextScope(module)
    steps = path_segments(path, scope)
    if head in RUN_FIELDS and not segments:
        whole = Origin(path.span)
        message = f"`{head}` is a field of the run: --set changes what is inside of it"
        raise error("DET0406", message, whole, f"write {head}.name=value, or change the run")
    if head in RUN_FIELDS and segments[0].name is not None:
        steps = steps[1:]
    else:
        head = "model"
    span = Span(path.span.source, path.span.start, value.span.end)
    stmt = ast.SetStmt(path=path, value=value, span=span)
    claim = Claim(text.partition("=")[0].strip(), Origin(span), "set")
    return head, Active(stmt, steps, scope, Origin(span), claim, layer=COMMAND_LAYER, source="<body>")


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
            help=f"a string inside of brackets needs its quotes, and the shell takes one pair: '[\"{name}\"]'",
        )

    def apply(self, callee: Value, inputs: Any, span: Span) -> Value:
        """No wires here."""
        raise error("DET0313", "wires cannot be used on the command line", span, "applied here")

    def member(self, value: Value, name: str, span: Span) -> Value | None:
        """Nothing has members here."""
        return None
