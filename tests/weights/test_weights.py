"""Weights from elsewhere: reading without executing, mapping keys, fitting, and saying what happened."""

import json
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from detc.compiler.check import check
from detc.compiler.program import build
from detc.dsl.diagnostics import DetError
from detc.runtime.weights import source as source_module
from detc.runtime.weights.apply import initialise, model_convention, sources_of
from detc.runtime.weights.keys import map_keys, parse_table, tables
from detc.runtime.weights.load import load_exactly, load_fitting
from detc.runtime.weights.read import read_file, tensors_of
from detc.runtime.weights.source import CAFFE_BGR, IMAGENET_RGB, convention_of, locate

REAL = Path(__file__).parents[2] / "../shared/data/weights"


class Net(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.backbone = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4)))
        self.head = nn.Conv2d(4, classes, 1)


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """Empty caches, no network."""
    monkeypatch.setenv("DETC_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    return tmp_path


def code_of(caught) -> str:
    return caught.value.diagnostics[0].code


# --- reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "nest", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"epoch": 3, "model": s}]
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_state_dicts_are_found_where_programs_put_them(tmp_path, nest, prefix):
    state = {prefix + k: v for k, v in Net().state_dict().items()}
    torch.save(nest(state), tmp_path / "w.pt")
    found = tensors_of(read_file(tmp_path / "w.pt"), tmp_path / "w.pt")
    assert list(found) == list(Net().state_dict())


def test_safetensors(tmp_path):
    save_file(Net().state_dict(), tmp_path / "w.safetensors")
    assert set(read_file(tmp_path / "w.safetensors")) == set(Net().state_dict())


class Bomb:
    def __reduce__(self):
        return os.system, (f"touch {self.path}",)

    def __init__(self, path: Path) -> None:
        self.path = path


@pytest.mark.parametrize("zipped", [True, False])
def test_loading_never_runs_code(tmp_path, zipped):
    mark = tmp_path / "ran"
    torch.save(
        {"state_dict": Net().state_dict(), "x": Bomb(mark)},
        tmp_path / "w.pt",
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(DetError) as caught:
        read_file(tmp_path / "w.pt")
    assert code_of(caught) == "DET0911"
    assert not mark.exists()
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(DetError):
        read_file(tmp_path / "raw.pt")
    assert not mark.exists()


def test_objects_of_training_frameworks_become_inert(tmp_path):
    import sys
    import types

    ran = []

    class HistoryBuffer:
        def __setstate__(self, state):
            ran.append(state)

    package, module = types.ModuleType("mmengine"), types.ModuleType("mmengine.logging")
    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = "mmengine.logging", "HistoryBuffer"
    module.HistoryBuffer = HistoryBuffer
    sys.modules |= {"mmengine": package, "mmengine.logging": module}
    try:
        buffer = HistoryBuffer()
        buffer.history = [1.0, 2.0]
        torch.save({"state_dict": Net().state_dict(), "message_hub": {"loss": buffer}}, tmp_path / "mm.pth")
        data = read_file(tmp_path / "mm.pth")  # also where the package is not installed:
        del sys.modules["mmengine"], sys.modules["mmengine.logging"]
        data = read_file(tmp_path / "mm.pth")
    finally:
        sys.modules.pop("mmengine", None)
        sys.modules.pop("mmengine.logging", None)
    assert set(tensors_of(data, tmp_path)) == set(Net().state_dict())
    assert ran == []


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04broken"])
def test_broken_files_are_said(tmp_path, content):
    for name in ("w.pt", "w.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DetError) as caught:
            read_file(tmp_path / name)
        assert code_of(caught) == "DET0911"
        assert name in str(caught.value)


def test_a_file_without_tensors_is_said(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "w.pt")
    with pytest.raises(DetError, match="holds no named tensors"):
        tensors_of(read_file(tmp_path / "w.pt"), tmp_path / "w.pt")


# --- keys --------------------------------------------------------------------------------------


def test_every_shipped_table_is_sound():
    assert {"plain"} < {t.name for t in tables()}
    for table in tables():
        assert table.rules or table.drop or table.name == "plain"


def test_a_table_renames_drops_and_transforms():
    text = {
        "rules": [["^layer(\\d)\\.", "stage.\\1."]],
        "drop": ["^fc\\."],
        "transforms": {"^conv1.weight$": "flip_input"},
    }
    table = parse_table("t", json.dumps(text))
    assert table.rename("layer3.conv.weight") == "stage.3.conv.weight"
    assert table.rename("fc.weight") is None
    weight = torch.rand(2, 3, 1, 1)
    assert torch.equal(table.transform("conv1.weight", weight), weight[:, [2, 1, 0]])
    assert table.transform("conv2.weight", weight) is weight


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"rule": []}', "unknown fields"),
        ('[["(", "x"]]', "bad pattern"),
        ('{"transforms": {"a": "spin"}}', "spin"),
    ],
)
def test_a_wrong_table_is_said(text, words):
    with pytest.raises(ValueError, match=words):
        parse_table("t", text)


