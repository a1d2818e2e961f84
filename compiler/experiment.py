"""Resolving `data`, `train` and `target` declarations to the specs that the runtime takes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from detc.compiler import primitives
from detc.compiler.build_op import nested
from detc.compiler.edits import Active, Edits, unmatched
from detc.compiler.elaborate import Elaborator
from detc.compiler.evaluate import evaluate
from detc.compiler.fields import Body, pipelines, primitive
from detc.compiler.params import Instance
from detc.compiler.primitives import Primitive
from detc.compiler.spec import DataSource, DataSpec, GroupRule, Quantity, Size, Switch, TargetSpec, TrainSpec
from detc.compiler.typecheck import check_value
from detc.compiler.values import Construct, Labels, Poisoned, Value, kind_of, raw, show
from detc.dsl import ast
from detc.dsl.diagnostics import DetError, Report, did_you_mean, error
from detc.dsl.source import Origin

TRAIN_FIELDS = (
    "epochs", "batch", "optim", "clip", "amp", "accumulate", "validate", "seed", "compile", "log_every", "keep",
    "channels_last", "lr", "hooks", "best", "amp_dtype",
)  # fmt: skip
TARGET_FIELDS = ("opset", "image", "batch", "precision", "layout", "nms", "input")
SWITCHABLE = ("data.active",)


@dataclass(eq=False)
class DataValue:
    """A data declaration as a value in a spec: `data.classes`, `data.size`."""

    body: Body
    spec_classes: Labels | None
    label = "data set"

    def detc_member(self, name: str, origin: Origin) -> Value | None:
        """`classes`, a param or a field."""
        if name == "classes":
            if self.spec_classes is None:
                raise Poisoned
            return Value(self.spec_classes, origin)
        found = self.body.instance.param(name)
        return found if found is not None else self.body.value(name)


def instance_body(
    construct: Construct,
    report: Report,
    edits: list[Active],
    records: tuple[str, ...],
    blocks: tuple[str, ...],
) -> Body:
    """Bind a declaration's params and read its fields."""
    ctx = Elaborator(report)
    via = (construct.origin.span, *construct.origin.via)
    instance = Instance(ctx, construct, "", via, Edits(list(edits)))
    return Body(instance, records, blocks)


def finish(body: Body, edits: list[Active], report: Report) -> None:
    """Evaluate what nobody asked for, then report edits that arrived nowhere."""
    for params in body.instance.params:
        for thunk in params.values():
            _quiet(thunk.get)
    for thunk in body.fields.values():
        _quiet(thunk.get)
    claims = {id(c.claim): c for c in [*edits, *body.ctx.claims, *body.instance.edits.items]}
    unmatched(list(claims.values()), list(body.ctx.paths), report)


def _quiet(get: Any) -> None:
    with suppress(Poisoned):
        get()


# --- data --------------------------------------------------------------------------------------


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
        found = source_of(body).read_classes()
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
    try:
        source = source_of(body)
    except DetError as problem:
        report.add(*problem.diagnostics)
        return None
    lines = pipelines(body)
    known = getattr(primitives.find("std.data", "DataFields"), "model_fields", {})
    body.check_read((*known, "source", "classes", "active"), "data")
    fields: dict[str, Any] = {}
    for name, thunk in body.fields.items():
        if name in ("source", "classes"):
            continue
        try:
            fields[name] = raw(nested(thunk.get(), body.ctx, name))
        except DetError as problem:
            report.add(*problem.diagnostics)
        except Poisoned:
            continue
    _check_fields(body, {k: v for k, v in fields.items() if k in known}, report)
    finish(body, edits, report)
    assert value.spec_classes is not None
    active = str(fields.pop("active", "train"))
    return DataSpec(body.instance.name, value.spec_classes.names, source, lines, active, fields)


def _check_fields(body: Body, fields: dict[str, Any], report: Report) -> None:
    from detc.compiler.build_op import validate

    cls = primitives.find("std.data", "DataFields")
    if cls is None:
        return
    values = {k: Value(v, body.fields[k].get().origin) for k, v in fields.items()}
    try:
        validate(cls, values, body.instance.construct.origin)
    except DetError as problem:
        report.add(*problem.diagnostics)


# --- train -------------------------------------------------------------------------------------


