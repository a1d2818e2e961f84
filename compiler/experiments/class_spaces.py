"""Whether a model predicts the classes that its data has."""

from __future__ import annotations

from detc.compiler.graph import Model
from detc.compiler.spec import DataSpec
from detc.compiler.values import Labels
from detc.dsl.diagnostics import Edit, Report, did_you_mean, error
from detc.dsl.source import Origin


def check_class_space(
    model: Model, data: DataSpec, report: Report, place: Origin, model_place: Origin
) -> None:
    """Report DET0605 if the model's own `classes` are others than the data's, or in another order.

    place, model_place: the run's `data` and `model`.
    """
    decision = model.decisions.get("classes")
    if decision is None or not isinstance(decision.value, Labels):
        return
    own, there = decision.value.names, tuple(data.classes)
    if own == there:
        return
    origin = decision.history[0][2] if decision.history else model_place
    if set(own) == set(there):
        message = f"{model.name} and {data.name} have the same classes in another order"
        label = "class numbers would not mean the same"
    else:
        message = f"{model.name} predicts {_count(own)}, and {data.name} has {_count(there)}"
        lacking = [n for n in own if n not in there]
        label = _some(own) + (did_you_mean(lacking[0], there) if lacking else "")
    inside = origin.span.source is model_place.span.source and (
        model_place.span.start <= origin.span.start < model_place.span.end
    )
    report.add(
        *error(
            "DET0605",
            message,
            origin,
            label,
            secondary=((place, f"this data has {_some(there)}"),),
            help="write `classes = data.classes`",
            fix=Edit(origin.span, "data.classes") if inside else None,
        ).diagnostics
    )


def _count(names: tuple[str, ...]) -> str:
    return f"{len(names)} class{'' if len(names) == 1 else 'es'}"


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
