"""Lowered graphs: shared modules, frozen nodes, traces to the spec, export and compile without breaks."""

from __future__ import annotations

import pytest
import torch

from detc.compiler.program import build
from tests.compiler.specs import tiny

SIZE = 64


def batch(objects: int = 2) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    image = {
        "pixels": torch.rand(2, 3, SIZE, SIZE, generator=generator) * 255,
        "size": torch.tensor([[SIZE, SIZE], [SIZE - 8, SIZE]], dtype=torch.float32),
    }
    boxes = torch.tensor([[[4.0, 4.0, 30.0, 40.0], [20.0, 10.0, 60.0, 50.0]]]).repeat(2, 1, 1)
    valid = torch.zeros(2, 2, dtype=torch.bool)
    valid[0, :objects] = True
    return image, {"boxes": boxes, "labels": torch.tensor([[0, 1], [1, 0]]), "valid": valid}


def test_both_graphs_share_the_tree() -> None:
    program = build(tiny().run(), seed=0)
    names = set(program.model.state_dict())
    assert "head.norm.1.running_mean" in names and "backbone.conv.weight" in names
    assert program.train_graph.get_submodule("head.tower") is program.infer_graph.get_submodule("head.tower")
    assert program.train_graph.get_submodule("head.tower") is program.model.get_submodule("head.tower")


@pytest.mark.parametrize("objects", [0, 1, 2])
def test_a_training_step_is_finite_and_learns(objects: int) -> None:
    program = build(tiny().run(), seed=0)
    losses = program.train_graph(*batch(objects))
    assert set(losses) == {"cls", "box"}
    torch.stack(list(losses.values())).sum().backward()
    grads = [p.grad for p in program.model.parameters() if p.grad is not None]
    assert grads and all(torch.isfinite(g).all() for g in grads)


def test_frozen_nodes_stay_out_of_training() -> None:
    more = "model M extends Tiny { replace backbone = Frozen() }\ncomponent Frozen : Backbone { input image: image frozen node inner = Stem() output feats: pyramid = image -> inner }"
    program = build(tiny("M()", more).run(), seed=0)
    program.model.train()
    assert not program.model.get_submodule("backbone.inner.norm").training
    assert program.model.get_submodule("head.norm.0").training
    assert not any(p.requires_grad for p in program.model.get_submodule("backbone").parameters())
    named = [n for g in program.parameter_groups([]) for n in g["names"]]
    assert named and not any(n.startswith("backbone") for n in named)


def test_nodes_know_their_line() -> None:
    graph = build(tiny().run(), seed=0).infer_graph
    traces = {n.name: n.stack_trace for n in graph.graph.nodes if n.op == "call_module"}
    assert all(t and 'File "tiny.det", line ' in t for t in traces.values())


def test_export_and_compile_without_breaks() -> None:
    program = build(tiny().run(), seed=0)
    image, truth = batch()
    with torch.no_grad():
        torch.export.export(program.infer_graph.eval(), (image,))
    program.model.train()
    torch.export.export(program.train_graph, (image, truth))
    explained = torch._dynamo.explain(program.train_graph)(image, truth)
    assert explained.graph_break_count == 0
    torch._dynamo.reset()
    compiled = torch.compile(program.train_graph, fullgraph=True, backend="aot_eager")
    program.model.eval()
    for name, value in compiled(image, truth).items():
        torch.testing.assert_close(value, program.train_graph(image, truth)[name])


def test_parameter_groups_follow_selectors() -> None:
    from detc.compiler.spec import GroupRule
    from detc.dsl.diagnostics import DetError

    program = build(tiny().run(), seed=0)
    rules = [GroupRule("**.norm", {"weight_decay": 0.0}), GroupRule("backbone", {"lr_scale": 0.1})]
    groups = {
        tuple(sorted((k, v) for k, v in g.items() if k not in ("params", "names"))): g["names"]
        for g in program.parameter_groups(rules)
    }
    assert groups[("lr_scale", 0.1), ("weight_decay", 0.0)] == ["backbone.norm.weight", "backbone.norm.bias"]
    assert sum(len(n) for n in groups.values()) == len(list(program.model.parameters()))
    with pytest.raises(DetError) as caught:
        program.parameter_groups([GroupRule("**.nrom", {})])
    assert caught.value.diagnostics[0].code == "DET0702"
