"""The report of a training: its curves, its best numbers, and pictures from the best checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detc.runtime.report import Chart, ClassRow, Report

if TYPE_CHECKING:
    from detc.compiler.check import ResolvedRun

HEADLINE = {"ap": "AP 50:95", "ap50": "AP 50", "ap75": "AP 75"}
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
}
NOT_LOSSES = {"kind", "iteration", "time", "lr", "epoch", "images_per_second", "data_share", "memory_gib"}
Row = Mapping[str, Any]


def write_run_report(folder: Path, *, pictures: int = 12, split: str = "val", score: float = 0.3) -> Path:
    """Write `report.html` into the folder of a training.

    Args:
        folder: the output of `detc run train`.
        pictures: how many images of the validation split to draw.
        split: the split that they come from.
        score: what is drawn scores at least this.

    Raises:
        DetError: if the folder holds no checkpoint.
    """
    from detc.runtime.gallery import gallery
    from detc.runtime.load import load
    from detc.runtime.train.log import read_rows

    detector = load(folder)
    run = detector.run
    assert run is not None
    drawn = []
    if run.data is not None and pictures:
        records = run.data.source.open(split, list(run.data.classes)).records
        drawn = list(gallery(detector, records, limit=pictures, score=score))
    rows = read_rows(folder / "metrics.jsonl")
    metrics = best_row([r for r in rows if r["kind"] == "val"])
    return make_report(run, rows, metrics, drawn).write(folder / "report.html")


def best_row(rows: Sequence[Row]) -> dict[str, float]:
    """The numbers of the validation with the highest AP; empty without any."""
    scored = [r for r in rows if r.get("ap") is not None]
    best = max(scored, key=lambda r: r["ap"], default=None)
    return {k: v for k, v in best.items() if k not in ("kind", "time")} if best else {}


def make_report(
    run: ResolvedRun, rows: Sequence[Row], metrics: Mapping[str, float], pictures: Sequence[Any]
) -> Report:
    """Put a report together from a run, its log and the metrics to show."""
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
        facts=facts(run, train),
        headline={label: f"{metrics[key]:.3f}" for key, label in HEADLINE.items() if key in metrics},
        metrics={label: metrics[key] for key, label in NAMES.items() if key in metrics},
        charts=charts,
        classes=class_rows(metrics),
        pictures=list(pictures),
        spec=run.text,
    )


def facts(run: ResolvedRun, train: Sequence[Row]) -> dict[str, str]:
    """Small print: data, classes, length of the training, date."""
    found = {"data": run.data.name} if run.data else {}
    found["classes"] = str(len(run.classes))
    if train:
        found["epochs"] = f"{train[-1]['epoch']:.4g}"
        found["minutes"] = f"{(train[-1]['time'] - train[0]['time']) / 60:.1f}"
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
