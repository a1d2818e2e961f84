"""Checking data pipelines: what steps read and write, geometry after padding, what the model needs."""

from __future__ import annotations

from typing import Any

from detc.compiler.spec import DataSpec, NamedStep
from detc.dsl.diagnostics import Report, error
from detc.dsl.source import Origin

REQUIRED = ("image", "boxes", "labels")


def check_pipelines(
    data: DataSpec, report: Report, place: Origin, needs: frozenset[str] = frozenset()
) -> None:
    """Report steps that read what no earlier step wrote (DET0602), geometry behind padding (DET0603), and
    fields that the model's training needs and no step gives (DET0604)."""
    for name, steps in data.pipelines.items():
        have = _walk(name, steps, report)
        wanted = (
            set(REQUIRED) | (set(needs) & {"masks"}) if name not in ("val", "test", "predict") else {"image"}
        )
        lacking = sorted(wanted - have)
        if lacking and steps:
            last = steps[-1].origin or place
            report.add(
                *error(
                    "DET0604",
                    f"the model needs {_list(lacking)}, and the pipeline `{name}` gives {_list(sorted(have)) or 'nothing'}",
                    last,
                    f"no step of `{name}` writes {_list(lacking)}",
                    help="add the step that reads them, e.g. "
                    + "  ".join(f"{f}: steps.{_STEP[f]}()" for f in lacking if f in _STEP),
                ).diagnostics
            )
    for required in ("train", "val"):
        if required not in data.pipelines:
            message = f"{data.name} has no pipeline `{required}`"
            report.add(*error("DET0604", message, place, f"write pipeline {required} {{ … }}").diagnostics)
    if data.active not in data.pipelines:
        message = f"the active pipeline `{data.active}` does not exist"
        report.add(*error("DET0407", message, place, f"there are: {', '.join(data.pipelines)}").diagnostics)


_STEP = {"image": "Load", "boxes": "Boxes", "labels": "Boxes", "masks": "Masks"}


def _walk(name: str, steps: tuple[NamedStep, ...], report: Report) -> set[str]:
    have: set[str] = set()
    padded: NamedStep | None = None
    for item in steps:
        step, origin = item.step, item.origin
        if origin is None:
            continue
        lacking = [f for f in step.reads if f not in have]
        if lacking:
            report.add(
                *error(
                    "DET0602",
                    f"the step `{item.name}` ({step.name}) reads {_list(lacking)}, and no step before it gives that",
                    origin,
                    f"needs {_list(lacking)}",
                    help="; ".join(f"put steps.{_STEP[f]}() before it" for f in lacking[:1] if f in _STEP)
                    or None,
                ).diagnostics
            )
        if step.geometric and padded is not None:
            report.add(
                *error(
                    "DET0603",
                    f"`{item.name}` ({step.name}) moves pixels after `{padded.name}` has padded the image",
                    origin,
                    "geometry after padding",
                    secondary=[(padded.origin, "padded here")],
                    help=f"put `{item.name}` before `{padded.name}`: padding is part of what it would move",
                ).diagnostics
            )
        if step.pads and padded is None:
            padded = item
        have |= set(step.writes)
    return have


def _list(names: Any) -> str:
    return ", ".join(names)


def alignment(data: DataSpec | None) -> int | None:
    """The number that image sides are multiples of, as the training pipeline's last padding says."""
    if data is None:
        return None
    for item in reversed(data.pipelines.get(data.active, ())):
        if not item.step.pads:
            continue
        align = getattr(item.step, "align", None)
        size = getattr(item.step, "size", None)
        if align:
            return int(align)
        if size is not None:
            from math import gcd

            return gcd(size.width, size.height)
    return None
