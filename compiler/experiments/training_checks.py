"""What a recipe asks of the model and the data that it trains: parameters to group, pipelines, numbers to watch."""

from __future__ import annotations

from collections.abc import Iterator

from detc.compiler.experiments.splits import check_trained
from detc.compiler.graph import Model
from detc.compiler.selectors import matches
from detc.compiler.spec import DataSpec, GroupRule, Quantity, TrainSpec
from detc.dsl.diagnostics import ERROR, WARNING, Report, closest, did_you_mean, error
from detc.dsl.source import Origin

STANDARD_PIPELINES = ("train", "val", "test", "predict")


def check_training(
    model: Model, data: DataSpec | None, train: TrainSpec, report: Report, place: Origin
) -> None:
    """Report what a recipe names and nothing is: parameters (DET0702), pipelines (DET0407), numbers (DET0704).

    place: the run's `data`.
    """
    _check_groups(model, train, report)
    _check_ramps(model, train, report)
    if data is not None:
        _check_switches(data, train, report)
        _check_pipeline_names(data, train, report)
        _check_numbers(data, train, report)
        check_trained(data, place, report)
    if not model.train.losses:
        message = f"{model.name} has no loss, and this run trains it"
        report.add(*error("DET0503", message, place, "nothing to train").diagnostics)


def parameter_names(model: Model, *, trainable: bool = False) -> list[str]:
    """Names of all parameters, such as `path.weight` and `path.bias`, as selectors see them."""
    return [
        f"{path}.{name}"
        for path, w in model.weights.items()
        if not (trainable and (w.frozen or getattr(w.op, "frozen", False)))
        for name in w.op.parameter_shapes(*w.types) or ("weight", "bias")
    ]


def _check_groups(model: Model, train: TrainSpec, report: Report) -> None:
    learnt, every = parameter_names(model, trainable=True), parameter_names(model)
    for rule in train.groups:
        assert rule.origin is not None
        if any(matches(rule.selector, name) for name in learnt):
            continue
        frozen = any(matches(rule.selector, name) for name in every)
        if frozen and rule.origin.span.source.library:
            continue  # a recipe for many models
        message = (
            f"the selector `{rule.selector}` matches {'frozen parameters only' if frozen else 'nothing'}"
        )
        label = "it changes nothing" if frozen else "no parameter matches" + _near(rule, every)
        severity = WARNING if frozen else ERROR
        report.add(*error("DET0702", message, rule.origin, label, severity=severity).diagnostics)
    stops = [rule for rule in train.groups if "frozen" in rule.fields]
    left = learnt
    for rule in stops:
        hit = {name for name in learnt if matches(rule.selector, name)}
        left = [n for n in left if n not in hit] if rule.fields["frozen"] else [*left, *hit]
    if stops and learnt and not left:
        message = "the groups freeze all parameters, and nothing is left to train"
        report.add(*error("DET0702", message, stops[-1].origin, "the last of them").diagnostics)


def _near(rule: GroupRule, names: list[str]) -> str:
    """`; did you mean …?`: a selector with a part of a parameter's path in place of a part that is in none."""
    parts = {p.partition("[")[0] for name in names for p in name.split(".")}
    for word in rule.selector.split("."):
        near = closest(word, parts) if "*" not in word and word.partition("[")[0] not in parts else None
        if near is not None:
            return f"; did you mean `{rule.selector.replace(word, near)}`?"
    return ""


def _check_switches(data: DataSpec, train: TrainSpec, report: Report) -> None:
    for switch in train.switches:
        if switch.path == "data.active" and switch.value not in data.pipelines:
            assert switch.origin is not None
            there = f"{data.name} has: {', '.join(data.pipelines)}"
            label = there + did_you_mean(str(switch.value), data.pipelines)
            message = f"there is no pipeline `{switch.value}`"
            report.add(*error("DET0407", message, switch.origin, label).diagnostics)


def _check_pipeline_names(data: DataSpec, train: TrainSpec, report: Report) -> None:
    """Warn about pipelines that nothing uses and whose names look like others."""
    used = {*STANDARD_PIPELINES, data.active, *(s.name for s in data.sources)}
    used |= {str(switch.value) for switch in train.switches}
    for name, steps in data.pipelines.items():
        near = closest(name, STANDARD_PIPELINES) if name not in used else None
        place = steps[0].origin if steps else None
        if near is not None and place is not None:
            message = f"the pipeline `{name}` is never used"
            found = error("DET0209", message, place, f"did you mean `{near}`?", severity=WARNING)
            report.add(*found.diagnostics)


def _check_numbers(data: DataSpec, train: TrainSpec, report: Report) -> None:
    """The number that chooses the best checkpoint, or stops a training, is one that validation gives."""
    known = list(_numbers(data))
    watched = {"best": train.fields.get("best")}
    watched |= {f"hooks.{n}": getattr(hook, "metric", None) for n, hook in train.hooks.items()}
    if not known:
        return
    for where, number in watched.items():
        if number is None or str(number).partition("/")[0] in known:
            continue
        message = f"validation on {data.name} gives no number `{number}`"
        label = "unknown number" + did_you_mean(str(number), known)
        help = f"there are: {', '.join(known)}"
        report.add(*error("DET0704", message, train.places.get(where), label, help=help).diagnostics)


def _numbers(data: DataSpec) -> Iterator[str]:
    """Names of what the metrics on the validation split compute; none if one of them does not say."""
    metrics = {
        n: m
        for n, m in dict(data.fields.get("evaluate") or {}).items()
        if getattr(m, "on", "val") == "val" and not getattr(m, "video", False)
    }
    lists = {n: m.numbers() if hasattr(m, "numbers") else () for n, m in metrics.items()}
    if not all(lists.values()):
        return
    for name, numbers in lists.items():
        yield from numbers
        if len(lists) > 1:
            yield from (f"{name}.{n}" for n in numbers)


def _check_ramps(model: Model, train: TrainSpec, report: Report) -> None:
    """Warn about a `Ramp` or `After` of the training clock that does not get to its end."""
    for node in model.train.nodes():
        end = getattr(node.op, "end", None) if getattr(node.op, "time", None) else None
        if isinstance(end, Quantity) and end.unit == train.epochs.unit and end.value > train.epochs.value:
            message = f"this {type(node.op).__name__} ends at {end}, and the run after {train.epochs}"
            label = f"{end} is beyond {train.epochs}"
            report.add(*error("DET0703", message, node.origin, label, severity=WARNING).diagnostics)