class _Train:
    def __init__(self, construct: Construct, report: Report, edits: list[Active]) -> None:
        self.report, self.edits, self.construct = report, edits, construct
        self.body = instance_body(construct, report, edits, ("lr", "hooks", "validate"), ("group",))
        self.ctx = self.body.ctx

    def field(self, name: str, type_name: str, default: Any) -> Any:
        value = self.body.value(name)
        if value is None:
            return default
        t = ast.TypeName(name=type_name, span=value.origin.span, optional=default is None)
        return check_value(value, t, f"`{name}`", self.body.instance.chain[0].module).data

    def named(self, block: str, attribute: str, what: str) -> dict[str, Primitive]:
        value = self.body.value(block)
        if value is None:
            return {}
        made: dict[str, Primitive] = {}
        for name, item in value.data.items():
            edits = self.body.instance.edits.into(block)[1].into(name)[1]
            try:
                built = primitive(item, Primitive, self.ctx, f"{block}.{name}", edits, what)
                if not hasattr(built, attribute):
                    raise error(
                        "DET0704",
                        f"{type(built).name} is no {what}",
                        item.origin,
                        f"a {what} is wanted in `{block}`",
                    )
                made[name] = built
            except DetError as problem:
                self.report.add(*problem.diagnostics)
        return made

    def resolve(self) -> TrainSpec | None:
        body = self.body
        body.check_known(TRAIN_FIELDS, "train")
        epochs = self.field("epochs", "duration", None)
        batch = self.field("batch", "images", None)
        optim = body.value("optim")
        for name, value in (("epochs", epochs), ("batch", batch), ("optim", optim)):
            if value is None:
                raise error(
                    "DET0208",
                    f"{body.instance.name} has no `{name}`",
                    self.construct.origin,
                    f"`{name}` is missing",
                )
        assert optim is not None
        optimiser = primitive(
            optim, Primitive, self.ctx, "optim", body.instance.edits.into("optim")[1], "an optimiser"
        )
        if not hasattr(optimiser, "lr"):
            raise error(
                "DET0704",
                f"{type(optimiser).name} is no optimiser",
                optim.origin,
                "an optimiser is wanted here",
            )
        lr = self.named("lr", "factor", "piece of a schedule")
        hooks = self.named("hooks", "module", "hook")
        every, late = self._validate()
        self._check_durations(lr, epochs)
        spec = TrainSpec(
            name=body.instance.name,
            epochs=epochs,
            batch=self._positive("batch", round(batch.value)),
            optim=optimiser,
            groups=tuple(self._groups()),
            lr=lr,
            hooks=hooks,
            switches=tuple(self._switches(epochs)),
            clip=self.field("clip", "float", None),
            amp=self.field("amp", "bool", False),
            accumulate=self._positive("accumulate", self.field("accumulate", "int", 1)),
            validate_every=every,
            validate_late=late,
            seed=self.field("seed", "int", 0),
            fields={
                n: raw(body.fields[n].get())
                for n in TRAIN_FIELDS[8:]
                if n in body.fields and n not in ("lr", "hooks")
            },
        )
        finish(body, self.edits, self.report)
        return spec

    def _positive(self, name: str, number: int) -> int:
        if number < 1:
            value = self.body.value(name)
            place = value.origin if value is not None else self.construct.origin
            raise error("DET0311", f"`{name}` must be at least 1, and is {number}", place, show(number))
        return number

    def _validate(self) -> tuple[Quantity, Quantity | None]:
        value = self.body.value("validate")
        if value is None:
            return Quantity(1, "ep"), None
        if not isinstance(value.data, dict):
            raise error(
                "DET0301",
                f"`validate` wants a record, not a {kind_of(value)}",
                value.origin,
                "{ every = 1ep }",
            )
        found: dict[str, Quantity] = {}
        for name, item in value.data.items():
            if name not in ("every", "every_late"):
                label = "unknown field" + did_you_mean(name, ("every", "every_late"))
                raise error("DET0704", f"`validate` has no field `{name}`", item.origin, label)
            t = ast.TypeName(name="duration", span=item.origin.span)
            found[name] = check_value(item, t, f"`{name}`", self.body.instance.chain[0].module).data
        return found.get("every", Quantity(1, "ep")), found.get("every_late")

    def _check_durations(self, pieces: dict[str, Primitive], epochs: Quantity) -> None:
        for name, piece in pieces.items():
            origins = self.ctx.origins_of(piece)
            for field, value in piece.model_dump().items():
                many = getattr(piece, field)
                for q in many if isinstance(many, list) else [many]:
                    if isinstance(q, Quantity) and q.unit == epochs.unit and q.value > epochs.value:
                        place = origins.get(field, self.construct.origin)
                        self.report.add(
                            *error(
                                "DET0703",
                                f"`{name}` reaches to {q}, and the run ends after {epochs}",
                                place,
                                f"{q} is beyond {epochs}",
                            ).diagnostics
                        )
                del value

    def _groups(self) -> list[GroupRule]:
        rules = []
        for block in self.body.blocks:
            stmt = block.stmt
            if stmt.label is None:
                raise error("DET0702", "a group needs a selector", stmt.span, 'write group "**.bias" { … }')
            fields: dict[str, Any] = {}
            for s in stmt.body:
                if not isinstance(s, ast.WireStmt):
                    raise error("DET0706", "a group holds fields: lr_scale = 0.1", s.span, "not a field")
                name = s.targets[0].name
                if name not in ("lr_scale", "weight_decay", "momentum", "lr", "frozen"):
                    near = did_you_mean(name, ("lr_scale", "weight_decay", "momentum", "lr"))
                    raise error("DET0704", f"a group has no field `{name}`", s.span, "unknown field" + near)
                value = evaluate(s.value, block.scope)
                fields[name] = raw(value)
            rules.append(GroupRule(str(stmt.label), fields, Origin(stmt.span, block.scope.via)))
        return rules

    def _switches(self, epochs: Quantity) -> list[Switch]:
        found = []
        for stmt, scope in self.body.at:
            time = evaluate(stmt.time, scope)
            t = ast.TypeName(name="duration", span=stmt.time.span)
            at: Quantity = check_value(time, t, "a time", self.body.instance.chain[0].module).data
            place = Origin(stmt.time.span, scope.via)
            if at.unit == epochs.unit and not 0 <= at.value <= epochs.value:
                raise error(
                    "DET0703", f"the time {at} is outside of the run (0 to {epochs})", place, f"this is {at}"
                )
            for s in stmt.body:
                if not isinstance(s, ast.SetStmt):
                    raise error("DET0706", "an `at` block holds `set` statements", s.span, "not a `set`")
                path = ".".join([s.path.head, *(x.name or "" for x in s.path.segments)])
                if path not in SWITCHABLE:
                    label = f"only {', '.join(SWITCHABLE)} can change during a run" + did_you_mean(
                        path, SWITCHABLE
                    )
                    raise error(
                        "DET0705",
                        f"`{path}` cannot be switched while training",
                        Origin(s.path.span, scope.via),
                        label,
                    )
                found.append(Switch(at, path, raw(evaluate(s.value, scope)), Origin(s.span, scope.via)))
        return found


