"""Do the metrics that a data set binds find in the model's detections what they read?"""

from __future__ import annotations

from typing import Any

from detc.compiler.graph import Model
from detc.compiler.spec import DataSpec
from detc.compiler.types import Struct
from detc.compiler.values import Wire
from detc.dsl.diagnostics import DetError, Report, error
from detc.dsl.source import Origin


def check_metrics(model: Model, data: DataSpec, report: Report, place: Origin) -> None:
    """Report (DET0610) each metric that reads a field which the model's detections (or tracks) do not have."""
    for name, metric in dict(data.fields.get("evaluate") or {}).items():
        if not hasattr(metric, "on") or not hasattr(metric, "truth"):
            message = f"`evaluate` holds metrics, and {type(metric).name} is none"
            report.add(*error("DET0301", message, place, f"{data.name} evaluates `{name}`").diagnostics)
            continue
        output = getattr(metric, "output", "detections")
        found = model.infer.outputs.get(output)
        if not isinstance(found, Wire) or not isinstance(found.type, Struct):
            if output != "detections":
                report.add(*_no_output(name, metric, output, model, data, place).diagnostics)
            continue
        have = set(found.type.names())
        if "box_masks" in have:
            have.add("masks")  # they are pasted before they are evaluated
        lacking = [field for field in getattr(metric, "reads", ()) if field not in have]
        if lacking:
            report.add(
                *error(
                    "DET0610",
                    f"the metric `{name}` ({type(metric).name}) reads {', '.join(lacking)}, and the {output}"
                    f" of {model.name} have only {', '.join(found.type.names())}",
                    place,
                    f"{data.name} evaluates `{name}`",
                    help="choose a metric for what the model gives, or a model that gives it",
                ).diagnostics
            )


def _no_output(name: str, metric: Any, output: str, model: Model, data: DataSpec, place: Origin) -> DetError:
    return error(
        "DET0610",
        f"the metric `{name}` ({type(metric).name}) reads the output `{output}`, and {model.name} has only"
        f" {', '.join(model.infer.outputs) or 'none'}",
        place,
        f"{data.name} evaluates `{name}`",
        help="choose a metric for what the model gives, or a model that gives it",
    )
