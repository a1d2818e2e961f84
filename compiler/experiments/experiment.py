"""Resolving `data` declarations to the specs that the runtime takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from detc.compiler import primitives
from detc.compiler.elaboration.build_op import nested
from detc.compiler.elaboration.edits import Active
from detc.compiler.experiments.declared import finish, instance_body
from detc.compiler.experiments.fields import Body, primitive
from detc.compiler.experiments.pipelines import pipelines
from detc.compiler.experiments.sources import class_union, evaluation_source, resolve_sources
from detc.compiler.experiments.splits import check_evaluated
from detc.compiler.expressions.typecheck import check_value
from detc.compiler.spec import DataSource, DataSpec
from detc.compiler.values import Construct, Labels, Poisoned, Value, raw, show
from detc.dsl import ast
from detc.dsl.diagnostics import DetError, Report, did_you_mean, error
from detc.dsl.source import Origin


@dataclass(eq=False)
class DataValue:
    """A data declaration as a value in a spec: `data.classes`, `data.size`."""

    body: Body
    spec_classes: Labels | None
    label = "data set"

    def __str__(self) -> str:
        return self.body.instance.name

    def detc_members(self) -> list[str]:
        """What can be written after its dot."""
        fields = [n for n in self.body.fields if n not in ("classes", "source", "sources", "sample")]
        return list(dict.fromkeys(["classes", *self.body.instance.param_names(), *fields]))

    def detc_member(self, name: str, origin: Origin) -> Value | None:
        """`classes`, a param or a field."""
        if name == "classes":
            if self.spec_classes is None:
                raise Poisoned
            return Value(self.spec_classes, origin)
        found = self.body.instance.param(name)
        return found if found is not None else self.body.value(name)


def data_value(construct: Construct, report: Report, edits: list[Active]) -> DataValue:
    """The data declaration as a value, with its class names."""
    body = instance_body(construct, report, edits, (), ("pipeline",))
    classes: Labels | None = None
    given = body.instance.param("classes") or body.value("classes")
    if given is not None and given.data is not None:
        want = ast.TypeName(name="labels", span=given.origin.span)
        checked = check_value(given, want, "`classes`", body.instance.chain[0].module)
        classes = checked.data
        _check_class_space(body, checked, report)
    else:
        found = class_union(body) if "sources" in body.fields else source_of(body).read_classes()
        if found is None:
            raise error(
                "DET0606",
                "the class names are not known: the data set states none, and its annotations are not there",
                construct.origin,
                "this data set",
                help='state them: set classes = ["…"], or point root at the data',
            )
        classes = Labels(tuple(found))
    return DataValue(body, classes)


def _check_class_space(body: Body, given: Value, report: Report) -> None:
    if "sources" in body.fields:
        return  # each is held against the list by itself
    try:
        there = source_of(body).read_classes()
    except DetError as problem:
        report.add(*problem.diagnostics)
        return
    if there is None:
        return
    lacking = [n for n in given.data.names if n not in there]
    if lacking:
        report.add(
            *error(
                "DET0605",
                f"the annotations have no class {', '.join(map(show, lacking[:5]))}",
                given.origin,
                "declared here" + did_you_mean(lacking[0], there),
                help=f"the annotations have: {', '.join(there[:20])}",
            ).diagnostics
        )


def source_of(body: Body) -> DataSource:
    """The reader that a data declaration names.

    Raises:
        DetError: DET0208 if it names none.
    """
    value = body.value("source")
    if value is None and "sources" in body.fields:
        return evaluation_source(body)
    if value is None:
        raise error(
            "DET0208",
            f"{body.instance.name} has no `source`",
            body.instance.construct.origin,
            "a data set needs a source",
        )
    cached = body.ctx.__dict__.setdefault("_source", {})
    if "source" not in cached:
        cached["source"] = primitive(
            value, DataSource, body.ctx, "source", body.instance.edits.into("source")[1], "a data source"
        )
    found: DataSource = cached["source"]
    return found


def resolve_data(value: DataValue, report: Report, edits: list[Active]) -> DataSpec | None:
    """The data spec; None if it could not be built."""
    body = value.body
    source: DataSource | None = None
    try:
        source = source_of(body)
    except DetError as problem:  # what else is wrong is found too
        report.add(*problem.diagnostics)
    except Poisoned:
        pass
    lines = pipelines(body)
    assert value.spec_classes is not None
    sources, sample = resolve_sources(body, value.spec_classes.names, report)
    known = getattr(primitives.find("std.data", "DataFields"), "model_fields", {})
    body.adopt(known)
    body.check_read((*known, "source", "classes", "active", "sources", "sample"), "data")
    fields: dict[str, Any] = {}
    for name, thunk in body.fields.items():
        if name in ("source", "classes", "sources", "sample"):
            continue
        try:
            fields[name] = raw(nested(thunk.get(), body.ctx, name))
        except DetError as problem:
            report.add(*problem.diagnostics)
        except Poisoned:
            continue
    _check_fields(body, {k: v for k, v in fields.items() if k in known}, report)
    if source is not None:
        check_evaluated(body, source, dict(fields.get("evaluate") or {}), report)
    finish(body, edits, report, (*known, "classes", "source", "active"))
    if source is None:
        return None
    active = str(fields.pop("active", "train"))
    fields = {
        k: v for k, v in fields.items() if k in known
    }  # others, records of paths, say, only feed `source`
    place = body.fields["source"].get().origin if "source" in body.fields else None
    return DataSpec(
        body.instance.name, value.spec_classes.names, source, lines, active, fields, sources, sample, place
    )


def _check_fields(body: Body, fields: dict[str, Any], report: Report) -> None:
    from detc.compiler.elaboration.build_op import validate

    cls = primitives.find("std.data", "DataFields")
    if cls is None:
        return
    values = {k: Value(v, body.fields[k].get().origin) for k, v in fields.items()}
    try:
        validate(cls, values, body.instance.construct.origin, body.instance.name)
    except DetError as problem:
        report.add(*problem.diagnostics)