def resolve_train(construct: Construct, report: Report, edits: list[Active]) -> TrainSpec | None:
    """The train spec; None if it could not be built."""
    try:
        return _Train(construct, report, edits).resolve()
    except DetError as problem:
        report.add(*problem.diagnostics)
    except Poisoned:
        pass
    return None


# --- target ------------------------------------------------------------------------------------


def resolve_target(construct: Construct, report: Report, edits: list[Active]) -> TargetSpec | None:
    """The target spec; None if it could not be built."""
    try:
        return _target(construct, report, edits)
    except DetError as problem:
        report.add(*problem.diagnostics)
    except Poisoned:
        pass
    return None


_CHOICES = {
    "precision": ("fp32", "fp16", "bf16"),
    "layout": ("nchw", "nhwc"),
    "nms": ("native", "NonMaxSuppression", "topk", "EfficientNMS_TRT"),
    "input": ("uint8", "float32"),
}


def _target(construct: Construct, report: Report, edits: list[Active]) -> TargetSpec:
    body = instance_body(construct, report, edits, (), ())
    found: dict[str, Any] = {"name": body.instance.name}
    for name, thunk in body.fields.items():
        if name not in TARGET_FIELDS:
            label = "unknown field" + did_you_mean(name, TARGET_FIELDS)
            raise error("DET0801", f"a target has no field `{name}`", thunk.span, label)
        value = thunk.get()
        data = value.data
        if name in _CHOICES:
            if data not in _CHOICES[name]:
                options = ", ".join(map(show, _CHOICES[name]))
                label = "not one of them" + (
                    did_you_mean(data, _CHOICES[name]) if isinstance(data, str) else ""
                )
                raise error(
                    "DET0801", f"`{name}` must be one of {options}, not {show(value)}", value.origin, label
                )
            found[name] = data
        elif name == "opset":
            if not isinstance(data, int) or not 13 <= data <= 23:
                raise error(
                    "DET0801",
                    f"`opset` must be 13 to 23, not {show(value)}",
                    value.origin,
                    "no such opset here",
                )
            found[name] = data
        elif name == "image":
            if data == "dynamic" or data is None:
                found[name] = None
                continue
            if not isinstance(data, Size):
                raise error(
                    "DET0801",
                    f'`image` is a size or "dynamic", not {show(value)}',
                    value.origin,
                    "write 640x640",
                )
            found[name] = data
        elif name == "batch":
            numbers = raw(value)
            low, high = (numbers[0], numbers[-1] + 1) if isinstance(numbers, list) else (numbers, numbers)
            if not isinstance(low, int) or not isinstance(high, int) or not 1 <= low <= high:
                raise error(
                    "DET0804",
                    f"`batch` is a number or a range from 1, not {show(value)}",
                    value.origin,
                    "1 .. 16",
                )
            found[name] = (low, high)
    finish(body, edits, report)
    return TargetSpec(**found, stated=frozenset(body.fields))