@pytest.mark.parametrize("prefix", ["", "backbone.", "model.", "student.net."])
def test_prefixes_are_found(prefix):
    target = Net().state_dict()
    mapped = map_keys({f"{prefix}{k}": v for k, v in target.items()}, target)
    assert mapped.fits == len(target)


def test_mobilenet_of_another_program_loads_through_its_table():
    file = REAL / "mobilenetv1_025_imagenet/model_best.pth.tar"
    if not file.exists():
        pytest.skip("../shared/data/weights is not there")
    text = "det 1\nimport std.backbones { MobileNetV1 }\n" + MOBILENET
    run = check(text).run()
    program = build(run)
    state = tensors_of(read_file(file), file)
    report = load_fitting(program.model, state, str(file), path="backbone")
    assert report.missing == []
    assert len(report.loaded) >= 27 * 5
    assert all(k.startswith("fc.") for k in report.skipped)


MOBILENET = """
import std.data { Coco }
import std.models { RetinaNet }
import std.recipes { SGD1x }
run {
  data = Coco(root = "nowhere")
  model = RetinaNet(classes = data.classes, backbone = MobileNetV1(0.25))
  train = SGD1x()
}
"""


# --- fitting -----------------------------------------------------------------------------------


def test_exact_loading_lists_every_difference_and_changes_nothing():
    net, other = Net(), Net(classes=5)
    state = other.state_dict()
    del state["backbone.conv.bias"]
    state["neck.weight"] = torch.zeros(1)
    before = net.head.weight.clone()
    with pytest.raises(DetError) as caught:
        load_exactly(net, state, "w.pt")
    assert code_of(caught) == "DET0902"
    notes = "\n".join(caught.value.diagnostics[0].notes)
    assert "backbone.conv.bias: not in w.pt" in notes
    assert "neck.weight: not in this model" in notes
    assert "head.weight: 5x4x1x1 in w.pt, 3x4x1x1 in this model" in notes
    assert torch.equal(net.head.weight, before)


def test_fine_tuning_skips_and_lists_what_depends_on_the_classes():
    net, other = Net(), Net(classes=80)
    report = load_fitting(net, other.state_dict(), "coco.pt")
    assert torch.equal(net.backbone.conv.weight, other.backbone.conv.weight)
    assert set(report.skipped) == {"head.weight", "head.bias"}
    said = "\n".join(report.lines())
    assert "another shape (80x4x1x1 there, 3x4x1x1 here): head.weight" in said


def test_a_node_takes_its_part_of_a_whole_models_file():
    net, other = Net(), Net()
    report = load_fitting(net, other.state_dict(), "w", path="backbone")
    assert torch.equal(net.backbone.conv.weight, other.backbone.conv.weight)
    assert not torch.equal(net.head.weight, other.head.weight)
    assert report.missing == []
    report = load_fitting(net, other.backbone.state_dict(), "w", path="backbone")
    assert report.missing == []


def test_weights_of_another_model_are_refused():
    with pytest.raises(DetError) as caught:
        load_fitting(Net(), nn.Linear(3, 3).state_dict(), "w.pt")
    assert code_of(caught) == "DET0902"
    assert "0 of 8 tensors fit" in caught.value.diagnostics[0].message


def test_renaming_by_the_user():
    state = {k.replace("backbone", "trunk.body"): v for k, v in Net().state_dict().items()}
    report = load_fitting(Net(), state, "w", rename={"trunk.body": "backbone"})
    assert report.missing == []


