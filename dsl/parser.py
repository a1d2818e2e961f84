"""Text -> AST. Bad text never raises: every syntax error of a file comes back as a diagnostic."""

from __future__ import annotations

import re
from collections.abc import Iterator
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

    Returns the tree of all that could be parsed and the syntax errors (DET01xx), in order of place. With
    errors the tree lacks the broken statements; without, it is complete.
    """
    from detc.dsl.build_file import FileBuilder
    from detc.dsl.recovery import Fault, attempt
    from detc.dsl.tables import parser

    state = _Recovery(source)
    tree = ast.File(edition=None, imports=(), decls=(), span=Span(source, 0, len(source.text)))
    for _ in range(MAX_FAULTS):
        result = attempt(parser(), state.text, "start", state.closings)
        if isinstance(result, Fault):
            before = (state.text, len(state.closings))
            state.mend(result)
            if before == (state.text, len(state.closings)):
                break  # nothing left to overwrite
            continue
        builder = FileBuilder(source, frozenset(state.dropped))
        try:
            tree = builder.file(result)
        except DetError as problem:
            state.errors.append(problem)
            break
        if not builder.swallowed:
            state.errors += builder.problems
            break
        state.close(builder.swallowed[0])
    errors = state.errors
    if tree.edition is not None and tree.edition not in EDITIONS:
        errors.append(_edition(source, tree.edition))
    return tree, _sorted(errors)


class _Recovery:
    """The working text of one file: what was overwritten, what was put in, what was reported."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.text = source.text
        self.errors: list[DetError] = []
        self.dropped: set[int] = set()
        self.closings: list[tuple[int, int]] = []
        self.tried: set[int] = set()  # where fixes were tried, so that two never undo each other
        self.mended: int | None = None  # start of the statement whose fix was tried last

    def mend(self, fault: Fault) -> None:
        """Report `fault` and change the text so that parsing gets beyond it."""
        from detc.dsl.mending import overwrite, stray_declaration

        since = max((edge for edge, _ in self.closings), default=0)
        if fault.restart == "statement":
            stray = stray_declaration(self.text[: fault.end], since)
            if stray is None and fault.kind == "$END" and "RBRACE" in fault.accepts:
                stray = len(self.text)
            if stray is not None:
                return self.close(stray)
        if fault.begin != self.mended:  # else the fix was not all that was wrong: one report is enough
            problem = describe(self.source, fault)
            self.errors.append(problem)
            fix = problem.diagnostics[0].fix
            mended = _apply(self.text, fix)
            if fix is not None and mended is not None and fix.span.start not in self.tried:
                self.tried.add(fix.span.start)
                self.text, self.mended = mended, fault.begin
                return None
        self.text, made_up = overwrite(self.text, fault)
        if made_up is not None:
            self.dropped.add(made_up)
        return None

    def close(self, offset: int) -> None:
        """Report the block that is still open at `offset`, and close all that are."""
        from detc.dsl.mending import edge_before, open_braces, unclosed

        since = max((edge for edge, _ in self.closings), default=0)
        count = max(open_braces(self.text[:offset], since), 1)
        opening = unclosed(self.text[:offset], since)
        self.closings.append((edge_before(self.text, offset), count))
        place = Span(self.source, offset, offset)
        fix = Edit(place, "}\n" * count)
        if opening is None:
            self.errors.append(error("DET0104", "a `}` is missing", place, "expected before this", fix=fix))
            return
        where = "a `}` is missing before this" if offset < len(self.text) else "the file ends here"
        brace = Span(self.source, opening, opening + 1)
        secondary = [(place, where)]
        self.errors.append(
            error("DET0104", "this `{` is never closed", brace, "opened here", secondary=secondary, fix=fix)
        )


def _apply(text: str, fix: Edit | None) -> str | None:
    """Apply a fix to the working text if it can be done without moving what follows."""
    if fix is None:
        return None
    start, end = fix.span.start, fix.span.end
    new = fix.text.strip() if end > start else fix.text
    room = end
    while room < len(text) and text[room] == " ":
        room += 1
    stop = max(end, start + len(new))
    glued = new[-1:].isalnum() and text[stop : stop + 1].isalnum()
    if stop > room or (glued and stop == start + len(new)):
        return None
    return text[:start] + new.ljust(stop - start) + text[stop:]


