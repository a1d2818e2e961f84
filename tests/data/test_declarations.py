"""The library's data declarations: they check, and their batches are what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detc.compiler.check import check
from detc.compiler.spec import DataSpec
from detc.runtime.data.inspect import describe, pictures
from detc.runtime.data.loader import make_loader
from detc.runtime.data.synth import generate
from tests.data.making import shared, write_coco

TEXT = """
det 1
import std.data {{ {imports} }}
import std.models {{ RetinaNet }}
train T {{ epochs = 1ep  batch = 4img  optim = SGD(lr = 0.01) }}
{more}
run {{ data = {data}  model = RetinaNet(classes = data.classes)  train = T() }}
"""


def resolve(imports: str, data: str, more: str = "") -> DataSpec:
    """The data part of a run."""
    result = check(TEXT.format(imports=imports, data=data, more=more))
    assert not result.report.errors, result.report.errors
    found: DataSpec = result.run().data
    return found


def test_coco640_has_mosaic_early_and_none_late(tmp_path: Path) -> None:
    write_coco(tmp_path, 6, size=(120, 90))
    data = resolve(
        "Coco640",
        "Mine()",
        f'data Mine extends Coco640(zoom = 0.5, root = "{tmp_path}") {{ set classes = ["one", "two"] '
        'set train.images = "" set train.ann = "ann.json" set val.images = "" set val.ann = "ann.json" }',
    )
    assert [s.name for s in data.pipelines["late"]] == [
        "load",
        "boxes",
        "resize",
        "crop",
        "hsv",
        "flip",
        "pad",
    ]
    loader = make_loader(data, "train", 4, train=True, workers=0)
    assert next(iter(loader))["image"]["pixels"].shape == (4, 3, 640, 640)
    loader.set_pipeline("late")
    assert next(iter(loader))["image"]["pixels"].shape == (4, 3, 640, 640)
    val = next(iter(make_loader(data, "val", 2, train=False, workers=0)))
    assert val["image"]["pixels"].shape == (2, 3, 640, 640)
    assert val["image"]["size"].tolist() == [[480, 640]] * 2


def test_coco_and_its_multi_scale_form(tmp_path: Path) -> None:
    write_coco(tmp_path, 6, size=(64, 48))
    more = (
        'data Mine extends {base}(root = "{root}", classes = none, size = 320x192) {{ set train.images = "" '
        'set train.ann = "ann.json" set val.images = "" set val.ann = "ann.json" }}'
    )
    data = resolve("Coco", "Mine()", more.format(base="Coco", root=tmp_path))
    assert data.classes == ("one", "two")
    batch = next(iter(make_loader(data, "train", 2, train=True, workers=0)))
    assert batch["image"]["size"].tolist() == [[192, 256]] * 2
    data = resolve("CocoMultiScale", "Mine()", more.format(base="CocoMultiScale", root=tmp_path))
    batch = next(iter(make_loader(data, "train", 4, train=True, workers=0)))
    assert batch["image"]["pixels"].shape[2] >= 480


def test_synth_declares_what_synth_makes(tmp_path: Path) -> None:
    generate(tmp_path / "s", 8, val=4, smallest=64, largest=96, workers=1)
    data = resolve("Synth", f'Synth(root = "{tmp_path / "s"}", size = 96x96)')
    batch = next(iter(make_loader(data, "train", 8, train=True, workers=0)))
    assert batch["image"]["pixels"].shape == (8, 3, 96, 96) and batch["truth"]["valid"].any(1).all()
    report = describe(data, "val", train=False, verify=True)
    assert report.images == 4 and not report.problems and sum(report.boxes.values()) >= 4
    (caption, picture), *_ = pictures(data, "train", 2)
    assert picture.size == (96, 96) and "boxes" in caption


def test_bccd_at_320_with_mosaic() -> None:
    root = shared("bccd")
    text = (Path(__file__).parents[2] / "specs/bccd.det").read_text()
    start = text.index("data Bccd")
    declaration = text[start : text.index("\n}\n", start) + 3]
    data = resolve("Voc, steps", f'Bccd(root = "{root}")', declaration)
    loader = make_loader(data, "train", 16, train=True, workers=0)
    assert len(loader) == 13
    assert "width or height is zero or negative" in " ".join(loader.tally.lines())
    batch = next(iter(loader))
    assert batch["image"]["pixels"].shape == (16, 3, 320, 320) and batch["truth"]["valid"].sum() > 16
    assert describe(data, "val", train=False).images == 72


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ('cache = "rom"', "ram"),
        ("pipeline train { load: steps.Lod() }", "Load"),
        ("set val.anm = 3", "ann"),
        ("pipeline train { load: steps.Load()  boxes: steps.Boxes()  paste: steps.CopyPaste() }", "masks"),
        ("pipeline train { insert flip2: steps.VFlip() after pad }", "padd"),
    ],
)
def test_mistakes_in_declarations_are_found(change: str, text: str) -> None:
    result = check(
        TEXT.format(imports="Coco, steps", data="Mine()", more=f"data Mine extends Coco {{ {change} }}")
    )
    assert result.report.errors
    assert any(text in f"{d.message} {d.help} {d.labels}" for d in result.report.errors)


def test_batches_go_to_the_graph_in_its_types(tmp_path: Path) -> None:
    generate(tmp_path / "s", 4, val=0, smallest=64, largest=64, workers=1)
    data = resolve("Synth", f'Synth(root = "{tmp_path / "s"}", size = 64x64)')
    batch = next(iter(make_loader(data, "train", 4, train=True, workers=0)))
    assert batch["image"]["size"].dtype == torch.float32
    assert batch["truth"]["boxes"].max() <= 64


def test_a_derived_set_may_remove_a_metric() -> None:
    edited = "data Mine extends CocoMasks {\n  remove evaluate.masks\n}"
    data = resolve("CocoMasks", "Mine()", edited)
    assert list(data.fields["evaluate"]) == ["coco"]
    result = check(TEXT.format(imports="CocoMasks", data="Mine()", more=edited.replace("masks", "mask")))
    assert [d.code for d in result.report.errors] == ["DET0401"]
    whole = check(TEXT.format(imports="CocoMasks", data="CocoMasks()", more=""))
    assert [d.code for d in whole.report.errors] == ["DET0610"], "RetinaNet has no masks"
