"""ExportedProgram -> ONNX: torch's exporter, native ops as nodes with function bodies, onnxsim, metadata."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import torch
from torch.export import ExportedProgram

from detc.compiler.backends.half import half_precision
from detc.compiler.spec import TargetSpec
from detc.dsl.diagnostics import error
from detc.nativeops import onnx_bodies

PLACE = "detc.place"
TRACE = "pkg.torch.onnx.stack_trace"
FIRST_OPSET = 18


def to_onnx(
    program: ExportedProgram,
    target: TargetSpec,
    outputs: Sequence[str],
    metadata: Mapping[str, str],
    inputs: Sequence[str] = ("image",),
) -> onnx.ModelProto:
    """The ONNX model of an exported deploy graph: checked, simplified, every node with its `.det` line.

    Raises:
        DetError: DET0802 for an opset or an op that cannot be had.
    """
    if target.opset < FIRST_OPSET:
        raise error(
            "DET0802",
            f"opset {target.opset} is not available: the exporter starts at {FIRST_OPSET}",
            help=f"write opset = {FIRST_OPSET}",
        )
    try:
        with _quiet():
            made = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=target.opset,
                input_names=list(inputs),
                output_names=list(outputs),
                custom_translation_table=onnx_bodies.translations(),
                optimize=True,
                verbose=False,
            )
    except Exception as problem:
        cause = _cause(problem)
        raise error("DET0802", f"this graph has no ONNX form: {cause}") from problem
    assert made is not None
    model: onnx.ModelProto = made.model_proto
    _name_places(model)
    onnx_bodies.attach(model, inline=target.nms == "NonMaxSuppression")
    onnx.checker.check_model(model)
    model = simplified(model)
    if target.precision == "fp16":
        model = half_precision(model)
    _fill_places(model)
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    model.producer_name = "detc"
    onnx.checker.check_model(model)
    return model


def simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """onnxsim's result, with places and functions kept; the model itself where onnxsim gives up."""
    import onnxsim

    places = {n.name: list(n.metadata_props) for n in model.graph.node}
    try:
        with _quiet():
            smaller, same = onnxsim.simplify(model, check_n=0)
    except Exception:  # onnxsim raises bare exceptions; it is an optimisation, never a need
        return model
    if not same or len(smaller.functions) != len(model.functions):
        return model
    for node in smaller.graph.node:
        if not node.metadata_props and node.name in places:
            node.metadata_props.extend(places[node.name])
    return smaller


def _name_places(model: onnx.ModelProto) -> None:
    """Give every node the line of the spec that it comes from, in `detc.place`.

    What the exporter adds takes the place of what stands before it; the preprocessing, which no line states, that
    of the node which takes the image.
    """
    places = [_place(n) for n in model.graph.node]
    previous = next((p for p in places if p), "")
    for node, place in zip(model.graph.node, places, strict=True):
        previous = place or previous
        kept = [p for p in node.metadata_props if p.key == PLACE]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
        if previous:
            node.metadata_props.add(key=PLACE, value=previous)


def _fill_places(model: onnx.ModelProto) -> None:
    """Nodes that the simplifier made take the place of what stands before them."""
    previous = next((p.value for n in model.graph.node for p in n.metadata_props if p.key == PLACE), "")
    for node in model.graph.node:
        own = next((p.value for p in node.metadata_props if p.key == PLACE), "")
        previous = own or previous
        if previous and not own:
            node.metadata_props.add(key=PLACE, value=previous)


def _place(node: onnx.NodeProto) -> str:
    """`cascade.det:12, in rpn.conv <- …`, the user's line first; "" where the trace names no spec."""
    text = next((p.value for p in node.metadata_props if p.key == TRACE), "")
    lines = [x.strip() for x in text.splitlines() if ".det" in x and x.strip().startswith("File")]
    return " <- ".join(reversed(lines)).replace('File "', "").replace('", line ', ":")


def metadata_of(classes: tuple[str, ...], text: str, preprocessing: Any, version: str) -> dict[str, str]:
    """What an ONNX file carries: class names, the resolved spec, the preprocessing, who made it."""
    found = {"classes": json.dumps(list(classes)), "spec": text, "detc": version}
    if preprocessing is not None:
        made = {"box": preprocessing.box, "align": preprocessing.align, "fill": list(preprocessing.fill)}
        found["preprocessing"] = json.dumps(made)
    return found


def _cause(problem: BaseException) -> str:
    while problem.__cause__ is not None:
        problem = problem.__cause__
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0]


@contextlib.contextmanager
def _quiet() -> Any:
    """Exporters print and log; users should read our words."""
    level = logging.getLogger().level
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
            logging.getLogger().setLevel(level)
