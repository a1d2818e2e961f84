"""Whether a data set's source declares the splits that its metrics and a training read."""

from __future__ import annotations

from typing import Any

from detc.compiler.experiments.fields import Body
from detc.compiler.spec import DataSource, DataSpec
from detc.dsl.diagnostics import Report, error
from detc.dsl.source import Origin


def declared(source: DataSource) -> list[str] | None:
    """The splits that a source declares; None if its class does not say.

    What a split names need not be there: that is seen when it is opened.
    """
    return None if type(source).splits is DataSource.splits else source.splits()


def check_evaluated(body: Body, source: DataSource, metrics: dict[str, Any], report: Report) -> None:
    """Report (DET0610) metrics on a split that the source lacks.

    The metrics of a library's data set are left to the training that reads them.
    """
    there, written = declared(source), body.value("evaluate") if metrics else None
    if there is None or written is None or not isinstance(written.data, dict):
        return
    for name, metric in metrics.items():
        split, item = getattr(metric, "on", None), written.data.get(name)
        if split is None or split in there or item is None:
            continue
        place = body.ctx.origins_of(metric).get("on", item.origin)
        if place.span.source.library:
            continue
        message = f"the metric `{name}` is computed on `{split}`, and the source declares {_listed(there)}"
        field = body.fields.get("source")
        secondary = [(field.get().origin, f"no `{split}`")] if field is not None else []
        help = f"say where it lies: source = {source.name}(…, {split} = …)"
        found = error(
            "DET0610", message, place, f"there is no split `{split}`", secondary=secondary, help=help
        )
        report.add(*found.diagnostics)


def check_trained(data: DataSpec, place: Origin, report: Report) -> None:
    """Report (DET0208) a source without the images that a training learns from, or is validated on.

    place: the run's `data`, for sources that say nothing of themselves.
    """
    wanted = [(data.source, "val", data.origin)]
    wanted += [(s.source, "train", s.origin) for s in data.sources] or [(data.source, "train", data.origin)]
    for source, split, written in wanted:
        there = declared(source)
        if there is None or split in there:
            continue
        message = f"a training reads the split `{split}`, and this source declares {_listed(there)}"
        help = f"say where it lies: {source.name}(…, {split} = …)"
        found = error("DET0208", message, written or place, f"`{split}` is missing here", help=help)
        report.add(*found.diagnostics)


def _listed(there: list[str]) -> str:
    return f"only {', '.join(there)}" if there else "none"
