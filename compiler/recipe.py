"""Resolving `train` declarations."""

from __future__ import annotations

from typing import Any

from detc.compiler.declared import finish, instance_body
from detc.compiler.edits import Active
from detc.compiler.evaluate import evaluate
from detc.compiler.fields import primitive
from detc.compiler.primitives import Primitive
from detc.compiler.spec import GroupRule, Quantity, Switch, TrainSpec
from detc.compiler.typecheck import check_value
from detc.compiler.values import Construct, Poisoned, a_kind, raw, show
from detc.dsl import ast
from detc.dsl.diagnostics import DetError, Report, did_you_mean, error
from detc.dsl.source import Origin

TRAIN_FIELDS = (
    "epochs", "batch", "optim", "clip", "amp", "accumulate", "validate", "seed", "compile", "log_every", "keep",
    "channels_last", "lr", "hooks", "best", "amp_dtype",
)  # fmt: skip
SWITCHABLE = ("data.active",)


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
                f"`validate` wants a record, not {a_kind(value)}",
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
