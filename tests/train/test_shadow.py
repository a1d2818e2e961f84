"""Shadow nodes through a training: the rule, what is saved, exact continuation, views in the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from detc.compiler.check import check
from detc.compiler.program import build
from detc.dsl.diagnostics import DetError
from detc.runtime.train.checkpoint import load_weights, read_checkpoint
from detc.runtime.train.engine import train
from detc.runtime.train.shadow import Shadows
from tests.compiler.specs import TINY
from tests.data.making import write_coco

SEMI = """
model Semi(classes: labels = ["one", "two"]) : Detector {{
  input image: image
  node student = Tiny(classes)
  shadow node teacher = Average(student, decay = 0.9{rule})
  train {{
    input truth: instances
    input weak: view
    input strong: view
    loss sup = (image, truth) -> student
    found = weak.image -> teacher
    labels = (found -> PseudoLabels(0.0), weak, strong) -> ToView()
    loss unsup(weight = 0.5 * (labels -> AnyObject())) = (strong.image, labels) -> student
  }}
  infer {{ output detections = image -> {who} }}
}}

data Half extends Coco(root = "{root}", classes = ["one", "two"], size = 64x64) {{
  set train.images = ""
  set train.ann = "ann.json"
  set val.images = ""
  set val.ann = "ann.json"
  set workers = 0
  let all = CocoJson("{root}", train = train, val = val)
  sources {{
    labelled: Part(all, count = 2)
    unlabelled: Unlabelled(Part(all, count = 2, rest = true))
  }}
  sample {{ ratio = [1, 2] }}
  pipeline unlabelled {{
    load: steps.Load()
    fan views {{
      weak {{ flip: steps.HFlip(0.5) }}
      strong {{ flip: steps.HFlip(0.5)  hide: steps.Erase() }}
    }}
    pad: steps.Pad(align = 32)
    light: steps.ColorJitter(brightness = 0.2, on = "batch")
  }}
}}

train Short {{
  epochs = 3ep
  batch = 3img
  optim = AdamW(lr = 1e-3)
  hooks {{ ema: EMA(momentum = 0.5) }}
  validate = {{ every = 3ep }}
  log_every = 1
}}

