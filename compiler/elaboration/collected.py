"""Losses: `loss cls(weight = 2.0) = (logits, target) -> Focal()`, a scalar of training with a name and a weight; and
`loss unsup(weight = 4.0) = (strong.image, pseudo) -> student`, all losses of one application under one name.

A component that owns losses may be applied several times in training; each application names its losses by
itself. `only` and `without` choose among them by selector.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from detc.compiler.elaboration.edits import new_value, settle
from detc.compiler.expressions.evaluate import Inputs, Scope, evaluate, origin_of, std_op
from detc.compiler.graph import Loss
from detc.compiler.selectors import matches
from detc.compiler.values import Poisoned, Value, Wire, a_kind, kind_of, raw, show
from detc.dsl import ast
from detc.dsl.diagnostics import DetError, did_you_mean, error
from detc.dsl.source import Origin

if TYPE_CHECKING:
    from detc.compiler.elaboration.frame import Frame

PICKS = ("only", "without")


def declare(frame: Frame, stmt: ast.LossStmt, scope: Scope, phase: str) -> None:
    """A `loss` statement.

    Raises:
        DetError: what is wrong with it.
    """
    if phase != "train":
        raise error(
            "DET0503",
            "a loss belongs into a `train` block",
            Origin(stmt.span, scope.via),
            "not in train { … }",
            help="wrap it: train { loss … }",
        )
    index = frame.index(stmt.target, scope)
    own, below = frame.instance.edits.into("loss")[1].into(stmt.target.name, index)
    name = _path(frame.path, stmt.target.name, index)
    frame.ctx.know(f"loss.{name}")
    frame.ctx.know(f"loss.{name}.weight")
    if (removed := settle(own, name, frame.ctx.report)) is not None and isinstance(
        removed.stmt, ast.RemoveStmt
    ):
        return
    weight: float | Value = 1.0
    picks = {}
    for arg in stmt.args:
        if arg.name in PICKS:
            picks[arg.name] = evaluate(arg.value, scope)
            continue
        if arg.name != "weight":
            raise error("DET0207", f"a loss has no argument `{arg.name}`", arg.span, "a loss takes `weight`")
        weight = _weight(evaluate(arg.value, scope), origin_of(arg.value, scope))
    edit = settle(below.of_field("weight"), f"loss.{name}.weight", frame.ctx.report)
    if edit is not None and isinstance(edit.stmt, ast.SetStmt):
        given = new_value(edit)
        weight = _weight(given, given.origin)
    before, origin = mark(frame), Origin(stmt.span, scope.via)
    value = evaluated(frame, before, stmt.value, scope)
    if collect(frame, before, value, name, weight, picks, origin):
        return
    if not isinstance(value.data, Wire) or getattr(value.data.type, "shape", None) != ():
        what = show(value.data.type) if isinstance(value.data, Wire) else kind_of(value)
        raise error(
            "DET0304",
            f"a loss must be a scalar, not a {what}",
            origin_of(stmt.value, scope),
            "this is no scalar",
        )
    wire, number = weighted(frame, value.data, weight, origin)
    frame.ctx.loss(Loss(name, wire, number, origin))


def _weight(value: Value, place: Origin) -> float | Value:
    """A number, or a scalar that is known at run time."""
    if is_scalar(value):
        return value
    if isinstance(value.data, bool) or not isinstance(value.data, (int, float)):
        raise error(
            "DET0301",
            f"a loss weight must be a number, not {a_kind(value)}",
            place if isinstance(value.data, Wire) else value.origin,
            show(value),
        )
    return float(value.data)


def mark(frame: Frame) -> tuple[int, int]:
    """How many losses and frames there are before an application."""
    return len(frame.ctx.graph.losses), len(frame.ctx.frames)


def evaluated(frame: Frame, before: tuple[int, int], expr: ast.Expr, scope: Scope) -> Value:
    """The value of a loss; an application that fails leaves no losses behind."""
    try:
        return evaluate(expr, scope)
    except (DetError, Poisoned):
        del frame.ctx.graph.losses[before[0] :]
        raise


def collect(
    frame: Frame,
    before: tuple[int, int],
    value: Value,
    name: str,
    weight: float | Value,
    picks: dict[str, Value],
    origin: Origin,
) -> bool:
    """Rename and weigh the losses that appeared since `before`; False if the value itself is the loss.

    Raises:
        DetError: DET0503 if the application has no losses, DET0702 if a selector matches none of them.
    """
    if is_scalar(value):
        if picks:
            key, given = next(iter(picks.items()))
            message = f"`{key}` chooses among the losses of an application, and this is a single one"
            raise error("DET0207", message, given.origin, "nothing to choose from")
        return False
    losses = frame.ctx.graph.losses
    new = losses[before[0] :]
    called = [f for f in frame.ctx.frames[before[1] :] if f.caller is frame]
    if not new:
        if called and not isinstance(value.data, Wire):
            message = f"{called[-1].instance.name} has no losses in training"
            raise error("DET0503", message, origin, "nothing to learn from here")
        return False
    path = called[-1].path if called else ""
    own = [(x, x.name.removeprefix(f"{path}.")) for x in new]
    kept = _pick([suffix for _, suffix in own], picks)
    del losses[before[0] :]
    for loss, suffix in own:
        if suffix in kept:
            wire, number = weighted(frame, loss.wire, weight, origin)
            frame.ctx.loss(replace(loss, name=f"{name}.{suffix}", wire=wire, weight=loss.weight * number))
    return True


def is_scalar(value: Value) -> bool:
    """True for a wire that is one number."""
    return isinstance(value.data, Wire) and getattr(value.data.type, "shape", None) == ()


def weighted(frame: Frame, loss: Wire, weight: float | Value, origin: Origin) -> tuple[Wire, float]:
    """A loss and the number to weigh it by; a weight that is a wire is multiplied in the graph."""
    if not isinstance(weight, Value):
        return loss, weight
    inputs: Inputs = [(None, Value(loss, origin)), (None, weight)]
    product = frame.apply(Value(std_op("Mul"), origin), inputs, origin.span, origin.via)
    assert isinstance(product.data, Wire)
    return product.data, 1.0


def _pick(names: list[str], picks: dict[str, Value]) -> list[str]:
    kept = names
    for key, value in picks.items():
        given = raw(value)
        selectors = given if isinstance(given, list) else [given]
        if not all(isinstance(s, str) for s in selectors):
            raise error("DET0301", f"`{key}` wants selectors of losses", value.origin, show(value))
        for s in selectors:
            if not any(matches(s, n) for n in names):
                raise error(
                    "DET0702",
                    f"the selector `{s}` matches no loss",
                    value.origin,
                    f"the losses are {', '.join(names)}" + did_you_mean(s, names),
                )
        hit = [n for n in names if any(matches(s, n) for s in selectors)]
        kept = [n for n in kept if (n in hit) == (key == "only")]
    if not kept:
        key, value = next(iter(picks.items()))
        raise error("DET0503", f"`{key}` leaves no loss", value.origin, f"the losses are {', '.join(names)}")
    return kept


def _path(path: str, name: str, index: tuple[int, ...]) -> str:
    own = name + (f"[{', '.join(map(str, index))}]" if index else "")
    return f"{path}.{own}" if path else own