def parse_expression(text: str, name: str | Source, start: int = 0) -> ast.Expr:
    """Parse one expression; `name` is shown in diagnostics.

    With a `Source` for a name, `text` is what stands there from character `start` on. Raises DetError for bad text.
    """
    from detc.dsl.build import Builder

    source = name if isinstance(name, Source) else Source(name, text)
    builder = Builder(source)
    result = builder.expr(_parse_all(source, "expression", " " * start + text))
    if builder.problems:
        raise DetError(*(d for p in builder.problems for d in p.diagnostics))
    return result


def parse_path(text: str, name: str | Source, start: int = 0) -> ast.Path:
    """Parse one path such as `backbone.stage[2].conv[*]`; arguments and errors as for `parse_expression`."""
    from detc.dsl.build import Builder

    source = name if isinstance(name, Source) else Source(name, text)
    return Builder(source).path(_parse_all(source, "path", " " * start + text))


def parse_setting(text: str, name: str) -> tuple[ast.Path, ast.Expr]:
    """Parse `path=value` from a command line.

    The shell strips quotes, so a value with words that neither a bracket, a call nor an operator between blanks
    holds together is a string as it stands: `late`, `../data/coco`, `my-data/coco (2)`. Raises DetError for bad text.
    """
    source = Source(name, text)
    path_text, equals, value = text.partition("=")
    if not equals or not path_text.strip():
        place = Span(source, 0, len(text))
        raise error("DET0906", f"`{text}` is not a setting", place, "no `=` in it", help="write path=value")
    start = len(path_text) + 1
    indent = len(path_text) - len(path_text.lstrip())
    path = parse_path(path_text.strip(), source, indent)
    plain = ast.Literal(value=value.strip(), span=Span(source, start, len(text)))
    try:
        parsed = parse_expression(value, source, start)
    except DetError:
        if re.match(r'\s*([\[{("]|[0-9][^/]*$|$)', value):
            raise
        return path, plain
    held = (ast.ListExpr, ast.RecordExpr, ast.Comprehension, ast.Call, ast.TupleExpr)
    words = not isinstance(parsed, held) and any(isinstance(node, ast.Ref) for node in _below(parsed))
    spaced = isinstance(parsed, ast.Binary) and re.search(r"\s[-+*/%]\s", value)
    return path, plain if words and not spaced else parsed


def _below(node: ast.Ast) -> Iterator[ast.Ast]:
    yield node
    for value in vars(node).values():
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, ast.Ast):
                yield from _below(item)


def describe(source: Source, fault: Fault) -> DetError:
    """Say what is wrong at `fault`: a hand-written hint, or what was found and what was expected."""
    from detc.dsl.hints import find_hint
    from detc.dsl.recovery import level, starts_next
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
        message = (
            f"unexpected character `{shown}`" if shown.isprintable() else f"U+{ord(shown):04X} in the text"
        )
        return error(
            "DET0102", message, Span(source, start, end), f"expected {wanted}" if wanted else "not known"
        )
    after = f" after `{fault.previous}`" if fault.previous is not None else ""
    message = f"expected {wanted}{after}, found {found}" if wanted else f"unexpected {found}{after}"
    if found == "the next statement" and not wanted:
        message = f"this statement is not complete{after}"
    if fault.kind == "RBRACE" and level(fault.accepts) == "declaration":
        fix = Edit(Span(source, start, end), "")
        return error("DET0104", "this `}` closes nothing", Span(source, start, end), "no `{` for it", fix=fix)
    return error(
        "DET0101", message, Span(source, start, end), f"expected {wanted}" if wanted else "not expected here"
    )


def _parse_all(source: Source, start: str, text: str):  # type: ignore[no-untyped-def]
    from detc.dsl.recovery import Fault, attempt
    from detc.dsl.tables import parser

    result = attempt(parser(), text, start)
    if isinstance(result, Fault):
        raise describe(source, result)
    return result


def _edition(source: Source, edition: int) -> DetError:
    match = re.search(r"^\s*det\s+([0-9]+)", source.text, re.MULTILINE)
    span = Span(source, *match.span(1)) if match else Span(source, 0, 0)
    known = ", ".join(str(e) for e in EDITIONS)
    message = f"this is edition {edition}, and this detc knows edition {known}"
    return error("DET0105", message, span, "unknown edition", help="install a newer detc, or write `det 1`")


def _sorted(errors: list[DetError]) -> list[Diagnostic]:
    found = [d for e in errors for d in e.diagnostics]
    return sorted(found, key=lambda d: d.primary.start if d.primary else 0)