run semi {{ data = Half()  model = Semi(classes = data.classes)  train = Short() }}
"""


def spec(root: Path, rule: str = "", who: str = "student") -> Any:
    head = TINY.split("{more}")[0].format()
    imports = (
        "import std.data { Coco, CocoJson, Part, Unlabelled, steps }\n"
        "import std.semi { AnyObject, PseudoLabels, ToView }\n"
    )
    text = head.replace("import std.ops", imports + "import std.ops", 1)
    result = check(text + SEMI.format(root=root, rule=rule, who=who), name="semi.det")
    assert not result.report.errors, result.report.errors
    return result.run()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("semi")
    write_coco(folder, 8)
    return folder


def go(run: Any, out: Path, **options: Any) -> Any:
    return train(run, out=out, device="cpu", plain=True, draw=0, **options)


def test_a_shadow_moves_as_its_rule_says(root: Path) -> None:
    program = build(spec(root), seed=3)
    state = program.model.state_dict()
    pairs = [(k, "student" + k.removeprefix("teacher")) for k in state if k.startswith("teacher.")]
    assert pairs and all(torch.equal(state[a], state[b]) for a, b in pairs)
    assert not any(p.requires_grad for n, p in program.model.named_parameters() if n.startswith("teacher."))
    groups = program.parameter_groups([])
    assert not any(n.startswith("teacher.") for g in groups for n in g["names"])
    shadows = Shadows(program.model, program.spec.shadows)
    expected = {a: state[a].clone().double() for a, _ in pairs if state[a].is_floating_point()}
    rng = torch.Generator().manual_seed(0)
    for _ in range(3):
        with torch.no_grad():
            for a, b in pairs:
                if state[b].is_floating_point():
                    state[b].add_(torch.randn(state[b].shape, generator=rng))
                    expected[a] = 0.9 * expected[a] + 0.1 * state[b].double()
        shadows.update()
    for a, want in expected.items():
        torch.testing.assert_close(state[a].double(), want, rtol=1e-5, atol=1e-5)
    assert not program.model.get_submodule("teacher.backbone.norm").training


def test_the_ramp_and_copied_buffers(root: Path) -> None:
    program = build(spec(root, ', warmup = "ramp", buffers = "copy"'), seed=3)
    shadows = Shadows(program.model, program.spec.shadows)
    student = program.model.get_submodule("student.backbone.norm")
    teacher = program.model.get_submodule("teacher.backbone.norm")
    with torch.no_grad():
        student.weight.fill_(2.0)
        student.running_mean.fill_(5.0)
    shadows.update()  # decay (1 + 0) / (10 + 0)
    torch.testing.assert_close(teacher.weight, torch.full_like(teacher.weight, 0.1 * 1 + 0.9 * 2))
    assert (teacher.running_mean == 5.0).all()


def test_training_goes_on_exactly(root: Path, tmp_path: Path) -> None:
    whole = go(spec(root), tmp_path / "whole")
    assert whole.iterations == 9  # six images without truth in twos, three epochs
    go(spec(root), tmp_path / "parts", max_iterations=4)
    parts = go(spec(root), tmp_path / "parts", resume=True)
    assert parts.iterations == 9
    one, two = read_checkpoint(whole.last), read_checkpoint(parts.last)
    assert any(k.startswith("teacher.") for k in one.model)
    for name, tensor in one.model.items():
        assert torch.equal(tensor, two.model[name]), name
    live = one.train["model"]
    own = [k for k in live if k.startswith("teacher.") and k.endswith("weight")]
    assert any(not torch.equal(live[k], live["student" + k.removeprefix("teacher")]) for k in own)
    # the EMA hook leaves the shadow alone: it is an average itself
    assert all(torch.equal(one.model[k], live[k]) for k in own)


def test_a_shadow_that_is_not_saved(root: Path, tmp_path: Path) -> None:
    run = spec(root, ", saved = false")
    go(run, tmp_path / "out", max_iterations=4)
    saved = read_checkpoint(tmp_path / "out/last.pt")
    assert not any(k.startswith("teacher.") for k in saved.model)
    assert any(k.startswith("teacher.") for k in saved.train["shadows"]["tensors"])
    program = build(run)
    load_weights(program, tmp_path / "out/last.pt")
    result = go(run, tmp_path / "out", resume=True)
    whole = go(run, tmp_path / "whole")
    one, two = read_checkpoint(result.last), read_checkpoint(whole.last)
    for name, tensor in two.train["shadows"]["tensors"].items():
        assert torch.equal(tensor, one.train["shadows"]["tensors"][name])


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_only_what_inference_uses_is_deployed(root: Path, who: str) -> None:
    run = spec(root, who=who)
    other = {"student": "teacher", "teacher": "student"}[who]
    deployed = build(run, seed=0).deploy(run.target)
    names = [n for n, _ in deployed.named_parameters()]
    assert any(who in n for n in names) and not any(other in n for n in names)
    again = check(run.text)
    assert not again.report.errors and again.run().text == run.text


def test_a_frozen_node_takes_all_of_its_weights(root: Path, tmp_path: Path) -> None:
    go(spec(root), tmp_path / "out", max_iterations=2)
    file = tmp_path / "out/last.pt"
    head = TINY.split("{more}")[0].format()
    head = head.replace("import std.losses { ", "import std.losses { ChannelKD, ", 1)
    body = """
model Student(classes: labels = ["one", "two"], width: int = 8) : Detector {
  input image: image
  node own = Tiny(classes, width = width)
  train {
    input truth: instances
    frozen node student = Tiny(CLASSES, width = width) from "FILE"
    loss plain = (image, truth) -> own
    hint = image -> student.backbone -> student.head
    mine = image -> own.backbone -> own.head
    loss kd = (mine.logits, hint.logits) -> ChannelKD()
  }
  infer { output detections = image -> own }
}
run { model = Student(ARGS) }
"""
    from detc.runtime.weights.apply import initialise, sources_of

    def started(classes: str = "classes", args: str = "") -> Any:
        text = body.replace("CLASSES", classes).replace("ARGS", args).replace("FILE", str(file))
        result = check(head + text, name="kd.det")
        assert not result.report.errors, result.report.errors
        program = build(result.run(), seed=0)
        initialise(program, sources_of(result.run()), init="random")
        return program

    program = started()
    saved = read_checkpoint(file)
    for name, tensor in program.model.get_submodule("student.backbone").state_dict().items():
        if name in ("conv.weight", "norm.weight"):
            assert torch.equal(tensor, saved.model[f"student.backbone.{name}"])
    for arguments, code in ((("classes", "width = 16"), "DET0902"), (('["two", "one"]', ""), "DET0605")):
        with pytest.raises(DetError) as caught:
            started(*arguments)
        assert caught.value.diagnostics[0].code == code
