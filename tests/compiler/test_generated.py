"""`x -> node using k`: weights that a wire gives."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from detc.compiler.check import CheckResult, check
from detc.compiler.program import build
from detc.compiler.resolve import resolved_text

SPEC = """det 1
import std.ops {{ BatchNorm, Conv, Conv2d, Flatten, GlobalAvgPool, Linear }}
import std.losses {{ BinaryCrossEntropy }}

component MaskHead(width: int = 4, kernel: int = 1) {{
  input x: map
  node a = Conv(width, kernel = kernel)
  {inner}
  node c = Conv(1)
  output y: map = x -> a -> relu() {middle}-> c
}}

model M {{
  input image: image
  node stem = Conv2d(6, kernel = 3, stride = 8)
  node mask = MaskHead(4, kernel = {kernel})
  let n = params(mask)
  node controller = Linear({width})
  feats = image -> stem
  k = feats -> GlobalAvgPool() -> Flatten() -> controller
  output m: map = feats -> mask {using}
}}
run {{ model = M() }}
"""


def spec(
    kernel: int = 1, width: str = "n", inner: str = "", middle: str = "", using: str = "using k"
) -> CheckResult:
    return check(SPEC.format(kernel=kernel, width=width, inner=inner, middle=middle, using=using))


@pytest.mark.parametrize("kernel", [1, 3])
def test_each_image_is_convolved_with_its_own_weights(kernel: int) -> None:
    run = spec(kernel).run()
    program = build(run, seed=0)
    wide = 4 * 6 * kernel * kernel
    assert run.model.weights["controller"].op.out == wide + 4 + 4 + 1  # type: ignore[attr-defined]
    assert not any(name.startswith("mask") for name in program.model.state_dict())
    image = {"pixels": torch.rand(3, 3, 64, 96) * 255, "size": torch.tensor([[64.0, 96.0]] * 3)}
    found = program.infer_graph.eval()(image)["m"]
    feats = program.model.stem(image["pixels"])
    k = program.model.controller(feats.mean((2, 3)))
    for i in range(3):  # all weights first, then all biases
        w, w2, b, b2 = k[i].split([wide, 4, 4, 1])
        x = F.conv2d(feats[i : i + 1], w.view(4, 6, kernel, kernel), b, padding=kernel // 2)
        wanted = F.conv2d(x.relu(), w2.view(1, 4, 1, 1), b2)
        torch.testing.assert_close(found[i : i + 1], wanted, rtol=1e-4, atol=1e-4)


def test_the_graph_is_exported_with_any_number_of_images() -> None:
    graph = build(spec(3).run(), seed=0).infer_graph.eval()
    image = {"pixels": torch.rand(2, 3, 64, 64), "size": torch.full((2, 2), 64.0)}
    batch = torch.export.Dim("batch", min=1, max=8)
    exported = torch.export.export(
        graph, (image,), dynamic_shapes=({"pixels": {0: batch}, "size": {0: batch}},)
    ).module()
    more = {"pixels": torch.rand(5, 3, 64, 64), "size": torch.full((5, 2), 64.0)}
    torch.testing.assert_close(exported(more)["m"], graph(more)["m"])


def test_gradients_reach_what_predicts_the_weights() -> None:
    program = build(spec(1).run(), seed=0)
    image = {"pixels": torch.rand(2, 3, 64, 64), "size": torch.full((2, 2), 64.0)}
    program.infer_graph(image)["m"].square().mean().backward()
    assert program.model.controller.weight.grad.abs().sum() > 0


def test_the_resolved_spec_says_the_same() -> None:
    run = spec(3).run()
    text = resolved_text(run)
    assert resolved_text(check(text).run()) == text


def test_a_wrong_width_names_the_shares() -> None:
    (found,) = spec(width="n + 1").report.errors
    assert found.code == "DET0302" and "33" in found.message and "34" in found.message
    assert "a 24 + 4" in found.labels[0].text
    assert found.help == "predict as many as it takes: params(mask)"


def test_layers_that_cannot_take_weights_are_refused() -> None:
    (found,) = spec(inner="node b = BatchNorm()", middle="-> b ").report.errors
    assert found.code == "DET0312" and "BatchNorm" in found.message


def test_params_of_a_node_with_weights_of_its_own() -> None:
    found = spec(using="").report.errors
    assert [d.code for d in found] == ["DET0312"] and "params(mask)" in found[0].message
