"""`train` on a real spec, real files, the real compiler: one detector from images to drawings."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detc.compiler.check import check
from detc.dsl.diagnostics import DetError
from detc.runtime.train.checkpoint import read_checkpoint
from detc.runtime.train.engine import train
from detc.runtime.train.log import read_rows
from detc.runtime.train.validate import evaluate, plain_name

SPEC = """det 1
import std.data {{ Coco, steps }}
import std.models {{ RTMDetTiny }}

data Squares extends Coco(root = "{root}", classes = ["red", "blue"], size = 64x64) {{
  set train.images = "images/"
  set train.ann = "boxes.json"
  set val.images = "images/"
  set val.ann = "boxes.json"
  set workers = 0
  pipeline late extends train {{ remove flip }}
}}

train Short {{
  epochs = 3ep
  batch = 2img
  optim = AdamW(lr = 1e-3, weight_decay = 0.05)
  group "**.norm" {{ weight_decay = 0.0 }}
  lr {{ warmup: Linear(over = 2it)  anneal: Cosine(start = epochs / 2, end_ratio = 5%) }}
  hooks {{ ema: EMA(momentum = 0.01, gamma = 4it) }}
  at 2ep {{ set data.active = "late" }}
  validate = {{ every = 3ep, every_late = 1ep }}
  clip = 35.0
  log_every = 1
}}

run {{
  data = Squares()
  model = RTMDetTiny(classes = data.classes)
  train = Short()
}}
"""


@pytest.fixture(scope="module")
def squares(tmp_path_factory) -> Path:
    """A data set of five images with coloured squares, and a spec that trains on it."""
    root = tmp_path_factory.mktemp("squares")
    (root / "images").mkdir()
    draw = np.random.default_rng(0)
    images, objects = [], []
    for number in range(1, 6):
        pixels = draw.integers(90, 130, (64, 64, 3)).astype(np.uint8)
        for label in range(2):
            x, y = (int(v) for v in draw.integers(0, 40, 2))
            pixels[y : y + 20, x : x + 20] = (220, 20, 20) if label == 0 else (20, 20, 220)
            box = {"bbox": [x, y, 20, 20], "area": 400, "iscrowd": 0}
            objects.append({"id": len(objects) + 1, "image_id": number, "category_id": label + 1, **box})
        Image.fromarray(pixels).save(root / f"images/{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 64})
    names = [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}]
    whole = {"images": images, "annotations": objects, "categories": names}
    (root / "boxes.json").write_text(json.dumps(whole))
    (root / "squares.det").write_text(SPEC.format(root=root))
    return root


def go(root: Path, out: Path, **options):
    result = check(str(root / "squares.det"))
    assert result.report.errors == []
    return train(result.run(), out=out, device="cpu", plain=True, **{"draw": 0, **options})


def rows(out: Path, kind: str) -> list[dict[str, float]]:
    return [
        {k: v for k, v in r.items() if k in ("loss", "iteration", "ap", "lr")}
        for r in read_rows(out / "metrics.jsonl")
        if r["kind"] == kind
    ]


def test_from_images_to_drawings_and_exactly_again(squares, tmp_path, capsys):
    whole = go(squares, tmp_path / "whole", draw=2)
    assert (whole.stopped, whole.iterations) == ("done", 9)  # 3 batches of 2 hold 5 images
    assert len(list((tmp_path / "whole/drawings").iterdir())) == 2
    for name in ("best.pt", "last.pt", "spec.det", "curves.png", "summary.json"):
        assert (tmp_path / "whole" / name).stat().st_size > 0
    said = capsys.readouterr().out
    assert "batch 2 (2 images a pass); 3 iterations an epoch, 9 in all" in said
    assert "AdamW: lr 0.001" in said
    assert len(rows(whole.out, "val")) == 1

    go(squares, tmp_path / "parts", max_iterations=4)
    resumed = go(squares, tmp_path / "parts", resume=True, workers=1)
    assert rows(resumed.out, "train") == rows(whole.out, "train")
    assert rows(resumed.out, "val") == rows(whole.out, "val")
    a, b = read_checkpoint(whole.last), read_checkpoint(resumed.last)
    assert all(torch.equal(t, b.model[n]) for n, t in a.model.items())


def test_a_checkpoint_rebuilds_itself_and_evaluates_the_same(squares, tmp_path):
    from detc.compiler.program import build
    from detc.runtime.train.checkpoint import load_weights

    result = go(squares, tmp_path / "a")
    checkpoint = read_checkpoint(result.best)
    run = check(checkpoint.spec).run(checkpoint.run or None)
    assert checkpoint.classes == run.classes == ("red", "blue")
    program = build(run)
    load_weights(program, result.best)
    again = evaluate(program, run.data, batch=2)
    assert again["ap"] == pytest.approx(result.best_metrics["ap"], abs=1e-6)
    assert set(again) >= {"ap", "ap50", "ap75", "ar_100"}
    program.model.train()
    few = evaluate(program, run.data, limit=1)
    assert few["ar_100"] >= 0.0


def test_starting_from_a_file_and_from_what_cannot_be_had(squares, tmp_path, monkeypatch, capsys):
    result = go(squares, tmp_path / "a", max_iterations=1)
    go(squares, tmp_path / "b", max_iterations=1, init=str(result.last))
    assert "tensors loaded" in capsys.readouterr().out
    monkeypatch.setenv("DETC_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(DetError) as caught:
        go(squares, tmp_path / "c", init="torchvision/resnet50")
    assert caught.value.diagnostics[0].code == "DET0901"
    assert not (tmp_path / "c").exists()


def test_wrong_devices_and_runs_are_said(squares, tmp_path):
    with pytest.raises(DetError, match="is no device"):
        run = check(str(squares / "squares.det")).run()
        train(run, out=tmp_path, device="toaster")
    if not torch.cuda.is_available():
        with pytest.raises(DetError, match="no device cuda:0"):
            train(run, out=tmp_path, device="cuda")


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("AP", "ap"),
        ("AP50", "ap50"),
        ("APs", "ap_s"),
        ("AR100", "ar_100"),
        ("ARl", "ar_l"),
        ("AP/red cell", "ap/red cell"),
        ("AP50_mask", "ap50_mask"),
        ("APm_mask", "ap_m_mask"),
        ("PQ", "PQ"),
    ],
)
def test_names_of_metrics(key, name):
    assert plain_name(key) == name


def test_an_interrupted_command_says_so_and_keeps_standard_output_for_json(squares, tmp_path, capsys):
    import os
    import signal

    from detc.cli.main import main
    from detc.runtime.train import log

    class Interrupts(log.JsonLines):
        def row(self, kind, iteration, values):
            super().row(kind, iteration, values)
            if iteration == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    small = "RTMDet(deepen = 0.167, widen = 0.125, blocks = 1, "
    text = SPEC.format(root=squares).replace("RTMDetTiny(", small).replace("RTMDetTiny", "RTMDet")
    (squares / "small.det").write_text(text)
    command = ["run", "train", str(squares / "small.det"), "-o", str(tmp_path), "--draw", "0", "--json"]
    codes = []
    for extra, sink in ([], Interrupts), (["--resume", "--no-report"], log.JsonLines):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
            patch.setattr("detc.runtime.train.fit.JsonLines", sink)
            main([*command, *extra])
        codes.append(stop.value.code)
        said = capsys.readouterr()
        facts = json.loads(said.out)
        assert "iterations an epoch" in said.err
    assert codes == [130, 0]
    assert facts["stopped"] == "done" and facts["report"] is None
    assert not (tmp_path / "report.html").exists()
