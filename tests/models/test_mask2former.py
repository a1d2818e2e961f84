"""Mask2Former: published sizes, three tasks of one network, losses over any number of objects, exports."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from detc.compiler.check import check
from detc.compiler.program import Program, build

SPEC = Path(__file__).parents[2] / "specs" / "mask2former.det"
PUBLISHED = {"instance": 44_023_377, "panoptic": 44_036_998, "semantic": 44_036_998}
TASKS = tuple(PUBLISHED)
SMALL = """det 1
import std.backbones {{ ResNet }}
import std.models {{ Mask2Former }}
model Small(classes: labels) extends Mask2Former(
  classes, task = "{task}", stuff = ["sky", "sea"], queries = 20, points = 64, keep = 30, score = 0.0,
  overlap = 0.0, backbone = ResNet(18),
) {{
  set pixels.width = 32
  set pixels.layers = 1
  set pixels.ffn = 32
  set decoder.layers = 2
  set decoder.ffn = 32
}}
target fixed {{ image = 192x128 }}
run {{ model = Small(classes = ["a", "b", "c", "sky", "sea"])  target = fixed() }}
"""


@pytest.mark.parametrize("run", TASKS)
def test_parameters_are_the_published_ones(run: str) -> None:
    result = check(SPEC)
    assert not result.report.errors, result.report.errors
    with torch.device("meta"):
        model = build(result.run(run)).model
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED[run]


@cache
def small(task: str) -> Program:
    """The model over ResNet-18, narrow, with five classes; the class scores are spread so that results vary."""
    result = check(SMALL.format(task=task))
    assert not result.report.errors, result.report.errors
    program = build(result.run(), seed=0)
    torch.manual_seed(3)
    torch.nn.init.normal_(program.model.get_submodule("decoder.cls").weight, std=1.0)
    torch.nn.init.normal_(program.model.get_submodule("decoder.embed.fc.2").weight, std=1.0)
    return program


def batch(counts: tuple[int, ...], capacity: int = 16) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    g = torch.Generator().manual_seed(0)
    images = len(counts)
    pixels = torch.rand(images, 3, 64, 96, generator=g) * 255
    size = torch.tensor([[64.0, 96.0]] * images)
    valid = torch.arange(capacity) < torch.tensor(counts)[:, None]
    masks = torch.zeros(images, capacity, 64, 96, dtype=torch.bool)
    corner = torch.randint(0, 40, (images, capacity, 2), generator=g)
    for b, count in enumerate(counts):
        for k in range(count):
            y, x = corner[b, k].tolist()
            masks[b, k, y : y + 20, x : x + 30] = True
    truth = {
        "boxes": torch.zeros(images, capacity, 4),
        "labels": torch.randint(0, 5, (images, capacity), generator=g),
        "valid": valid,
        "masks": masks,
    }
    return {"pixels": pixels, "size": size}, truth


@pytest.mark.parametrize("capacity", [16, 64])
def test_learns_from_none_one_and_a_full_bucket_of_objects(capacity: int) -> None:
    """More objects than queries, too: those that no query is left for teach nothing."""
    program = small("instance")
    program.model.train()
    program.model.zero_grad()
    losses = program.train_graph(*batch((0, 1, capacity), capacity))
    assert len(losses) == 9 and all(x.dim() == 0 and x.isfinite() and x > 0 for x in losses.values()), losses
    sum(losses.values()).backward()  # type: ignore[union-attr]
    for name, p in program.model.named_parameters():
        if p.requires_grad:
            assert p.grad is not None and p.grad.isfinite().all(), name
    nothing = program.train_graph(*batch((0, 0), capacity))
    assert all(x.isfinite() for x in nothing.values())
    assert all(x == 0 for name, x in nothing.items() if not name.endswith("cls"))


def test_losses_of_every_output_carry_the_papers_weights() -> None:
    losses = small("instance").spec.train.losses
    assert [x.name for x in losses[:4]] == [
        "criterion[0].cls",
        "criterion[0].mask",
        "criterion[0].dice",
        "criterion[1].cls",
    ]
    assert [x.weight for x in losses] == [2.0, 5.0, 5.0] * 3


def test_one_network_answers_three_tasks() -> None:
    image, _ = batch((0, 0))
    image["size"][1] = torch.tensor([50.0, 80.0])
    found = {}
    state = small("instance").model.state_dict()
    for task in TASKS:
        program = small(task)
        program.model.load_state_dict(state)
        program.model.eval()
        with torch.no_grad():
            found[task] = program.infer_graph(image)["detections"]
    one, two, three = (found[t] for t in TASKS)
    assert one["masks"].shape == (2, 30, 64, 96) and one["masks"].any()
    assert (one["labels"] < 3).all(), "stuff is no object"
    assert two["panoptic"].shape == three["semantic"].shape == (2, 64, 96)
    assert two["valid"].any() and set(three["semantic"].unique().tolist()) <= {-1, 0, 1, 2, 3, 4}
    for x in (one["masks"][1].any(0), two["panoptic"][1] > 0, three["semantic"][1] >= 0):
        assert not x[50:].any() and not x[:, 80:].any(), "nothing is found on padding"


def dynamic() -> tuple[dict[str, Any], dict[str, Any]]:
    b = torch.export.Dim("b", min=2, max=64)
    image = {"pixels": {0: b}, "size": {0: b}}
    return image, {name: {0: b} for name in ("boxes", "labels", "valid", "masks")}


@pytest.mark.slow
def test_the_training_graph_exports_and_compiles() -> None:
    program = small("panoptic")
    program.model.train()
    image, truth = batch((0, 3))
    other = batch((1, 16, 0))
    exported = torch.export.export(program.train_graph, (image, truth), dynamic_shapes=dynamic()).module()
    compiled = torch.compile(program.train_graph, fullgraph=True, backend="eager")
    for made in (exported, compiled):
        torch.manual_seed(0)
        expected = program.train_graph(*other)
        torch.manual_seed(0)
        torch.testing.assert_close(made(*other), expected)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_the_inference_graph_exports_and_compiles(task: str) -> None:
    program = small(task)
    program.model.eval()
    image, other = batch((0, 3))[0], batch((1, 16, 0))[0]
    with torch.no_grad():
        exported = torch.export.export(program.infer_graph, (image,), dynamic_shapes=dynamic()[:1]).module()
        compiled = torch.compile(program.infer_graph, fullgraph=True, backend="eager")
        expected = program.infer_graph(other)["detections"]
        for made in (exported, compiled):
            torch.testing.assert_close(made(other)["detections"], expected)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_onnx_gives_masks_and_maps(task: str) -> None:
    """Stock ONNX Runtime agrees with torch.

    With random weights masks have long ragged borders, where the last bit of a logit decides on a pixel, and with
    it on a score's fourth digit: so pixels are counted. Trained models pass `detc compile`'s own verification.
    """
    import onnxruntime

    from detc.runtime.export import export_onnx

    program = small(task)
    program.model.eval()
    target = program.run.target
    model = export_onnx(program, target)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    extra = {"instance": "masks", "panoptic": "panoptic", "semantic": "semantic"}[task]
    assert names[:4] == ["boxes", "scores", "labels", "valid"] and names[4:] == [extra]
    deploy = program.deploy(target).eval()
    torch.manual_seed(1)
    for height, width in ((128, 192), (50, 70)):
        image = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
        with torch.no_grad():
            expected = deploy(image)
        found = dict(zip(names, session.run(None, {"image": image.numpy()}), strict=True))
        assert found[extra].shape[-2:] == (height, width)
        ours, theirs = (x * (x > 0.1) for x in (torch.from_numpy(found["scores"]), expected["scores"]))
        torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)
        same = torch.from_numpy(found[extra]) == expected[extra]
        assert same.float().mean() > 0.99
