"""SoftTeacher and localisation distillation: one graph for torch's compilers, over any detector, small."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch

from detc.compiler.check import check
from detc.compiler.program import Program, build

SMALL = """det 1
import std.backbones { CSPNeXt }
import std.models { FCOS, FasterRCNN, GFL, LD, RTMDet, SoftTeacher }

model SmallRCNN(classes: labels) extends FasterRCNN(
  classes, backbone = CSPNeXt(0.167, 0.125, stages = 2 .. 6)
) {
  set neck.width = 32
  set head.fc = 32
  set rpn.train_keep = 50
  set rpn.keep = 50
}
model SmallFCOS(classes: labels) extends FCOS(
  classes, backbone = CSPNeXt(0.167, 0.125, stages = 3 .. 6)
) {
  set neck.width = 32
  set head.width = 32
  set head.depth = 1
  set head.groups = 8
}
model SmallGFL(classes: labels) extends GFL(
  classes, backbone = CSPNeXt(0.167, 0.125, stages = 3 .. 6)
) {
  set neck.width = 32
  set head.width = 32
  set head.depth = 1
  set head.groups = 8
}
model OverRCNN(classes: labels) extends SoftTeacher(classes) { replace student = SmallRCNN(classes) }
model OverFCOS(classes: labels) extends SoftTeacher(classes) { replace student = SmallFCOS(classes) }
model OverRTMDet(classes: labels) extends SoftTeacher(classes, predict = "teacher", doubt = 5%) {
  replace student = RTMDet(classes, deepen = 0.167, widen = 0.125, blocks = 1, exp_on_reg = false)
}
model SmallLD(classes: labels) extends LD(
  classes,
  by = SmallGFL(classes),
  weights = "t.pt",
  backbone = CSPNeXt(0.167, 0.125, stages = 3 .. 6),
) {
  set neck.width = 32
  set head.width = 32
  set head.depth = 1
  set head.groups = 8
}
run rcnn { model = OverRCNN(classes = ["a", "b"]) }
run fcos { model = OverFCOS(classes = ["a", "b"]) }
run rtmdet { model = OverRTMDet(classes = ["a", "b"]) }
run ld { model = SmallLD(classes = ["a", "b"]) }
"""


@pytest.fixture(scope="module")
def runs() -> Any:
    result = check(SMALL, name="small.det")
    assert not result.report.errors, result.report.errors
    return result


def part(count: int, capacity: int = 16, objects: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    rng = torch.Generator().manual_seed(0)
    boxes = torch.zeros(count, capacity, 4)
    valid = torch.zeros(count, capacity, dtype=torch.bool)
    for i in range(objects):
        boxes[:, i] = torch.tensor([4.0 + i % 9, 6, 40 + i % 9, 50])
        valid[:, i] = True
    image = {
        "pixels": torch.rand(count, 3, 64, 96, generator=rng) * 255,
        "size": torch.tensor([[64.0, 96.0]] * count),
    }
    return image, {"boxes": boxes, "labels": boxes.new_zeros(boxes.shape[:2]).long(), "valid": valid}


def inputs(program: Program, objects: int, capacity: int = 16) -> dict[str, Any]:
    image, truth = part(1, capacity, objects)
    found: dict[str, Any] = {"image": image, "truth": truth}
    for shift, view in enumerate(program.spec.views):
        pixels, bare = part(4)
        matrix = torch.eye(3).repeat(4, 1, 1)
        matrix[:, 0, 2] = 3.0 * shift
        found[view] = {"image": pixels, "truth": bare, "matrix": matrix}
    return found


@pytest.mark.parametrize("name", ["rcnn", "fcos", "rtmdet", "ld"])
def test_batches_without_with_one_and_with_many_objects(runs: Any, name: str) -> None:
    program = build(runs.run(name), seed=0)
    program.model.train()
    for objects, capacity in ((0, 16), (1, 16), (64, 64)):
        losses = program.train_graph(**inputs(program, objects, capacity))
        assert all(torch.isfinite(v) for v in losses.values()), losses
        torch.stack(list(losses.values())).sum().backward()
    teacher = "teacher."
    for n, p in program.model.named_parameters():
        assert p.grad is None if n.startswith(teacher) else p.grad is None or p.grad.isfinite().all(), n
    own = [n for n, p in program.model.named_parameters() if p.grad is not None]
    assert len(own) > 20


def seeded(call: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The losses under fixed random numbers: sampling and jitter draw some."""
    torch.manual_seed(5)
    return dict(call(**given))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rcnn", "fcos", "rtmdet", "ld"])
def test_train_graphs_compile_once(runs: Any, name: str) -> None:
    """One graph without breaks serves batches with no, one and 16 objects, and says what the plain one says."""
    program = build(runs.run(name), seed=0)
    program.model.train()
    made = []

    def backend(graph: Any, _: Any) -> Any:
        made.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(program.train_graph, fullgraph=True, backend=backend)
    for objects in (0, 1, 16):
        given = inputs(program, objects)
        want, got = seeded(program.train_graph, given), seeded(compiled, given)
        assert set(got) == set(want)
        for key, value in want.items():
            torch.testing.assert_close(got[key], value)
    assert len(made) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rcnn", "fcos", "rtmdet", "ld"])
