"""`sources { … }` and `sample { … }`: several data sets in one, their class spaces mapped by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from detc.compiler import primitives
from detc.compiler.experiments.fields import Body, primitive
from detc.compiler.expressions.arith import whole
from detc.compiler.spec import DataSource, NamedSource, Sampling
from detc.compiler.values import Construct, Labels, Poisoned, TemplateRef, Value, a_kind, show
from detc.dsl.diagnostics import DetError, Report, did_you_mean, error


@dataclass(frozen=True)
class _Entry:
    """A source as declared: its own class names are None where they are not known."""

    name: str
    source: DataSource
    classes: tuple[str, ...] | None
    value: Value


def entries(body: Body) -> list[_Entry]:
    """The sources of a data declaration: readers, or other data declarations for theirs.

    Raises:
        DetError: DET0609 for a block without entries, DET0301 for an entry that is no source.
    """
    cached = body.ctx.__dict__.setdefault("_entries", {})
    if "found" not in cached:
        value = body.fields["sources"].get()
        if not isinstance(value.data, dict) or not value.data:
            raise error("DET0609", "`sources` names no source", value.origin, "write labelled: CocoJson(…)")
        for name in (n for n in ("val", "test", "predict") if n in value.data):
            message = f"a source `{name}` would take the pipeline `{name}`, which is for evaluation"
            raise error("DET0609", message, value.data[name].origin, "give it another name")
        cached["found"] = [_entry(body, name, item) for name, item in value.data.items()]
    found: list[_Entry] = cached["found"]
    return found


def _entry(body: Body, name: str, item: Value) -> _Entry:
    data = item.data
    own = body.instance.edits.into("sources")[1].into(name)[1]
    if isinstance(data, TemplateRef):
        data = Construct(data, (), item.origin)
    if isinstance(data, Construct) and isinstance(data.target, TemplateRef):
        if getattr(data.target.decl, "kind", "") != "data":
            raise error(
                "DET0301",
                f"a data set or a data source is wanted here, not `{data.name}`",
                item.origin,
                show(item),
            )
        from detc.compiler.experiments.experiment import data_value, source_of

        made = data_value(data, body.ctx.report, own.items)
        return _Entry(name, *_limited(source_of(made.body), made.spec_classes), item)
    source = primitive(item, DataSource, body.ctx, f"sources.{name}", own, "a data source")
    names = source.read_classes() if source.annotated else None
    return _Entry(name, source, tuple(names) if names is not None else None, item)


def _limited(source: DataSource, names: Labels | None) -> tuple[DataSource, tuple[str, ...] | None]:
    """A data set's reader that gives no other classes than the data set declares."""
    if names is None or not source.annotated or source.read_classes() in (None, list(names.names)):
        return source, names.names if names is not None else None
    relabel = primitives.find("std.data", "Relabel")
    assert relabel is not None
    limited = relabel.model_validate({"of": source, "keep": list(names.names)})
    assert isinstance(limited, DataSource)
    return limited, names.names


def class_union(body: Body) -> list[str] | None:
    """The names of all sources with truth, in order of first appearance; None if those are not known."""
    names: dict[str, None] = {}
    for entry in entries(body):
        if entry.source.annotated:
            names.update(dict.fromkeys(entry.classes or ()))
    return list(names) or None


def evaluation_source(body: Body) -> DataSource:
    """Where validation images come from when no `source` says: the first source with truth and a split `val`.

    Raises:
        DetError: DET0208 if there is none.
    """
    for entry in entries(body):
        if entry.source.annotated and "val" in getattr(entry.source, "splits", list)():
            return entry.source
    raise error(
        "DET0208",
        f"none of the sources of {body.instance.name} has a split `val`",
        body.fields["sources"].span,
        "for training alone",
        help="say what to evaluate on: source = CocoJson(root, val = …)",
    )


def resolve_sources(
    body: Body, classes: tuple[str, ...], report: Report
) -> tuple[tuple[NamedSource, ...], Sampling | None]:
    """The sources with their class names held against the data set's, and how a batch draws from them."""
    if "sources" not in body.fields:
        if "sample" in body.fields:
            span = body.fields["sample"].span
            report.add(
                *error(
                    "DET0609", "`sample` says how to mix sources, and there are none", span, "nothing to mix"
                ).diagnostics
            )
        return (), None
    try:
        found = entries(body)
    except DetError as problem:
        report.add(*problem.diagnostics)
        return (), None
    except Poisoned:
        return (), None
    made = []
    for entry in found:
        own = entry.classes or ()
        for name in own:
            if name not in classes:
                label = "not in `classes`" + did_you_mean(name, classes)
                report.add(
                    *error(
                        "DET0605",
                        f"the source `{entry.name}` has the class {show(name)}, which is none of {_few(classes)}",
                        entry.value.origin,
                        label,
                        help=f"add it to `classes`, or map it: Relabel(…, [[{show(name)}, {show(classes[0])}]])"
                        " (none as the second name drops its objects)",
                    ).diagnostics
                )
        made.append(NamedSource(entry.name, entry.source, own, entry.value.origin))
    try:
        return tuple(made), _sampling(body, [e.name for e in found])
    except DetError as problem:
        report.add(*problem.diagnostics)
    except Poisoned:
        pass
    return tuple(made), Sampling((1,) * len(made))


def _few(classes: tuple[str, ...]) -> str:
    return ", ".join(map(show, classes[:6])) + (", …" if len(classes) > 6 else "")


def _sampling(body: Body, names: list[str]) -> Sampling:
    value = body.value("sample")
    if value is None:
        return Sampling((1,) * len(names))
    if not isinstance(value.data, dict):
        raise error(
            "DET0609",
            f"`sample` wants a block, not {a_kind(value)}",
            value.origin,
            "sample { ratio = […] }",
        )
    for key, item in value.data.items():
        if key not in ("ratio", "epoch"):
            label = "unknown field" + did_you_mean(key, ("ratio", "epoch"))
            raise error("DET0609", f"`sample` has no field `{key}`", item.origin, label)
    ratio = (1,) * len(names)
    given: Any = value.data.get("ratio")
    if given is not None:
        if not isinstance(given.data, list) or len(given.data) != len(names):
            message = f"`ratio` wants a number for each source ({', '.join(names)})"
            raise error("DET0609", message, given.origin, show(given))
        ratio = tuple(whole(v, "a share of `ratio`") for v in given.data)
        if min(ratio) < 1:
            raise error("DET0609", "each source needs a share of at least 1", given.origin, show(given))
    epoch: Any = value.data.get("epoch")
    if epoch is not None and epoch.data not in names:
        label = f"the sources are {', '.join(names)}" + did_you_mean(str(epoch.data), names)
        raise error("DET0609", f"there is no source {show(epoch)}", epoch.origin, label)
    place = given.origin if given is not None else value.origin
    return Sampling(ratio, epoch.data if epoch is not None else None, place)
