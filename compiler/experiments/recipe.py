"""Resolving `train` declarations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from detc.compiler.elaboration.edits import Active
from detc.compiler.experiments.declared import finish, instance_body
from detc.compiler.experiments.fields import Block, primitive
from detc.compiler.expressions.arith import whole
from detc.compiler.expressions.evaluate import evaluate
from detc.compiler.expressions.typecheck import check_value
from detc.compiler.primitives import Primitive
from detc.compiler.spec import GroupRule, Quantity, Switch, TrainSpec
from detc.compiler.values import Construct, Poisoned, Value, a_kind, raw, show
from detc.dsl import ast
from detc.dsl.diagnostics import WARNING, DetError, Report, did_you_mean, error
from detc.dsl.source import Origin

FIELD_TYPES = {
    "compile": "bool",
    "log_every": "int",
    "keep": "int",
    "channels_last": "bool",
    "best": "str",
    "amp_dtype": '"bf16" | "fp16"',
}
TRAIN_FIELDS = (
    "epochs", "batch", "optim", "clip", "amp", "accumulate", "validate", "seed", "lr", "hooks", *FIELD_TYPES,
)  # fmt: skip
GROUP_FIELDS = {
    "lr_scale": "float",
    "lr": "rate",
    "weight_decay": "float",
    "momentum": "float",
    "betas": "list",
    "frozen": "bool",
}
SWITCHABLE = ("data.active",)
NEEDED = object()  # the default of a field that has none
T = TypeVar("T")


class _Train:
    def __init__(self, construct: Construct, report: Report, edits: list[Active]) -> None:
        self.report, self.edits, self.construct = report, edits, construct
        self.body = instance_body(construct, report, edits, ("lr", "hooks", "validate"), ("group",))
        self.ctx = self.body.ctx
        self.failed = False

    def field(self, name: str, type_name: str, default: Any) -> Any:
        value = self.body.value(name)
        if value is None:
            return default
        t = ast.TypeName(name=type_name, span=value.origin.span, optional=default is None)
        what = f"`{name}` of {self.body.instance.name}"
        return check_value(value, t, what, self.body.instance.chain[0].module).data

    def named(self, block: str, attribute: str, what: str) -> dict[str, Primitive]:
        value = self.attempt(lambda: self.body.value(block))
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
                twin = next((n for n, b in made.items() if type(b) is type(built)), None)
                if what == "hook" and twin is not None:
                    message = f"there are two {type(built).name} hooks: `{twin}` and `{name}`"
                    place = value.data[twin].origin
                    raise error(
                        "DET0307", message, item.origin, "the second", secondary=[(place, "the first")]
                    )
                made[name] = built
            except DetError as problem:
                self.report.add(*problem.diagnostics)
                self.failed = True
        return made

    def attempt(self, make: Callable[[], T]) -> T | None:
        """What `make` makes; None if it cannot, which is reported, so that what else is wrong is found too."""
        try:
            return make()
        except DetError as problem:
            self.report.add(*problem.diagnostics)
        except Poisoned:
            pass
        self.failed = True
        return None

    def resolve(self) -> TrainSpec | None:
        body = self.body
        body.adopt(TRAIN_FIELDS)
        body.check_known(TRAIN_FIELDS, "train")
        for name in ("epochs", "batch", "optim"):
            if name not in body.fields:
                self.attempt(partial(self._missing, name))
        epochs = self.attempt(lambda: self.field("epochs", "duration", NEEDED))
        batch = self.attempt(lambda: self.field("batch", "images", NEEDED))
        epochs, batch = (None if v is NEEDED else v for v in (epochs, batch))
        images = self.attempt(partial(self._images, batch)) if batch is not None else None
        if epochs is not None and not self.attempt(partial(self._more_than_nothing, "epochs", epochs)):
            epochs = None
        optimiser = self.attempt(self._optimiser)
        lr = self.named("lr", "factor", "piece of a schedule")
        hooks = self.named("hooks", "accompanies", "hook")
        validate = self.attempt(self._validate)
        groups = self.attempt(partial(self._groups, optimiser))
        switches = None
        if epochs is not None:
            self._check_durations(lr, epochs)
            switches = self.attempt(partial(self._switches, epochs))
        clip = self.attempt(self._clip)
        amp = self.attempt(lambda: self.field("amp", "bool", False))
        accumulate = self.attempt(partial(self._passes, images))
        seed = self.attempt(self._seed)
        others = [n for n in FIELD_TYPES if n in body.fields]
        fields = {n: self.attempt(partial(self._plain, n)) for n in others}
        if amp is False and fields.get("amp_dtype") is not None:
            self._warn_idle_dtype()
        finish(body, self.edits, self.report, TRAIN_FIELDS)
        if self.failed or epochs is None or images is None or optimiser is None or validate is None:
            return None
        return TrainSpec(
            name=body.instance.name,
            epochs=epochs,
            batch=images,
            optim=optimiser,
            groups=tuple(groups or ()),
            lr=lr,
            hooks=hooks,
            switches=tuple(switches or ()),
            clip=clip,
            amp=bool(amp),
            accumulate=accumulate or 1,
            validate_every=validate[0],
            validate_late=validate[1],
            seed=seed or 0,
            fields=fields,
            places=self._places(others),
        )

    def _places(self, fields: list[str]) -> dict[str, Origin]:
        """Where fields and hooks are written."""
        found = {n: self.body.fields[n].get().origin for n in fields}
        hooks = self.body.value("hooks")
        return found | {f"hooks.{n}": v.origin for n, v in (hooks.data if hooks is not None else {}).items()}

    def _missing(self, name: str) -> None:
        raise error(
            "DET0208",
            f"{self.body.instance.name} has no `{name}`",
            self.construct.origin,
            f"`{name}` is missing",
        )

    def _plain(self, name: str) -> Any:
        """A further field, as its type in `FIELD_TYPES` says."""
        value = self.body.fields[name].get()
        span = value.origin.span
        options = [
            ast.TypeString(value=o[1:-1], span=span) if o[0] == '"' else ast.TypeName(name=o, span=span)
            for o in FIELD_TYPES[name].split(" | ")
        ]
        t = ast.TypeUnion(options=tuple(options), span=span) if len(options) > 1 else options[0]
        found = raw(check_value(value, t, f"`{name}`", self.body.instance.chain[0].module))
        if name == "log_every":
            return self._positive(name, found)
        if name == "keep" and found < 0:
            raise error("DET0311", f"`keep` must be at least 0, and is {found}", value.origin, show(found))
        return found

    def _images(self, batch: Quantity) -> int:
        value = self.body.value("batch")
        assert value is not None
        return self._positive("batch", whole(Value(batch.value, value.origin), "`batch`"))

    def _clip(self) -> float | None:
        clip: float | None = self.field("clip", "float", None)
        value = self.body.value("clip")
        if clip is not None and clip <= 0 and value is not None:
            message = f"`clip` is the largest norm of the gradient: more than 0, not {show(value)}"
            raise error("DET0311", message, value.origin, show(value))
        return clip

    def _passes(self, images: int | None) -> int:
        passes = self._positive("accumulate", self.field("accumulate", "int", 1))
        if images is not None and images % passes:
            value = self.body.value("accumulate")
            assert value is not None
            batch = self.body.value("batch")
            raise error(
                "DET0311",
                f"a batch of {images} images does not divide into {passes} passes",
                value.origin,
                f"{passes} passes",
                secondary=[(batch.origin if batch is not None else None, f"{images} images")],
                help=f"choose a batch that is a multiple of {passes}",
            )
        return passes

    def _warn_idle_dtype(self) -> None:
        message = "`amp_dtype` says which numbers mixed precision uses, and `amp` is not on"
        found = error(
            "DET0209",
            message,
            self.body.fields["amp_dtype"].get().origin,
            "nothing reads this",
            help="write amp = true, or leave it out",
            severity=WARNING,
        )
        self.report.add(*found.diagnostics)

    def _seed(self) -> int:
        seed: int = self.field("seed", "int", 0)
        value = self.body.value("seed")
        if seed < 0 and value is not None:
            raise error("DET0311", f"`seed` must be at least 0, and is {seed}", value.origin, show(seed))
        return seed

    def _more_than_nothing(self, name: str, time: Quantity, place: Origin | None = None) -> bool:
        """True; a time that is rounded to no iteration is an error too."""
        value = self.body.value(name)
        if time.value <= 0 or (time.unit == "it" and time.value < 1):
            where = place or (value.origin if value is not None else self.construct.origin)
            least = "at least 1it" if time.value > 0 else "more than 0"
            raise error("DET0311", f"`{name}` must be {least}, and is {time}", where, str(time))
        return True

    def _optimiser(self) -> Any:
        value = self.body.value("optim")
        if value is None:
            return None
        edits = self.body.instance.edits.into("optim")[1]
        optimiser = primitive(value, Primitive, self.ctx, "optim", edits, "an optimiser")
        if not hasattr(optimiser, "lr"):
            message = f"{type(optimiser).name} is no optimiser"
            raise error("DET0704", message, value.origin, "an optimiser is wanted here")
        return optimiser

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
            self._more_than_nothing(name, found[name], item.origin)
        return found.get("every", Quantity(1, "ep")), found.get("every_late")

    def _check_durations(self, pieces: dict[str, Primitive], epochs: Quantity) -> None:
        for name, piece in pieces.items():
            origins = self.ctx.origins_of(piece)
            for field, value in piece.model_dump().items():
                many = getattr(piece, field)
                for q in many if isinstance(many, list) else [many]:
                    late = isinstance(q, Quantity) and q.unit == epochs.unit and q.value >= epochs.value
                    if late and (q.value > epochs.value or field == "start"):
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

    def _groups(self, optimiser: Any) -> list[GroupRule]:
        rules = [self.attempt(partial(self._group, block, optimiser)) for block in self.body.blocks]
        return [rule for rule in rules if rule is not None]

    def _group(self, block: Block, optimiser: Any) -> GroupRule:
        stmt = block.stmt
        if stmt.label is None:
            raise error("DET0702", "a group needs a selector", stmt.span, 'write group "**.bias" { … }')
        fields: dict[str, Any] = {}
        for s in stmt.body:
            if not isinstance(s, ast.WireStmt):
                raise error("DET0706", "a group holds fields: lr_scale = 0.1", s.span, "not a field")
            name, place = s.targets[0].name, s.targets[0].span
            if name not in GROUP_FIELDS:
                label = "unknown field" + did_you_mean(name, GROUP_FIELDS)
                known = f"it may have: {', '.join(GROUP_FIELDS)}"
                raise error("DET0704", f"a group has no field `{name}`", place, label, help=known)
            if name in ("momentum", "betas") and optimiser is not None and not hasattr(optimiser, name):
                message = f"{type(optimiser).name} has no `{name}`"
                raise error("DET0704", message, place, "the optimiser does not know it")
            if name in fields:
                raise error("DET0307", f"`{name}` is given twice", place, "given again here")
            value = evaluate(s.value, block.scope)
            t = ast.TypeName(name=GROUP_FIELDS[name], span=value.origin.span)
            fields[name] = raw(check_value(value, t, f"`{name}`", self.body.instance.chain[0].module))
            self._check_group_field(name, fields[name], value)
        if not fields:
            raise error("DET0706", "this group says nothing of its parameters", stmt.span, "no fields",
                        help=f"it may have: {', '.join(GROUP_FIELDS)}")  # fmt: skip
        return GroupRule(str(stmt.label), fields, Origin(stmt.span, block.scope.via))

    @staticmethod
    def _check_group_field(name: str, found: Any, value: Value) -> None:
        """Numbers of the range that the optimiser takes for all parameters."""
        if name == "betas":
            good = len(found) == 2 and all(type(b) in (int, float) and 0 <= b < 1 for b in found)
            wanted = "two numbers, at least 0 and below 1"
        elif name == "momentum":
            good, wanted = 0 <= found < 1, "at least 0 and below 1"
        elif name == "lr":
            good, wanted = found.value >= 0, "at least 0"
        else:
            good, wanted = found >= 0, "at least 0"
        if not good:
            message = f"`{name}` of a group must be {wanted}, and is {show(value)}"
            raise error("DET0311", message, value.origin, show(value))

    def _switches(self, epochs: Quantity) -> list[Switch]:
        found = [self.attempt(partial(self._switch, stmt, scope, epochs)) for stmt, scope in self.body.at]
        return [switch for switches in found for switch in switches or ()]

    def _switch(self, stmt: ast.AtStmt, scope: Any, epochs: Quantity) -> list[Switch]:
        time = evaluate(stmt.time, scope)
        t = ast.TypeName(name="duration", span=stmt.time.span)
        at: Quantity = check_value(time, t, "a time", self.body.instance.chain[0].module).data
        if at.unit == epochs.unit and not 0 <= at.value <= epochs.value:
            message = f"the time {at} is outside of the run (0 to {epochs})"
            raise error("DET0703", message, time.origin, f"this is {at}")
        found = []
        if not stmt.body:
            raise error("DET0706", "this `at` block changes nothing", stmt.span, 'set data.active = "late"')
        for s in stmt.body:
            if not isinstance(s, ast.SetStmt):
                raise error("DET0706", "an `at` block holds `set` statements", s.span, "not a `set`")
            path = ".".join([s.path.head, *(x.name or "" for x in s.path.segments)])
            if path not in SWITCHABLE:
                near = did_you_mean(path, SWITCHABLE)
                label = f"only {', '.join(SWITCHABLE)} can change during a run{near}"
                message = f"`{path}` cannot be switched while training"
                raise error("DET0705", message, Origin(s.path.span, scope.via), label)
            t = ast.TypeName(name="str", span=s.value.span)
            to = check_value(evaluate(s.value, scope), t, f"`{path}`", self.body.instance.chain[0].module)
            found.append(Switch(at, path, raw(to), Origin(s.span, scope.via)))
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
