"""`check`: from a `.det` file to resolved runs and a report. Never imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detc.compiler import dataflow, static
from detc.compiler.edits import Active, Claim, Edits, path_segments, unmatched
from detc.compiler.elaborate import ALIGN, Elaborator, elaborate
from detc.compiler.evaluate import evaluate
from detc.compiler.experiment import DataValue, data_value, resolve_data, resolve_target, resolve_train
from detc.compiler.graph import Model
from detc.compiler.modules import Loader, Module, unused_imports
from detc.compiler.selectors import matches
from detc.compiler.spec import DataSpec, TargetSpec, TrainSpec
from detc.compiler.types import Map
from detc.compiler.values import Construct, Labels, Poisoned, TemplateRef, Value, kind_of, show
from detc.dsl import ast
from detc.dsl.diagnostics import WARNING, DetError, Report, did_you_mean, error
from detc.dsl.parser import parse_expression, parse_path
from detc.dsl.source import COMMAND_LINE, Origin, Source, Span

RUN_FIELDS = ("data", "model", "train", "target")


@dataclass
class ResolvedRun:
    """One `run` of a file, resolved: what the compiler's back ends and the runtime take."""

    name: str
    model: Model
    data: DataSpec | None = None
    train: TrainSpec | None = None
    target: TargetSpec = field(default_factory=TargetSpec)
    classes: tuple[str, ...] = ()
    path: str | None = None
    weights: tuple[str, Origin] | None = None  # `model = X(…) from "…"`
    align: int = ALIGN
    module: Module | None = field(default=None, repr=False)

    def find_target(self, name: str | None) -> TargetSpec:
        """The `target` declaration of this name in the run's file; without a name the run's own.

        Raises:
            DetError: DET0801 if there is none, or what is wrong in it.
        """
        if name is None:
            return self.target
        found = self.module.lookup(name) if self.module is not None else None
        decls = self.module.decls if self.module is not None else {}
        names = [
            n
            for n, d in decls.items()
            if isinstance(d, TemplateRef) and getattr(d.decl, "kind", "") == "target"
        ]
        if not isinstance(found, TemplateRef) or getattr(found.decl, "kind", "") != "target":
            there = f"there are: {', '.join(names)}" if names else "the file declares none"
            raise error(
                "DET0801", f"there is no target `{name}`{did_you_mean(name, names)}", None, help=there
            )
        report = Report()
        spec = resolve_target(Construct(found, (), Origin(found.decl.name_span)), report, [])
        if report.errors or spec is None:
            raise DetError(*report.errors)
        return spec

    @property
    def text(self) -> str:
        """The resolved spec: a `.det` text without imports, params or edits that gives the same run."""
        from detc.compiler.resolve import resolved_text

        return resolved_text(self)


@dataclass
class CheckResult:
    """What `check` found: diagnostics, and the runs if there are no errors."""

    report: Report
    module: Module | None
    runs: dict[str, ResolvedRun] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)  # models of the file that no run builds

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
            names = [n for n in self.runs if n]
            if not self.runs:
                raise error(
                    "DET0906",
                    "this file has no `run`",
                    None,
                    help="add: run { data = …  model = …  train = … }",
                )
            if name is None:
                raise error(
                    "DET0906",
                    f"this file has several runs: {', '.join(names)}",
                    None,
                    help="choose one with --run NAME",
                )
            raise error(
                "DET0906",
                f"there is no run `{name}`{did_you_mean(name, names)}",
                None,
                help=f"there are: {', '.join(names)}",
            )
        return found


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
            _note_models(decl, built)
            continue
        resolved = _Run(decl, module, report, sets).resolve()
        _note_models(decl, built)
        if resolved is not None:
            resolved.path = module.source.path if module.source else None
            result.runs[decl.name] = resolved
    if sets and not seen:
        report.add(*error("DET0906", "--set edits a run, and this file has none").diagnostics)
    if models:
        _loose_models(module, built, result)
    unused_imports(module, report)
    return result


def _note_models(decl: ast.RunDecl, built: set[str]) -> None:
    for s in decl.body:
        if (
            isinstance(s, ast.WireStmt)
            and isinstance(s.value, ast.Call)
            and isinstance(s.value.func, ast.Ref)
        ):
            built.add(s.value.func.name)


