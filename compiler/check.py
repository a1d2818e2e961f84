"""`check`: from a `.det` file to resolved runs and a report. Never imports torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from detc.compiler.elaboration.edits import Edits, unmatched
from detc.compiler.elaboration.elaborate import Elaborator, elaborate
from detc.compiler.experiments.command_line import command_line_edit
from detc.compiler.experiments.experiment import data_value, resolve_data
from detc.compiler.experiments.recipe import resolve_train
from detc.compiler.experiments.runs import ResolvedRun, RunResolver, note_models
from detc.compiler.experiments.targets import resolve_target
from detc.compiler.expressions import static
from detc.compiler.expressions.modules import Loader, Module, unused_imports
from detc.compiler.expressions.template import levels
from detc.compiler.expressions.unused import unused_values
from detc.compiler.graph import Model
from detc.compiler.values import BoundArg, Construct, Labels, Poisoned, TemplateRef, Value
from detc.dsl import ast
from detc.dsl.diagnostics import DetError, Report, did_you_mean, error
from detc.dsl.source import Origin


@dataclass
class CheckResult:
    """What `check` found: diagnostics, and the runs if there are no errors."""

    report: Report
    module: Module | None
    runs: dict[str, ResolvedRun] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)  # models of the file that no run builds
    declared: tuple[str, ...] = ()  # names of all runs of the file, resolved or not; "" has none

    @property
    def ok(self) -> bool:
        """True without errors."""
        return not self.report.errors

    def run(self, name: str | None = None) -> ResolvedRun:
        """The run of this name; without a name the only one, or the unnamed one.

        Raises:
            DetError: with the report's errors, or DET0906 if there is no such run.
        """
        if self.report.errors:
            raise DetError(*self.report.errors)
        if name is None and len(self.runs) == 1:
            return next(iter(self.runs.values()))
        found = self.runs.get(name or "")
        if found is None:
            raise _no_run(name, self.declared)
        return found


def _no_run(name: str | None, declared: tuple[str, ...]) -> DetError:
    """DET0906: a file whose runs are `declared` has none called `name`."""
    names = [n for n in declared if n]
    if not declared:
        help = "add: run { data = …  model = …  train = … }"
        return error("DET0906", "this file has no `run`", help=help)
    if name is None:
        several = f"this file has several runs: {', '.join(names)}"
        return error("DET0906", several, help="choose one with --run NAME")
    return error(
        "DET0906",
        f"there is no run `{name}`{did_you_mean(name, names)}",
        help=f"there are: {', '.join(names)}" if names else "its run has no name: leave `--run` out",
    )


def check(
    spec: str | Path,
    sets: Sequence[str] = (),
    run: str | None = None,
    *,
    name: str | None = None,
    models: bool = True,
) -> CheckResult:
    """Check a file (a `Path` or a string that ends in `.det`) or a text.

    Args:
        spec: the file's path, or the text itself.
        sets: edits `path=value`, as `--set` gives them; they belong to every run that is resolved.
        run: resolve only this run.
        name: how messages call a text.
        models: also check models that no run builds (with 80 stand-in classes).
    """
    report = Report()
    loader = Loader(report)
    text = str(spec)
    if isinstance(spec, Path) or ("\n" not in text and text.endswith(".det")):
        path = Path(spec)
        try:
            module = loader.file(path, path.stem, shown=text)
        except (OSError, UnicodeDecodeError) as problem:
            reason = getattr(problem, "strerror", None) or "it is no UTF-8 text"
            report.add(*error("DET0202", f"cannot read {path}: {reason}").diagnostics)
            return CheckResult(report, None)
    else:
        module = loader.text(text, name or "<text>")
    result = CheckResult(report, module)
    if any(d.code.startswith("DET01") for d in report.errors):
        return result
    assert module.file is not None
    static.check_names(module, report)
    built: set[str] = set()
    seen: dict[str, ast.RunDecl] = {}
    for decl in module.file.decls:
        if not isinstance(decl, ast.RunDecl):
            continue
        if decl.name in seen:
            message = (
                f"the run `{decl.name}` is declared twice"
                if decl.name
                else "there are two runs without a name"
            )
            report.add(
                *error(
                    "DET0205",
                    message,
                    decl.name_span,
                    "declared again",
                    secondary=[(seen[decl.name].name_span, "first here")],
                ).diagnostics
            )
            continue
        seen[decl.name] = decl
        if run is not None and decl.name != run:
            note_models(decl, built)
            continue
        resolved = RunResolver(decl, module, report, sets).resolve()
        note_models(decl, built)
        if resolved is not None:
            resolved.path = module.source.path if module.source else None
            result.runs[decl.name] = resolved
    result.declared = tuple(seen)
    if run and run not in seen:
        report.add(*_no_run(run, result.declared).diagnostics)
    if sets and not seen:
        report.add(*error("DET0906", "--set edits a run, and this file has none").diagnostics)
    if models:
        _loose_models(module, built, result)
        _loose_parts(module, built, report)
    for decl in module.file.decls:
        if not _has_error(decl, module, report):  # what is built has been seen to the end
            static.check_calls(decl, module, report)
    unused_imports(module, report)
    unused_values(module, report)
    return result


INCOMPLETE = ("DET0208", "DET0606")  # what a run, or who extends it, may still give


def _loose_parts(module: Module, built: set[str], report: Report) -> None:
    """Resolve the data, train and target declarations of a file that no run uses, if they need no arguments.

    What they lack is not reported: others may extend them.
    """
    assert module.file is not None
    for decl in module.file.decls:
        resolve = _RESOLVERS.get(decl.kind) if isinstance(decl, ast.Template) else None
        if resolve is None or decl.name in built or _has_error(decl, module, report):
            continue
        assert isinstance(decl, ast.Template)
        found = Report()
        try:
            if any(p.default is None for p in decl.params):
                continue
            resolve(Construct(TemplateRef(decl, module), (), Origin(decl.name_span)), found)
        except DetError as problem:
            found.add(*problem.diagnostics)
        except Poisoned:
            pass
        report.add(*(d for d in found.errors if d.code not in INCOMPLETE))


def _resolve_data(construct: Construct, report: Report) -> None:
    resolve_data(data_value(construct, report, []), report, [])


_RESOLVERS: dict[str, Callable[[Construct, Report], object]] = {
    "data": _resolve_data,
    "train": partial(resolve_train, edits=[]),
    "target": partial(resolve_target, edits=[]),
}


def _has_error(decl: ast.Decl, module: Module, report: Report) -> bool:
    return any(
        d.primary and d.primary.source is module.source and decl.span.start <= d.primary.start < decl.span.end
        for d in report.errors
    )


def _loose_models(module: Module, built: set[str], result: CheckResult) -> None:
    """Elaborate the models of a file that no run builds, if class names are all they lack."""
    assert module.file is not None
    for decl in module.file.decls:
        if not isinstance(decl, ast.Template) or decl.kind != "model" or decl.name in built:
            continue
        if _has_error(decl, module, result.report):
            continue
        ref = module.decls[decl.name]
        assert isinstance(ref, TemplateRef)
        try:
            model = elaborate_alone(ref, result.report)
        except DetError as problem:
            result.report.add(*problem.diagnostics)
            continue
        if model is not None:
            result.models[decl.name] = model


def elaborate_alone(ref: TemplateRef, report: Report, classes: int = 80) -> Model | None:
    """A model by itself, with `classes` stand-in classes; None if it needs other arguments."""

    origin = Origin(ref.decl.name_span)
    given: list[BoundArg] = []
    chain = levels(ref)
    for level in chain:
        base = level.applied
        bound = (
            {a.name or level.decl.params[i].name for i, a in enumerate(base.args)}
            if base is not None
            else set()
        )
        for p in level.decl.params:
            if p.default is not None or p.name in bound or any(a.name == p.name for a in given):
                continue
            if not (isinstance(p.type, ast.TypeName) and p.type.name == "labels"):
                return None
            names = Labels(tuple(f"class{i}" for i in range(classes)))
            given.append(BoundArg(p.name, Value(names, origin), origin))
    found = next((a.value.data.names for a in given if isinstance(a.value.data, Labels)), ())
    return elaborate(Construct(ref, tuple(given), origin), report, classes=found)


__all__ = ["CheckResult", "Edits", "Elaborator", "ResolvedRun", "check", "command_line_edit", "unmatched"]
