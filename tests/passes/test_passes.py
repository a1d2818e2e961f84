"""Passes: each against a small graph, by text and by numbers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from detc.compiler import passes
from detc.compiler.graph import DetGraph
from detc.compiler.passes.manager import Context, PassError, contract, verify
from detc.compiler.program import build
from detc.compiler.text import graph_text
from detc.compiler.values import Wire
from tests.compiler.specs import tiny

GOLDEN = Path(__file__).parent / "golden"


def golden(name: str, text: str) -> None:
    """Compare with a golden file; DETC_UPDATE=1 rewrites it."""
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("DETC_UPDATE"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def optimised() -> tuple[DetGraph, Context]:
    model = tiny().run().model
    graph, ctx = model.infer.copy(), Context(model)
    passes.run(graph, passes.OPTIMISE, ctx)
    return graph, ctx


def test_inference_graph_after_infer_and_after_optimise() -> None:
    golden("tiny_infer", graph_text(tiny().run().model.infer))
    golden("tiny_optimised", graph_text(optimised()[0]))


def test_training_graph() -> None:
    golden("tiny_train", graph_text(tiny().run().model.train))


def test_fold_gives_each_application_of_a_shared_conv_its_own_weights() -> None:
    graph, _ = optimised()
    folded = [n for n in graph.nodes() if n.weights and n.weights.startswith("folded.")]
    assert {n.op.norm for n in folded} == {"backbone.norm", "head.norm[0]", "head.norm[1]"}  # type: ignore[union-attr]
    assert len({n.weights for n in folded}) == 3
    assert not any(type(n.op).__name__ == "BatchNorm" for n in graph.nodes())


def test_folding_changes_no_number() -> None:
    program = build(tiny().run(), seed=0)
    with torch.no_grad():
        for module in program.model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
                module.weight.normal_()
                module.bias.normal_()
        program.model.eval()
        image = {"pixels": torch.rand(2, 3, 64, 64) * 255, "size": torch.full((2, 2), 64.0)}
        live, folded = program.infer_graph(image)["detections"], program.optimised()(image)["detections"]
    torch.testing.assert_close(folded["scores"], live["scores"], atol=1e-5, rtol=0)
    torch.testing.assert_close(folded["boxes"], live["boxes"], atol=1e-3, rtol=1e-5)


def test_prune_takes_what_nothing_reads() -> None:
    result = tiny("Mine()", "model Mine extends Tiny { infer { waste = feats[0] -> relu() } }")
    model = result.run().model
    graph = model.infer.copy()
    assert any(n.id == "relu" for n in graph.nodes())
    passes.run(graph, (passes.prune_dead,), Context(model))
    assert not any(n.id == "relu" for n in graph.nodes())


def test_merge_makes_equal_nodes_one() -> None:
    more = "model Mine extends Tiny { infer { a = feats[0] -> sigmoid()  b = feats[0] -> sigmoid()  output extra = a + b } }"
    model = tiny("Mine()", more).run().model
    graph, ctx = model.infer.copy(), Context(model)
    passes.run(graph, (passes.prune_dead, passes.merge_equal), ctx)
    assert sum(n.id.startswith("sigmoid") for n in graph.nodes()) == 1
    assert any("merged" in n for n in ctx.notes)


def test_a_pass_that_lies_or_breaks_the_graph_is_caught() -> None:
    model = tiny().run().model

    def liar(graph: DetGraph, ctx: Context) -> bool:
        graph.replace(graph.nodes()[1].id, path="moved")
        node = next(n for n in graph.nodes() if n.weights)
        graph.replace(node.id, weights="elsewhere")
        return False

    def breaker(graph: DetGraph, ctx: Context) -> bool:
        node = next(n for n in graph.nodes() if n.op is not None)
        graph.outputs = {"detections": Wire(node.id, ("nowhere",), node.type)}
        return True

    @contract(requires=["folded"])
    def early(graph: DetGraph, ctx: Context) -> bool:
        return False

    for bad, word in ((liar, "did not"), (breaker, "no such part"), (early, "requires folded")):
        with pytest.raises(PassError, match=word):
            passes.run(model.infer.copy(), (bad,), Context(model))


def test_verify_accepts_every_phase() -> None:
    model = tiny().run().model
    verify(model.infer)
    verify(model.train)
