"""ONNX files in half precision: the convolutions and what lies between them, nothing that holds coordinates.

fp16 has eleven bits: past 1024 it cannot tell pixels apart by less than one. So the trunk runs in fp16, and
normalisation, decoding, selection and suppression stay in fp32. Inputs and outputs keep their types.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HALF = ".half"
FIRST_ONLY = ("Resize", "Reshape", "Slice", "Split")  # their other inputs are no values of the map
DENSE = ("Conv", "ConvTranspose", "Gemm")
BETWEEN = (
    "Relu", "LeakyRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Clip", "Add", "Mul", "Concat", "Split",
    "MaxPool", "AveragePool", "GlobalAveragePool", "Resize", "BatchNormalization", "Slice", "Reshape",
)  # fmt: skip


def half_precision(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its trunk in fp16. Opaque ops (domain `detc`) and their functions stay as they are."""
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{i}"
    graph = model.graph
    trunk = _trunk(graph, _ranks(model))
    weights = {w.name: w for w in graph.initializer if w.data_type == TensorProto.FLOAT}
    inside = {o for n in graph.node if n.name in trunk for o in n.output}
    wanted = {i for n in graph.node if n.name not in trunk for i in n.input} | {o.name for o in graph.output}
    nodes: list[onnx.NodeProto] = []
    made: set[str] = set()
    for node in graph.node:
        if node.name not in trunk:
            nodes.append(node)
            continue
        for k, name in enumerate(node.input):
            if not name or (k and node.op_type in FIRST_ONLY):
                continue
            half = name + HALF
            if name not in inside and half not in made:
                made.add(half)
                if name in weights:
                    values = numpy_helper.to_array(weights[name]).astype(np.float16)
                    graph.initializer.append(numpy_helper.from_array(values, half))
                else:
                    nodes.append(_cast(name, half, TensorProto.FLOAT16, node))
            node.input[k] = half
        outputs = list(node.output)
        node.output[:] = [o + HALF for o in outputs]
        nodes.append(node)
        nodes += [_cast(o + HALF, o, TensorProto.FLOAT, node) for o in outputs if o in wanted]
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    used = {i for n in nodes for i in n.input}
    kept = [w for w in graph.initializer if w.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    onnx.checker.check_model(model)
    return model


def _cast(source: str, target: str, to: int, beside: onnx.NodeProto) -> onnx.NodeProto:
    node = helper.make_node("Cast", [source], [target], name=f"Cast_{target}", to=to)
    node.metadata_props.extend(beside.metadata_props)
    return node


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    return {
        v.name: len(v.type.tensor_type.shape.dim) for v in (*graph.value_info, *graph.input, *graph.output)
    }


def _trunk(graph: onnx.GraphProto, ranks: dict[str, int]) -> set[str]:
    """Names of the dense nodes, and of those between two of them that work on maps."""
    maker = {out: node for node in graph.node for out in node.output}
    behind: set[str] = set()  # after a dense node, through maps only
    for node in graph.node:
        sources = [maker[i] for i in node.input if i in maker]
        if node.op_type in DENSE or (
            node.op_type in BETWEEN
            and all(ranks.get(o) == 4 for o in node.output)
            and any(s.name in behind for s in sources)
        ):
            behind.add(node.name)
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    kept: set[str] = set()
    for node in reversed(graph.node):
        ahead = any(r.name in kept for out in node.output for r in readers[out])
        if node.op_type in DENSE or (node.name in behind and ahead):
            kept.add(node.name)
    return kept
