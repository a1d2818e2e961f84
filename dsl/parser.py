"""Text -> AST. Bad text never raises: every syntax error of a file comes back as a diagnostic."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from detc.dsl import ast
from detc.dsl.diagnostics import DetError, Diagnostic, Edit, error
from detc.dsl.source import Source, Span

if TYPE_CHECKING:
    from detc.dsl.recovery import Fault

MAX_FAULTS = 20
EDITIONS = (1,)


def parse(source: Source) -> tuple[ast.File, list[Diagnostic]]:
    """Parse one file.

    Returns the tree of all that could be parsed and the syntax errors (DET01xx), in order of place. With errors
    the tree lacks the broken statements; without, it is complete.
    """
    from detc.dsl.build_file import FileBuilder
    from detc.dsl.recovery import attempt, overwrite
    from detc.dsl.tables import parser

    lark = parser()
    text, errors, dropped = source.text, list[DetError](), set[int]()
    tree = ast.File(edition=None, imports=(), decls=(), span=Span(source, 0, len(text)))
    for _ in range(MAX_FAULTS):
        result = attempt(lark, text, "start")
        if isinstance(result, _fault_type()):
            if _swallowed_declaration(text, result):
                errors.append(_unclosed(source, text, result.begin))
                text = _close_before(text, result.begin)
                continue
            if result.kind == "$END" and "RBRACE" in result.accepts:
                errors.append(_unclosed(source, text, len(source.text)))
                text += "}"
                continue
            errors.append(describe(source, result))
            text, made_up = overwrite(text, result)
            if made_up is not None:
                dropped.add(made_up)
            continue
        builder = FileBuilder(source, frozenset(dropped))
        try:
            tree = builder.file(result)
        except DetError as problem:
            errors.append(problem)
            break
        if builder.swallowed:
            errors.append(_unclosed(source, text, builder.swallowed[0]))
            text = _close_before(text, builder.swallowed[0])
            continue
        errors += builder.problems
        break
    if tree.edition is not None and tree.edition not in EDITIONS:
        errors.append(_edition(source, tree.edition))
    return tree, _sorted(errors)


def parse_expression(text: str, name: str) -> ast.Expr:
    """Parse one expression, as in `--set path=value`; `name` is shown in diagnostics.

    Raises DetError for bad text.
    """
    from detc.dsl.build import Builder

    source = Source(name, text)
    builder = Builder(source)
    result = builder.expr(_parse_all(source, "expression"))
    if builder.problems:
        raise DetError(*(d for p in builder.problems for d in p.diagnostics))
    return result


def parse_path(text: str, name: str) -> ast.Path:
    """Parse one path such as `backbone.stage[2].conv[*]`. Raises DetError for bad text."""
    from detc.dsl.build import Builder

    source = Source(name, text)
    return Builder(source).path(_parse_all(source, "path"))


def parse_setting(text: str, name: str) -> tuple[ast.Path, ast.Expr]:
    """Parse `path=value` from a command line.

    The shell strips quotes, so a value that reads as a file path (`../data/coco`, `/x`, `runs/last.pt`) is taken
    as a string; write blanks around `/` for a division. Raises DetError for bad text.
    """
    path, equals, value = text.partition("=")
    if not equals:
        place = Span(Source(name, text), 0, len(text))
        raise error("DET0906", f"`{text}` is not a setting", place, "no `=` in it", help="write `path=value`")
    if re.fullmatch(r"(\.{0,2}|~|[\w.\-]*[A-Za-z_][\w.\-]*)(/[\w.\-]*)+", value):
        source = Source(name, text)
        whole = Span(source, len(path) + 1, len(text))
        return parse_path(path, name), ast.Literal(value=value, span=whole)
    return parse_path(path, name), parse_expression(value, name)


def describe(source: Source, fault: Fault) -> DetError:
    """Say what is wrong at `fault`: a hand-written hint, or what was found and what was expected."""
    from detc.dsl.hints import find_hint
    from detc.dsl.recovery import starts_next
    from detc.dsl.tables import parser
    from detc.dsl.words import expected, join_or

    hint = find_hint(source, fault)
    if hint is not None:
        span = Span(source, hint.start, hint.end)
        return error(hint.code, hint.message, span, hint.label, help=hint.help, fix=hint.fix)
    anonymous = {t.name: t.pattern.value for t in parser().terminals if t.name.startswith("__ANON")}
    words = expected(fault.accepts, anonymous)
    wanted = join_or(words) if len(words) <= 6 else ""
    start, end = fault.start, fault.end
    found = "the end of the file" if fault.kind == "$END" else f"`{source.text[start:end]}`"
    if starts_next(source.text, fault) and fault.previous is not None:
        start = end = fault.previous.end_pos or start
        found = "the next statement"
    if not fault.kind and fault.start < len(source.text):
        shown = source.text[start]
        message = f"unexpected character `{shown}`" if shown.isprintable() else f"U+{ord(shown):04X} in the text"
        return error("DET0102", message, Span(source, start, end), f"expected {wanted}" if wanted else "not known")
    after = f" after `{fault.previous}`" if fault.previous is not None else ""
    message = f"expected {wanted}{after}, found {found}" if wanted else f"unexpected {found}{after}"
    if fault.kind == "RBRACE" and "_INTERFACE" in fault.accepts:
        fix = Edit(Span(source, start, end), "")
        return error("DET0104", "this `}` closes nothing", Span(source, start, end), "no `{` for it", fix=fix)
    return error("DET0101", message, Span(source, start, end), f"expected {wanted}" if wanted else "not expected here")


def _fault_type() -> type[Fault]:
    from detc.dsl.recovery import Fault

    return Fault


def _parse_all(source: Source, start: str):  # type: ignore[no-untyped-def]
    from detc.dsl.recovery import Fault, attempt
    from detc.dsl.tables import parser

    result = attempt(parser(), source.text, start)
    if isinstance(result, Fault):
        raise describe(source, result)
    return result


def _swallowed_declaration(text: str, fault: Fault) -> bool:
    """Whether the broken "statement" is really a declaration at the start of a line, inside an unclosed block."""
    from detc.dsl.recovery import DECLARING

    if fault.restart != "statement" or (fault.begin > 0 and text[fault.begin - 1] != "\n"):
        return False
    match = re.compile(r"(\w+)[ \t]+[A-Za-z_\"{]").match(text, fault.begin)
    return match is not None and match.group(1) in DECLARING


def _close_before(text: str, offset: int) -> str:
    """Overwrite the newline before `offset` with a `}`, clearing a comment that would hide it."""
    from detc.dsl.scan import comments

    at = offset - 1
    for comment in comments(text):
        if comment.end == at:
            text = text[: comment.start] + " " * (comment.end - comment.start) + text[comment.end :]
    return text[:at] + "}" + text[offset:]


def _unclosed(source: Source, text: str, offset: int) -> DetError:
    """The error for a block that is still open at `offset`."""
    from detc.dsl.recovery import unclosed

    opening = unclosed(text[:offset])
    here = Span(source, min(offset, len(source.text)), min(offset, len(source.text)))
    fix = Edit(here, "}\n")
    if opening is None:
        return error("DET0104", "a `}` is missing", here, "expected before this", fix=fix)
    return error(
        "DET0104",
        "this `{` is never closed",
        Span(source, opening, opening + 1),
        "opened here",
        secondary=[(here, "a `}` is missing before this" if offset < len(text) else "the file ends here")],
        fix=fix,
    )


def _edition(source: Source, edition: int) -> DetError:
    match = re.search(r"^\s*det\s+([0-9]+)", source.text, re.MULTILINE)
    span = Span(source, *match.span(1)) if match else Span(source, 0, 0)
    known = ", ".join(str(e) for e in EDITIONS)
    message = f"this is edition {edition}, and this detc knows edition {known}"
    return error("DET0105", message, span, "unknown edition", help="install a newer detc, or write `det 1`")


def _sorted(errors: list[DetError]) -> list[Diagnostic]:
    found = [d for e in errors for d in e.diagnostics]
    return sorted(found, key=lambda d: d.primary.start if d.primary else 0)
