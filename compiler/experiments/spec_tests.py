"""`detc test`: running the `test` blocks of fragments. Components are built and applied; `expect` has to hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from detc.compiler.elaboration.edits import Edits
from detc.compiler.elaboration.elaborate import ATTEMPTS, Elaborator
from detc.compiler.elaboration.frame import Frame
from detc.compiler.elaboration.generated import Layouts
from detc.compiler.elaboration.params import Instance
from detc.compiler.elaboration.scope import BodyScope
from detc.compiler.expressions.evaluate import Inputs, evaluate, iterate, origin_of, truth
from detc.compiler.expressions.modules import Loader, Module
from detc.compiler.values import Construct, Poisoned, TemplateRef, show
from detc.dsl import ast
from detc.dsl.diagnostics import DetError, Diagnostic, Report, error
from detc.dsl.source import Origin, Span


@dataclass
class TestResult:
    """One `test` block."""

    __test__ = False
    file: str
    title: str
    expectations: int = 0
    problems: list[Diagnostic] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """True if every expectation held and nothing failed."""
        return not self.problems


def run_tests(path: Path) -> list[TestResult]:
    """Run all `test` blocks of a file.

    Raises:
        DetError: if the file itself has errors.
    """
    report = Report()
    loader = Loader(report)
    module = loader.file(path, path.stem, library=False, shown=str(path))
    if report.errors:
        raise DetError(*report.errors)
    assert module.file is not None
    return [_run(decl, module, str(path)) for decl in module.file.decls if isinstance(decl, ast.TestDecl)]


def _run(decl: ast.TestDecl, module: Module, file: str) -> TestResult:
    layouts = Layouts()
    for _ in range(ATTEMPTS):
        result = _attempt(decl, module, file, layouts)
        if layouts.settled:
            break
        layouts = layouts.next()
    return result


def _attempt(decl: ast.TestDecl, module: Module, file: str, layouts: Layouts) -> TestResult:
    result = TestResult(file, decl.name)
    report = Report()
    for phase in ("infer", "train"):
        ctx = Elaborator(report, testing=True, layouts=layouts)
        ctx.begin(phase)
        shell = ast.Template(
            kind="component", name=decl.name, body=(), span=decl.span, name_span=decl.name_span
        )
        construct = Construct(TemplateRef(shell, module), (), Origin(decl.name_span))
        frame = _TestFrame(Instance(ctx, construct, "", (), Edits()), None, Origin(decl.name_span))
        frame.result = result
        frame.count = phase == "infer"
        try:
            frame.run([])
            frame.body(decl.body, BodyScope(frame, 0))
        except DetError as problem:
            report.add(*problem.diagnostics)
        except Poisoned:
            pass
    result.problems = [*report.errors]
    if not result.expectations and not result.problems:
        result.problems = list(
            error("DET0305", "this test expects nothing", decl.name_span, "no `expect` in it").diagnostics
        )
    return result


class _TestFrame(Frame):
    """A frame that knows `expect`, and in which `let` may hold wires."""

    result: TestResult
    count: bool

    def body(self, stmts: tuple[ast.Stmt, ...], scope: BodyScope) -> None:
        """Run the statements of a test."""
        self.declare_lets(stmts, scope)
        for stmt in stmts:
            try:
                self._test_statement(stmt, scope)
            except DetError as problem:
                self.ctx.report.add(*problem.diagnostics)
                self._poison(stmt, scope)
            except Poisoned:
                self._poison(stmt, scope)

    def _test_statement(self, stmt: ast.Stmt, scope: BodyScope) -> None:
        if isinstance(stmt, ast.ExpectStmt):
            self._expect(stmt, scope)
        elif isinstance(stmt, ast.RepeatStmt):
            for item in iterate(evaluate(stmt.iterable, scope), origin_of(stmt.iterable, scope)):
                self.body(stmt.body, scope.inner(stmt.name, item))
        elif isinstance(stmt, ast.WhenStmt):
            self.body(
                stmt.body
                if truth(evaluate(stmt.condition, scope), origin_of(stmt.condition, scope))
                else stmt.otherwise,
                scope,
            )
        else:
            self._statement(stmt, scope, "")

    def _expect(self, stmt: ast.ExpectStmt, scope: BodyScope) -> None:
        if self.count:
            self.result.expectations += 1
        if truth(evaluate(stmt.condition, scope), origin_of(stmt.condition, scope)):
            return
        raise error(
            "DET0305",
            "this does not hold",
            Origin(stmt.condition.span, scope.via),
            _sides(stmt.condition, scope),
        )


def _sides(condition: ast.Expr, scope: BodyScope) -> str:
    """What stood on both sides of a comparison."""
    if isinstance(condition, ast.Binary) and condition.op in ("==", "!=", "<", "<=", ">", ">="):
        left, right = evaluate(condition.left, scope), evaluate(condition.right, scope)
        return f"the left side is {show(left)}, the right side {show(right)}"
    return "this is false"


__all__ = ["Inputs", "Span", "TestResult", "run_tests"]