# --- sources -----------------------------------------------------------------------------------


def test_nothing_cached_and_no_network_names_both_ways_out(offline):
    for text in (
        "torchvision/resnet50",
        "timm/resnet50.a1_in1k",
        "hf/facebook/detr-resnet-50",
        "rtmdet_l_coco",
        "./w.pt",
    ):
        with pytest.raises(DetError) as caught:
            locate(text)
        found = caught.value.diagnostics[0]
        assert found.code == "DET0901"
        assert text in found.message
        assert "--weights-dir" in found.help
        assert "--init random" in found.help
        assert found.notes


def test_unknown_names_of_torchvision_have_a_hint(offline):
    with pytest.raises(DetError, match="did you mean `resnet50`"):
        locate("torchvision/resnet5o")
    with pytest.raises(DetError, match="no weights `v7`; there are v1, v2"):
        locate("torchvision/resnet50/v7")


def test_caches_of_the_ecosystem(offline):
    hub = offline / "torch/hub/checkpoints"
    hub.mkdir(parents=True)
    file = hub / "resnet50-0676ba61.pth"
    file.touch()
    assert locate("torchvision/resnet50") == file
    with pytest.raises(DetError) as caught:
        locate("torchvision/resnet50/v2")
    assert any("torchvision/resnet50/v1" in n for n in caught.value.diagnostics[0].notes)
    (hub / "rtmdet_l_8xb32-300e_coco_20220719_112030.pth").touch()
    assert locate("rtmdet_l_8xb32-300e_coco").parent == hub
    snapshot = offline / "hf/hub/models--timm--resnet50.a1_in1k/snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").touch()
    assert locate("timm/resnet50.a1_in1k") == snapshot / "model.safetensors"
    assert locate("timm/resnet50") == snapshot / "model.safetensors"


def test_weights_dir_comes_first(offline):
    folder = offline / "mine"
    (folder / "torchvision").mkdir(parents=True)
    for name in ("resnet50-0676ba61.pth", "rtmdet.safetensors", "torchvision/resnet18.pt", "deep.pt"):
        (folder / name).touch()
    assert locate("torchvision/resnet50", weights_dir=folder).name == "resnet50-0676ba61.pth"
    assert locate("torchvision/resnet18", weights_dir=folder).name == "resnet18.pt"
    assert locate("rtmdet", weights_dir=folder).name == "rtmdet.safetensors"
    assert locate("deep.pt", beside=folder).name == "deep.pt"


def test_a_failing_download_is_an_unavailable_source(offline, monkeypatch):
    monkeypatch.delenv("DETC_OFFLINE")
    asked = []

    def fail(url, *args, **kwargs):
        asked.append(url)
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(DetError, match="Name or service not known"):
        locate("torchvision/resnet50")
    assert len(asked) == 1
    assert not source_module.offline()


# --- a spec's sources --------------------------------------------------------------------------


def test_initialise_follows_the_spec_and_init(tmp_path, offline):
    other = Net()
    torch.save(other.backbone.state_dict(), tmp_path / "trunk.pt")
    torch.save(Net(classes=9).state_dict(), tmp_path / "whole.pt")
    program = SimpleNamespace(model=Net())
    sources = {"backbone": ("trunk.pt", None)}
    report = initialise(program, sources, weights_dir=tmp_path)
    assert [r.path for r in report] == ["backbone"]
    assert torch.equal(program.model.backbone.conv.weight, other.backbone.conv.weight)
    assert initialise(program, {"backbone": ("torchvision/resnet50", None)}, init="random") == []
    report = initialise(program, sources, init=str(tmp_path / "whole.pt"))
    assert set(report[0].skipped) == {"head.weight", "head.bias"}


