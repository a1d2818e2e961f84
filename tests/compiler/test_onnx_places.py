"""Every node of an ONNX file names the line of the spec that it comes from."""

from __future__ import annotations

from detc.compiler.program import build
from detc.compiler.spec import Size, TargetSpec
from detc.runtime.export import export_onnx
from tests.compiler.specs import tiny


def test_every_node_has_its_place() -> None:
    result = tiny("Tiny()")
    program = build(result.run(), seed=0)
    program.model.eval()
    model = export_onnx(program, TargetSpec(image=Size(128, 128), stated=frozenset({"image"})))
    places = [[p.value for p in n.metadata_props if p.key == "detc.place"] for n in model.graph.node]
    assert all(len(p) == 1 for p in places)
    assert result.module is not None and result.module.source is not None
    lines = result.module.source.text.splitlines()
    convs = [p[0] for n, p in zip(model.graph.node, places, strict=True) if n.op_type == "Conv"]
    stem = next(p for p in convs if "backbone.conv" in p)
    file, _, rest = stem.partition(":")
    assert file == result.module.source.name
    assert "conv" in lines[int(rest.split(",")[0]) - 1]
    assert {p.split(", in ")[1].split(" ")[0] for p in convs} >= {"backbone.conv", "backbone.down"}
