"""Resolving `target` declarations."""

from __future__ import annotations

from typing import Any

from detc.compiler.elaboration.edits import Active
from detc.compiler.experiments.declared import finish, instance_body
from detc.compiler.expressions.typecheck import check_size
from detc.compiler.spec import Size, TargetSpec
from detc.compiler.values import Construct, Poisoned, Span1, Value, show
from detc.dsl.diagnostics import DetError, Report, did_you_mean, error

TARGET_FIELDS = ("opset", "image", "batch", "precision", "layout", "nms", "pixels")


def resolve_target(construct: Construct, report: Report, edits: list[Active]) -> TargetSpec | None:
    """The target spec; None if it could not be built."""
    try:
        return _target(construct, report, edits)
    except DetError as problem:
        report.add(*problem.diagnostics)
    except Poisoned:
        pass
    return None


_CHOICES = {
    "precision": ("fp32", "fp16", "bf16"),
    "layout": ("nchw", "nhwc"),
    "nms": ("native", "NonMaxSuppression", "topk", "EfficientNMS_TRT"),
    "pixels": ("uint8", "float32"),
}

# What the schema knows and no back end makes yet, with what can be written instead.
_UNAVAILABLE = {
    ("precision", "bf16"): 'write precision = "fp16" or "fp32"',
    ("nms", "topk"): 'write nms = "native" or "NonMaxSuppression"',
    ("nms", "EfficientNMS_TRT"): 'write nms = "native" or "NonMaxSuppression"',
}
FIRST_OPSET = 18  # of torch's exporter
LAST_OPSET = 21  # ONNX Runtime has no RoiAlign of opset 22


def _target(construct: Construct, report: Report, edits: list[Active]) -> TargetSpec:
    body = instance_body(construct, report, edits, (), ())
    body.adopt(TARGET_FIELDS)
    found: dict[str, Any] = {"name": body.instance.name}
    places = {}
    for name, thunk in body.fields.items():
        if name not in TARGET_FIELDS:
            label = "unknown field" + did_you_mean(name, TARGET_FIELDS)
            help = f"it may have: {', '.join(TARGET_FIELDS)}"
            raise error("DET0801", f"a target has no field `{name}`", thunk.span, label, help=help)
        value = thunk.get()
        data, places[name] = value.data, value.origin
        if name in _CHOICES:
            if data not in _CHOICES[name]:
                options = ", ".join(map(show, _CHOICES[name]))
                label = "not one of them" + (
                    did_you_mean(data, _CHOICES[name]) if isinstance(data, str) else ""
                )
                raise error(
                    "DET0801", f"`{name}` must be one of {options}, not {show(value)}", value.origin, label
                )
            if (name, data) in _UNAVAILABLE:
                raise error(
                    "DET0802",
                    f"`{name} = {show(value)}` cannot be exported yet",
                    value.origin,
                    "not available",
                    help=_UNAVAILABLE[name, data],
                )
            found[name] = data
        elif name == "opset":
            if not isinstance(data, int) or isinstance(data, bool) or not 13 <= data <= LAST_OPSET:
                raise error(
                    "DET0801",
                    f"`opset` must be {FIRST_OPSET} to {LAST_OPSET}, not {show(value)}",
                    value.origin,
                    "no such opset here",
                )
            if data < FIRST_OPSET:
                raise error(
                    "DET0802",
                    f"opset {data} is not available: the exporter starts at {FIRST_OPSET}",
                    value.origin,
                    "too old",
                    help=f"write opset = {FIRST_OPSET}",
                )
            found[name] = data
        elif name == "image":
            if data == "dynamic" or data is None:
                found[name] = None
                continue
            if not isinstance(data, Size):
                raise error(
                    "DET0801",
                    f'`image` is a size or "dynamic", not {show(value)}',
                    value.origin,
                    "write 640x640",
                )
            check_size(value, "`image`")
            found[name] = data
        elif name == "batch":
            found[name] = _batch(value)
    finish(body, edits, report)
    return TargetSpec(**found, stated=frozenset(body.fields), places=places)


def _batch(value: Value) -> tuple[int, int]:
    """The least and the largest batch; the end of a range counts, as in `1 .. 16`.

    Raises:
        DetError: DET0804 if it is neither a number nor a range that begins at 1 or later.
    """
    data = value.data
    if isinstance(data, Span1) and data.step == 1 and data.start is not None and data.stop is not None:
        low, high = data.start, data.stop
    elif isinstance(data, int) and not isinstance(data, bool):
        low = high = data
    else:
        low = high = 0
    if not 1 <= low <= high:
        message = f"`batch` is a number or a range from 1, not {show(value)}"
        help = f"write {high} .. {low}" if 1 <= high < low else None
        raise error("DET0804", message, value.origin, "1 .. 16", help=help)
    return low, high
