"""Where the numbers of a training go: JSON lines, TensorBoard events, a picture of the curves, a summary."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from detc.runtime.metrics.headline import HEADLINE
from detc.runtime.train.checkpoint import cannot_write

if TYPE_CHECKING:
    from detc.runtime.train.fit import TrainResult


class Sink(Protocol):
    """Takes one row of numbers: kind "train", "val" or "epoch", after `iteration` iterations."""

    def row(self, kind: str, iteration: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """`metrics.jsonl`: one JSON object a line. Rows past `keep_until` (of a training that is resumed) go."""

    def __init__(self, path: Path, keep_until: int | None = None) -> None:
        self.path = path
        kept = [] if keep_until is None else [r for r in read_rows(path) if r["iteration"] <= keep_until]
        try:
            path.write_text("".join(json.dumps(r) + "\n" for r in kept), encoding="utf-8")
            self._file: IO[str] = path.open("a", encoding="utf-8")
        except OSError as exc:
            raise cannot_write(path, exc.strerror or str(exc)) from exc

    def row(self, kind: str, iteration: int, values: Mapping[str, float]) -> None:
        """Append a row and make it readable at once."""
        data = {"kind": kind, "iteration": iteration, "time": round(time.time(), 3), **_plain(values)}
        try:
            self._file.write(json.dumps(data) + "\n")
            self._file.flush()
        except OSError as exc:
            raise cannot_write(self.path, exc.strerror or str(exc)) from exc

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoard:
    """Event files in `folder`, for `tensorboard --logdir`. Events past `keep_until` are not shown any more."""

    def __init__(self, folder: Path, keep_until: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purge = keep_until + 1 if keep_until else None
        self._writer = SummaryWriter(str(folder), purge_step=purge, flush_secs=30)

    def row(self, kind: str, iteration: int, values: Mapping[str, float]) -> None:
        """Write one scalar a value, as `kind/name`."""
        for name, value in _plain(values).items():
            if value is not None:
                self._writer.add_scalar(f"{kind}/{name}", value, iteration)

    def image(self, name: str, iteration: int, picture: Any) -> None:
        """Write a picture (uint8 array [H, W, 3])."""
        self._writer.add_image(name, picture, iteration, dataformats="HWC")

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


def _plain(values: Mapping[str, float]) -> dict[str, float | None]:
    # JSON has no NaN; six digits are more than a reader of curves needs.
    return {k: float(f"{v:.6g}") if v == v else None for k, v in values.items()}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`; a last line that a crash cut off is left out."""
    rows = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    return rows


def write_summary(result: TrainResult) -> None:
    """Write `summary.json` into the output folder: the facts of a `TrainResult`."""
    facts = {k: str(v) if isinstance(v, Path) else v for k, v in vars(result).items()}
    (result.out / "summary.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def draw_curves(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Draw losses, learning rate and validation AP over iterations into a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = list(rows)
    train = [r for r in rows if r["kind"] == "train"]
    val = [r for r in rows if r["kind"] == "val"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    hidden = {"kind", "iteration", "time", "lr", "epoch", "images_per_second", "data_share", "memory_gib"}
    for name in sorted({k for r in train for k in r} - hidden):
        points = [(r["iteration"], r[name]) for r in train if r.get(name) is not None]
        left.plot(*zip(*points, strict=True), label=name, linewidth=2 if name == "loss" else 1)
    left.set(title="training loss", xlabel="iteration", ylim=(0, None))
    rate = left.twinx()
    rate.plot([r["iteration"] for r in train], [r["lr"] for r in train], color="0.7", linestyle=":")
    rate.set_ylabel("learning rate (dotted)")
    for name, label in HEADLINE.items():
        points = [(r["iteration"], r[name]) for r in val if r.get(name) is not None]
        if points:
            right.plot(*zip(*points, strict=True), marker=".", label=label)
    right.set(title="validation", xlabel="iteration", ylim=(0, 1))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