def test_train_graphs_export(runs: Any, name: str) -> None:
    program = build(runs.run(name), seed=0)
    program.model.train()
    exported = torch.export.export(program.train_graph, (), inputs(program, 1)).module()
    for objects in (0, 1, 16):
        given = inputs(program, objects)
        want, got = seeded(program.train_graph, given), seeded(exported, given)
        for key, value in want.items():
            torch.testing.assert_close(got[key], value)


@pytest.mark.slow
def test_a_train_graph_is_differentiated_ahead_of_time(runs: Any) -> None:
    """AOTAutograd traces the backward pass too: its gradients are those of the plain graph."""
    program = build(runs.run("rtmdet"), seed=0)
    program.model.train()
    torch._dynamo.reset()
    compiled = torch.compile(program.train_graph, fullgraph=True, backend="aot_eager")
    given = inputs(program, 16)
    found = []
    for call in (program.train_graph, compiled):
        program.model.zero_grad()
        torch.stack(list(seeded(call, given).values())).sum().backward()
        found.append({n: p.grad.clone() for n, p in program.model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys() and len(found[0]) > 20
    for name, grad in found[0].items():
        torch.testing.assert_close(found[1][name], grad, rtol=1e-3, atol=1e-4)


def test_one_image_runs_its_network_once(runs: Any) -> None:
    """Three images, three passes, though the student is applied to the strong view twice."""
    program = build(runs.run("fcos"), seed=0)
    calls = [str(n.target) for n in program.train_graph.graph.nodes if n.op == "call_module"]
    first = next(c for c in calls if c.startswith("student.backbone")).removeprefix("student")
    counts = {who: calls.count(who + first) for who in ("student", "teacher")}
    assert counts == {"student": 2, "teacher": 1}


def test_the_student_alone_is_what_it_would_be_without_a_teacher(runs: Any, tmp_path: Path) -> None:
    """The exported network of a taught student is that of the same detector by itself."""
    taught = build(runs.run("fcos"), seed=0)
    plain_text = SMALL + 'run plain { model = SmallFCOS(classes = ["a", "b"]) }\n'
    plain = build(check(plain_text, name="plain.det").run("plain"), seed=1)
    state = taught.model.get_submodule("student").state_dict()
    missing = plain.model.load_state_dict(state)
    assert not missing.missing_keys and not missing.unexpected_keys
    image = (torch.rand(1, 3, 70, 90, generator=torch.Generator().manual_seed(1)) * 255).to(torch.uint8)
    nets = [p.deploy(p.run.target).eval() for p in (taught, plain)]
    with torch.no_grad():
        one, two = (net(image) for net in nets)
    for key in ("boxes", "scores", "labels", "valid"):
        torch.testing.assert_close(one[key], two[key])
    sizes = []
    for net in nets:
        buffer = io.BytesIO()
        torch.save(net.state_dict(), buffer)
        sizes.append(sum(t.numel() for t in net.state_dict().values()))
    assert sizes[0] == sizes[1]


def test_a_teacher_that_agrees_costs_nothing() -> None:
    from detc.compiler.functional.distribution import distance_encode, distance_mean, distribution_kd

    rng = torch.Generator().manual_seed(0)
    sides = torch.randn(2, 7, 4 * 17, generator=rng)
    weight = torch.rand(2, 7, generator=rng)
    same = distribution_kd(sides, sides, weight, bins=16, tau=10.0, least=1.0)
    other = torch.randn(2, 7, 4 * 17, generator=rng)
    apart = distribution_kd(sides, other, weight, bins=16, tau=10.0, least=1.0)
    assert abs(float(same)) < 1e-6 < float(apart)
    ours, theirs = (x.view(2, 7, 4, 17) / 10 for x in (sides, other))
    plain = torch.nn.functional.kl_div(ours.log_softmax(-1), theirs.softmax(-1), reduction="none")
    want = (plain.sum(-1).mean(-1) * 100 * weight).sum() / weight.sum().clamp(min=1)
    torch.testing.assert_close(apart, want)
    # a distribution that is sure of one distance has it as its mean
    sure = torch.full((1, 4 * 17, 1, 1), -50.0)
    for side, distance in enumerate((0, 3, 16, 7)):
        sure[0, side * 17 + distance] = 50.0
    assert distance_mean([sure], bins=16)[0].flatten().tolist() == pytest.approx([0.0, 3.0, 16.0, 7.0])
    points = {"xy": torch.tensor([[16.0, 16.0]]), "stride": torch.tensor([8.0])}
    boxes = torch.tensor([[[8.0, -400.0, 40.0, 12.0]]])
    assert distance_encode(points, boxes, bins=16).flatten().tolist() == pytest.approx([1.0, 15.9, 3.0, 0.0])