def _loose_models(module: Module, built: set[str], result: CheckResult) -> None:
    """Elaborate the models of a file that no run builds, if class names are all they lack."""
    assert module.file is not None
    for decl in module.file.decls:
        if not isinstance(decl, ast.Template) or decl.kind != "model" or decl.name in built:
            continue
        if any(
            d.primary
            and d.primary.source is module.source
            and decl.span.start <= d.primary.start < decl.span.end
            for d in result.report.errors
        ):
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
    from detc.compiler.template import levels
    from detc.compiler.values import BoundArg

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


class _RunScope:
    """The scope of a `run` body: its own fields and the file's names."""

    def __init__(self, run: _Run) -> None:
        self.run, self.module = run, run.module
        self.via: tuple[Span, ...] = ()

    def find(self, name: str, span: Span) -> Value | None:
        """Another field of the run."""
        return self.run.value(name) if name in self.run.exprs else None

    def missing(self, name: str, span: Span) -> DetError:
        """The name is nowhere."""
        known = [*self.run.exprs, *self.module.visible()]
        return error(
            "DET0201", f"unknown name `{name}`", span, "not defined here" + did_you_mean(name, known)
        )

    def apply(self, callee: Value, inputs: Any, span: Span) -> Value:
        """No wires here."""
        raise error("DET0313", "wires cannot be used in a run", span, "applied here")

    def member(self, value: Value, name: str, span: Span) -> Value | None:
        """Attributes of data sets."""
        get = getattr(value.data, "detc_member", None)
        return get(name, value.origin) if get is not None else None


