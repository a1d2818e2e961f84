"""The report of a training: its curves, its best numbers, and its drawings."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detc.runtime.metrics.headline import HEADLINE
from detc.runtime.report import Chart, ClassRow, Report

if TYPE_CHECKING:
    from detc.compiler.experiments.runs import ResolvedRun

NAMES = {
    **HEADLINE,
    "ap_s": "AP, small objects",
    "ap_m": "AP, medium objects",
    "ap_l": "AP, large objects",
    "ar_1": "AR, 1 detection",
    "ar_10": "AR, 10 detections",
    "ar_100": "AR, 100 detections",
    "ar_s": "AR, small objects",
    "ar_m": "AR, medium objects",
    "ar_l": "AR, large objects",
    "ap_s_mask": "AP, small masks",
    "ap_m_mask": "AP, medium masks",
    "ap_l_mask": "AP, large masks",
    "ar_100_mask": "AR, 100 masks",
}
NOT_LOSSES = {"kind", "iteration", "time", "lr", "epoch", "images_per_second", "data_share", "memory_gib"}
Row = Mapping[str, Any]


def write_run_report(folder: Path) -> Path:
    """Write `report.html` into the folder of a training, from its spec, log and drawings.

    Raises:
        DetError: if the folder holds no training.
    """
    from detc.runtime.api import open_run
    from detc.runtime.gallery import read_gallery
    from detc.runtime.train.log import read_rows

    spec = folder / "spec.det"
    run = open_run(spec)
    rows = read_rows(folder / "metrics.jsonl")
    metrics = best_row([r for r in rows if r["kind"] == "val"])
    began = spec.stat().st_mtime  # it is written when a training starts
    pictures = read_gallery(folder / "drawings")
    return make_report(run, rows, metrics, pictures, began).write(folder / "report.html")


def best_row(rows: Sequence[Row]) -> dict[str, float]:
    """The numbers of the validation with the highest AP; empty without any."""
    scored = [r for r in rows if r.get("ap") is not None]
    best = max(scored, key=lambda r: r["ap"], default=None)
    return {k: v for k, v in best.items() if k not in ("kind", "time")} if best else {}


def make_report(
    run: ResolvedRun,
    rows: Sequence[Row],
    metrics: Mapping[str, float],
    pictures: Sequence[Any] = (),
    began: float | None = None,
) -> Report:
    """Put a report together from a run, its log and the metrics to show.

    Args:
        rows: of `metrics.jsonl`.
        pictures: captions and images.
        began: when the training started, in seconds since the epoch.
    """
    train = [r for r in rows if r["kind"] == "train"]
    val = [r for r in rows if r["kind"] == "val"]
    charts = []
    losses = {name: points(train, name) for name in sorted({k for r in train for k in r} - NOT_LOSSES)}
    if any(losses.values()):
        charts.append(Chart("Training loss", {k: p for k, p in losses.items() if p}, y_label="loss"))
    curves = {label: points(val, key) for key, label in HEADLINE.items()}
    if any(curves.values()):
        shown = {k: p for k, p in curves.items() if p}
        charts.append(Chart("Validation", shown, y_label="average precision", y_range=(0.0, 1.0)))
    title = f"{run.model.name}{f', run {run.name}' if run.name else ''}"
    return Report(
        title=title,
        facts=facts(run, rows, began),
        headline={label: f"{metrics[key]:.3f}" for key, label in HEADLINE.items() if key in metrics},
        metrics={label: metrics[key] for key, label in NAMES.items() if key in metrics},
        charts=charts,
        classes=class_rows(metrics),
        pictures=list(pictures),
        spec=run.text,
    )


def facts(run: ResolvedRun, rows: Sequence[Row], began: float | None) -> dict[str, str]:
    """Small print: data, classes, length of the training, date."""
    found = {"data": run.data.name} if run.data else {}
    found["classes"] = str(len(run.classes))
    if rows:
        found["epochs"] = f"{rows[-1].get('epoch', 0):.4g}"
        if began is not None:
            found["minutes"] = f"{(rows[-1]['time'] - began) / 60:.1f}"
    found["written"] = time.strftime("%Y-%m-%d %H:%M")
    return found


def class_rows(metrics: Mapping[str, float]) -> list[ClassRow]:
    """The entries `ap/<class>` (and `ap50/<class>`), in the order of the classes."""
    names = [key.removeprefix("ap/") for key in metrics if key.startswith("ap/")]
    return [ClassRow(n, value(metrics, f"ap/{n}"), value(metrics, f"ap50/{n}")) for n in names]


def value(metrics: Mapping[str, float | None], key: str) -> float:
    """A metric, NaN where it is missing."""
    found = metrics.get(key)
    return math.nan if found is None else found


def points(rows: Sequence[Row], key: str) -> list[tuple[float, float]]:
    """(epoch, value) where the value is there."""
    return [(r.get("epoch", r["iteration"]), r[key]) for r in rows if r.get(key) is not None]