def test_an_outer_file_has_the_last_word(tmp_path, offline):
    """A whole detector's file holds a trained backbone: the file that its backbone began with does not return."""
    trained, began = Net(classes=4), Net()
    torch.save(trained.state_dict(), tmp_path / "whole.pt")
    torch.save(began.backbone.state_dict(), tmp_path / "trunk.pt")
    program = SimpleNamespace(model=Net())
    reports = initialise(
        program, {"": ("whole.pt", None), "backbone": ("trunk.pt", None)}, weights_dir=tmp_path
    )
    assert torch.equal(program.model.backbone.conv.weight, trained.backbone.conv.weight)
    # all of the inner node is there, so that its own file, perhaps one to fetch, is not even asked for
    assert [r.path for r in reports] == [""]
    initialise(
        program, {"": ("whole.pt", None), "backbone": ("torchvision/resnet50", None)}, weights_dir=tmp_path
    )
    # a tensor that the outer file lacks comes from the inner one
    torch.save({k: v for k, v in trained.state_dict().items() if "norm" not in k}, tmp_path / "most.pt")
    began.backbone.norm.weight.data.fill_(3.0)
    torch.save(began.backbone.state_dict(), tmp_path / "trunk.pt")
    program = SimpleNamespace(model=Net(classes=4))
    initialise(program, {"backbone": ("trunk.pt", None), "": ("most.pt", None)}, weights_dir=tmp_path)
    assert torch.equal(program.model.backbone.conv.weight, trained.backbone.conv.weight)
    assert torch.equal(program.model.backbone.norm.weight, began.backbone.norm.weight)


def test_a_frozen_teacher_keeps_its_own_backbone(tmp_path):
    """`frozen node teacher = by from "teacher.pt"`, where the detector `by` begins its backbone from a file."""
    text = """det 1
import std.backbones { CSPNeXt }
import std.losses { ChannelKD }
import std.models { RTMDet }
model Small(classes: labels) extends RTMDet(
  classes, deepen = 0.167, widen = 0.125, blocks = 1, exp_on_reg = false
) {
  set backbone.weights = "trunk.pt"
}
model M(classes: labels) extends Small(classes) {
  train {
    frozen node teacher = Small(classes) from "teacher.pt"
    theirs = image -> teacher.backbone -> teacher.neck
    loss hint = (feats, theirs) -> ChannelKD()
  }
}
run { model = M(classes = ["a"]) }
"""
    result = check(text, name="frozen.det")
    assert not result.report.errors, result.report.errors
    taught = build(result.run(), seed=0)
    small = build(check(text.replace("model = M(", "model = Small("), name="small.det").run(), seed=1)
    torch.save(small.model.state_dict(), tmp_path / "teacher.pt")
    other = build(check(text.replace("model = M(", "model = Small("), name="small.det").run(), seed=2)
    torch.save(other.model.get_submodule("backbone").state_dict(), tmp_path / "trunk.pt")
    initialise(taught, sources_of(result.run()), weights_dir=tmp_path)
    state = taught.model.state_dict()
    want = {f"teacher.{n}": v for n, v in small.model.state_dict().items()}  # its head is not asked
    want |= {n: v for n, v in other.model.state_dict().items() if n.startswith("backbone.")}
    compared = [n for n in want if n in state]
    assert len(compared) > 300 and any(n.startswith("teacher.neck.") for n in compared)
    for name in compared:
        assert torch.equal(state[name], want[name]), name


def test_a_checkpoint_of_detc_is_a_source(tmp_path):
    from detc.runtime.train.checkpoint import Checkpoint, save_checkpoint

    other = Net(classes=7)
    checkpoint = Checkpoint(
        "det 1\n", "", tuple("abcdefg"), other.state_dict(), train={"model": Net().state_dict()}
    )
    save_checkpoint(tmp_path / "best.pt", checkpoint)
    program = SimpleNamespace(model=Net())
    initialise(program, {}, init=str(tmp_path / "best.pt"))
    assert torch.equal(program.model.backbone.conv.weight, other.backbone.conv.weight)


def test_conventions_travel_with_the_source():
    assert convention_of("torchvision/resnet50") == IMAGENET_RGB
    assert convention_of("detectron2/resnet50_caffe") == CAFFE_BGR
    assert convention_of("w.pt") is None


def test_a_clash_of_conventions_is_refused(offline):
    program = build(check("specs/retinanet.det").run())
    assert model_convention(program) == IMAGENET_RGB
    with pytest.raises(DetError) as caught:
        initialise(program, {"backbone": ("open-mmlab/resnet50_caffe", None)})
    assert code_of(caught) == "DET0912"
    assert "channel order BGR (the model has RGB)" in caught.value.diagnostics[0].message
