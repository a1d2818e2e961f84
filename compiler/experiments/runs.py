"""Resolving a `run`: its data, model, training and target, and what they ask of each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from detc.compiler.elaboration.edits import RUN_FIELDS, Active
from detc.compiler.elaboration.elaborate import ALIGN, elaborate
from detc.compiler.experiments import dataflow
from detc.compiler.experiments.class_spaces import check_class_space
from detc.compiler.experiments.command_line import command_line_edit
from detc.compiler.experiments.experiment import DataValue, data_value, resolve_data
from detc.compiler.experiments.metrics import check_metrics
from detc.compiler.experiments.recipe import resolve_train
from detc.compiler.experiments.targets import resolve_target
from detc.compiler.experiments.training_checks import check_training
from detc.compiler.expressions.evaluate import evaluate
from detc.compiler.expressions.modules import Module
from detc.compiler.graph import Model
from detc.compiler.spec import DataSpec, Sampling, TargetSpec, TrainSpec
from detc.compiler.types import Map
from detc.compiler.values import Construct, Labels, Poisoned, TemplateRef, Value, a_kind, kind_of, show
from detc.dsl import ast
from detc.dsl.diagnostics import WARNING, DetError, Report, did_you_mean, error
from detc.dsl.source import Origin, Span

T = TypeVar("T")


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


class _RunScope:
    """The scope of a `run` body: its own fields and the file's names."""

    def __init__(self, run: RunResolver) -> None:
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