class _Run:
    def __init__(self, decl: ast.RunDecl, module: Module, report: Report, sets: Sequence[str]) -> None:
        self.decl, self.module, self.report = decl, module, report
        self.exprs: dict[str, ast.WireStmt] = {}
        self.values: dict[str, Value] = {}
        self.scope = _RunScope(self)
        self.data: DataValue | None = None
        self.edits: dict[str, list[Active]] = {f: [] for f in RUN_FIELDS}
        self.sets = sets

    def value(self, name: str) -> Value:
        """A field's value; a data set stands for its resolved declaration."""
        if name not in self.values:
            stmt = self.exprs[name]
            found = evaluate(stmt.value, self.scope)
            if name == "data" and isinstance(found.data, Construct):
                try:
                    self.data = data_value(found.data, self.report, self.edits["data"])
                except DetError as problem:
                    self.report.add(*problem.diagnostics)
                    raise Poisoned from None
                found = Value(self.data, found.origin)
            self.values[name] = found
        return self.values[name]

    def resolve(self) -> ResolvedRun | None:
        before = len(self.report.errors)
        for stmt in self.decl.body:
            if not isinstance(stmt, ast.WireStmt) or len(stmt.targets) != 1:
                self.report.add(
                    *error(
                        "DET0706",
                        "a run holds fields: data = …, model = …, train = …",
                        stmt.span,
                        "not legal here",
                    ).diagnostics
                )
                continue
            name = stmt.targets[0].name
            if name in self.exprs:
                self.report.add(
                    *error("DET0307", f"`{name}` is given twice", stmt.span, "given again here").diagnostics
                )
                continue
            if name not in RUN_FIELDS:
                label = "unknown field" + did_you_mean(name, RUN_FIELDS)
                self.report.add(
                    *error("DET0704", f"a run has no field `{name}`", stmt.targets[0].span, label).diagnostics
                )
                continue
            self.exprs[name] = stmt
        self._read_sets()
        constructs = {name: self._construct(name) for name in RUN_FIELDS}
        target = TargetSpec()
        if constructs["target"] is not None:
            target = resolve_target(constructs["target"], self.report, self.edits["target"]) or target
        data = resolve_data(self.data, self.report, self.edits["data"]) if self.data is not None else None
        train = (
            resolve_train(constructs["train"], self.report, self.edits["train"])
            if constructs["train"]
            else None
        )
        if "model" not in self.exprs:
            self.report.add(
                *error(
                    "DET0208", "a run needs a `model`", self.decl.span, "`model` is missing here"
                ).diagnostics
            )
        if constructs["model"] is None:
            return None
        place = self.exprs["data"].span if "data" in self.exprs else self.decl.span
        align = dataflow.alignment(data) or ALIGN
        classes = data.classes if data is not None else ()
        model = elaborate(
            constructs["model"],
            self.report,
            edits=self.edits["model"],
            align=align,
            masks=_has_masks(data),
            classes=classes,
        )
        if not classes:
            model.classes = classes = _classes_of(constructs["model"])
        weights = None
        stmt = self.exprs["model"]
        if stmt.weights is not None:
            source = evaluate(stmt.weights, self.scope)
            if not isinstance(source.data, str):
                self.report.add(
                    *error(
                        "DET0301", f"`from` wants a str, not a {kind_of(source)}", source.origin, show(source)
                    ).diagnostics
                )
            else:
                weights = (source.data, source.origin)
        if data is not None:
            dataflow.check_pipelines(data, self.report, Origin(place), model.fields)
        if len(self.report.errors) == before:
            self._cross_checks(model, data, train, align, Origin(place))
        if len(self.report.errors) > before:
            return None
        return ResolvedRun(
            self.decl.name, model, data, train, target, classes, None, weights, align, self.module
        )

    def _construct(self, name: str) -> Construct | None:
        if name not in self.exprs:
            return None
        kinds = {"data": "data", "model": "model", "train": "train", "target": "target"}
        try:
            value = self.value(name)
        except DetError as problem:
            self.report.add(*problem.diagnostics)
            return None
        except Poisoned:
            return None
        data = value.data
        if isinstance(data, TemplateRef):
            data = Construct(data, (), value.origin)
        if isinstance(data, DataValue):
            return data.body.instance.construct
        good = isinstance(data, Construct) and isinstance(data.target, TemplateRef)
        kind = getattr(data.target.decl, "kind", "") if good else ""
        if kind != kinds[name] and not (name == "model" and kind == "component"):
            message = f"`{name}` wants a {kinds[name]} declaration, not a {kind or kind_of(value)}"
            self.report.add(*error("DET0301", message, value.origin, show(value)).diagnostics)
            return None
        assert isinstance(data, Construct)
        return data

    def _read_sets(self) -> None:
        for text in self.sets:
            try:
                name, active = command_line_edit(text, self.module)
            except DetError as problem:
                self.report.add(*problem.diagnostics)
                continue
            self.edits[name].append(active)

    def _cross_checks(
        self, model: Model, data: DataSpec | None, train: TrainSpec | None, align: int, place: Origin
    ) -> None:
        if train is not None:
            for rule in train.groups:
                if not any(matches(rule.selector, name) for name in parameter_names(model)):
                    known = list(model.weights)
                    label = "no parameter matches" + did_you_mean(rule.selector, known)
                    assert rule.origin is not None
                    self.report.add(
                        *error(
                            "DET0702", f"the selector `{rule.selector}` matches nothing", rule.origin, label
                        ).diagnostics
                    )
            for switch in train.switches:
                if data is not None and switch.path == "data.active" and switch.value not in data.pipelines:
                    label = f"{data.name} has: {', '.join(data.pipelines)}" + did_you_mean(
                        str(switch.value), data.pipelines
                    )
                    assert switch.origin is not None
                    self.report.add(
                        *error(
                            "DET0407", f"there is no pipeline `{switch.value}`", switch.origin, label
                        ).diagnostics
                    )
            if not model.train.losses:
                self.report.add(
                    *error(
                        "DET0503",
                        f"{model.name} has no loss, and this run trains it",
                        place,
                        "nothing to train",
                    ).diagnostics
                )
        stride = max(
            (int(m.stride) for n in model.infer.nodes() for m in [n.type] if isinstance(m, Map)), default=1
        )
        if data is not None and align % min(stride, ALIGN):
            self.report.add(
                *error(
                    "DET0607",
                    f"the model has strides up to {stride}, and the data set pads images to multiples of {align}",
                    place,
                    f"images are aligned to {align}",
                    help=f"pad to a multiple of {stride}: steps.Pad(align = {stride})",
                    severity=WARNING,
                ).diagnostics
            )


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


def parameter_names(model: Model) -> list[str]:
    """Names of all parameters, `path.weight` and `path.bias`, as selectors see them."""
    return [
        f"{path}.{name}"
        for path, w in model.weights.items()
        for name in getattr(w.op, "parameter_names", ("weight", "bias"))
    ]


def _has_masks(data: DataSpec | None) -> bool:
    return data is not None and any(
        "masks" in s.step.writes for steps in data.pipelines.values() for s in steps
    )


def _classes_of(construct: Construct) -> tuple[str, ...]:
    for arg in construct.args:
        data = arg.value.data
        if isinstance(data, Labels):
            return data.names
        if arg.name == "classes" and isinstance(data, list):
            return tuple(str(v.data) for v in data)
    return ()


__all__ = ["CheckResult", "Edits", "Elaborator", "ResolvedRun", "check", "command_line_edit", "unmatched"]