class RunResolver:
    def __init__(self, decl: ast.RunDecl, module: Module, report: Report, sets: Sequence[str]) -> None:
        self.decl, self.module, self.report = decl, module, report
        self.exprs: dict[str, ast.WireStmt] = {}
        self.values: dict[str, Value] = {}
        self.asked: set[str] = set()  # what is being worked out
        self.scope = _RunScope(self)
        self.data: DataValue | None = None
        self.edits: dict[str, list[Active]] = {f: [] for f in RUN_FIELDS}
        self.sets = sets

    def value(self, name: str) -> Value:
        """A field's value; a data set stands for its resolved declaration."""
        if name not in self.values:
            stmt = self.exprs[name]
            if name in self.asked:
                raise error(
                    "DET0210", f"`{name}` of the run depends on itself", stmt.span, "needed for itself"
                )
            self.asked.add(name)
            try:
                found = evaluate(stmt.value, self.scope)
            finally:
                self.asked.discard(name)
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
        before = self.report.failures
        for stmt in self.decl.body:
            if not isinstance(stmt, ast.WireStmt) or len(stmt.targets) != 1:
                step = isinstance(stmt, ast.StepStmt) and stmt.name in RUN_FIELDS
                label = (
                    f"write {stmt.name} = …" if isinstance(stmt, ast.StepStmt) and step else "not legal here"
                )
                message = "a run holds fields: data = …, model = …, train = …"
                self.report.add(*error("DET0706", message, stmt.span, label).diagnostics)
                continue
            name = stmt.targets[0].name
            if name in self.exprs:
                self.report.add(
                    *error("DET0307", f"`{name}` is given twice", stmt.span, "given again here").diagnostics
                )
                continue
            if name not in RUN_FIELDS:
                label = "unknown field" + did_you_mean(name, RUN_FIELDS)
                help = f"a run has: {', '.join(RUN_FIELDS)}"
                message = f"a run has no field `{name}`"
                self.report.add(
                    *error("DET0704", message, stmt.targets[0].span, label, help=help).diagnostics
                )
                continue
            self.exprs[name] = stmt
        self._read_sets()
        constructs = {name: self._construct(name) for name in RUN_FIELDS}
        target = TargetSpec()
        if constructs["target"] is not None:
            of_target = (constructs["target"], self.report, self.edits["target"])
            target = self._attempt(partial(resolve_target, *of_target)) or target
        data, train = None, None
        if self.data is not None:
            data = self._attempt(partial(resolve_data, self.data, self.report, self.edits["data"]))
        if constructs["train"] is not None:
            of_train = (constructs["train"], self.report, self.edits["train"])
            train = self._attempt(partial(resolve_train, *of_train))
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
            classes=classes,
        )
        if not classes:
            model.classes = classes = _classes_of(constructs["model"]) or _default_classes(model)
        weights = self._attempt(self._weights)
        if data is not None:
            dataflow.check_pipelines(data, self.report, Origin(place), model.fields, model.views)
        if self.report.failures == before:
            self._cross_checks(model, data, train, align, Origin(place))
        if self.report.failures > before:
            return None
        return ResolvedRun(
            self.decl.name, model, data, train, target, classes, None, weights, align, self.module
        )

    def _attempt(self, make: Callable[[], T | None]) -> T | None:
        """What `make` makes; None if something stops it, which is then in the report."""
        try:
            return make()
        except DetError as problem:
            self.report.add(*problem.diagnostics)
        except Poisoned:
            pass
        return None

    def _weights(self) -> tuple[str, Origin] | None:
        """What the run says behind `from`: only the model takes weights."""
        for name, stmt in self.exprs.items():
            if stmt.weights is not None and name != "model":
                message = f"`from` names weights, and `{name}` has none"
                raise error("DET0706", message, stmt.weights.span, "not legal here")
        weights = self.exprs["model"].weights
        if weights is None:
            return None
        source = evaluate(weights, self.scope)
        if not isinstance(source.data, str):
            raise error("DET0301", f"`from` wants a str, not {a_kind(source)}", source.origin, show(source))
        if not source.data.strip():
            raise error("DET0311", "`from` names no weights", source.origin, "an empty name")
        return source.data, source.origin

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
            if name not in self.exprs and name != "model":
                message = f"`set {active.claim.text}` matches nothing: this run has no `{name}`"
                self.report.add(*error("DET0401", message, active.origin, "no such path").diagnostics)
            self.edits[name].append(active)

    def _cross_checks(
        self, model: Model, data: DataSpec | None, train: TrainSpec | None, align: int, place: Origin
    ) -> None:
        if data is not None:
            check_metrics(model, data, self.report, place)
            check_class_space(model, data, self.report, place, Origin(self.exprs["model"].span))
        if train is not None:
            if data is not None and data.sample is not None:
                self._check_shares(data.sample, train, place)
            check_training(model, data, train, self.report, place)
        stride = max(
            (int(m.stride) for n in model.infer.nodes() for m in [n.type] if isinstance(m, Map)), default=1
        )
        needed = min(stride, ALIGN)  # coarser levels are made by layers that round
        if data is not None and align % needed:
            self.report.add(
                *error(
                    "DET0607",
                    f"the model has strides up to {stride}, and the data set pads images to multiples of {align}",
                    dataflow.padding_place(data) or place,
                    f"images are aligned to {align}",
                    help=f"pad to a multiple of {needed}: steps.Pad(align = {needed})",
                    severity=WARNING,
                ).diagnostics
            )

    def _check_shares(self, sample: Sampling, train: TrainSpec, place: Origin) -> None:
        """A batch (of one pass) has to divide into the shares of the sources."""
        whole, passes = sum(sample.ratio), train.accumulate
        if train.batch % (whole * passes) == 0:
            return
        each = f" ({train.batch // passes} in each of {passes} passes)" if passes > 1 else ""
        self.report.add(
            *error(
                "DET0609",
                f"a batch of {train.batch} images{each} does not divide into the ratio {list(sample.ratio)}",
                sample.origin or place,
                f"{whole} images make one unit",
                secondary=[(self.exprs["train"].span, f"{train.name} takes {train.batch} images")],
                help=f"choose a batch that is a multiple of {whole * passes}",
            ).diagnostics
        )


def _default_classes(model: Model) -> tuple[str, ...]:
    """Class names that the model's own param has by default."""
    for path, decision in model.decisions.items():
        if "." not in path and isinstance(decision.value, Labels):
            return decision.value.names
    return ()


def _classes_of(construct: Construct) -> tuple[str, ...]:
    for arg in construct.args:
        data = arg.value.data
        if isinstance(data, Labels):
            return data.names
        if arg.name == "classes" and isinstance(data, list):
            return tuple(str(v.data) for v in data)
    return ()


def note_models(decl: ast.RunDecl, built: set[str]) -> None:
    for s in decl.body:
        if (
            isinstance(s, ast.WireStmt)
            and isinstance(s.value, ast.Call)
            and isinstance(s.value.func, ast.Ref)
        ):
            built.add(s.value.func.name)
