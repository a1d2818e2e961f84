"""Commands that run a model: compile, predict, bench, and the same results from every form of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import detc as api

SPEC = """det 1
import std.models { RTMDet }

model Tiny extends RTMDet(deepen = 0.167, widen = 0.125, blocks = 1) {}

run { model = Tiny(classes = ["cat", "dog"]) }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A spec, a checkpoint with weights that are not those of a fresh build, and photos."""
    import torch

    from detc.compiler.check import check
    from detc.compiler.program import build
    from detc.runtime.train.checkpoint import Checkpoint, save_checkpoint

    path = tmp_path_factory.mktemp("models")
    (path / "tiny.det").write_text(SPEC)
    run = check(path / "tiny.det").run()
    program = build(run, seed=1)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in program.model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    save_checkpoint(path / "best.pt", Checkpoint(run.text, "", run.classes, program.model.state_dict()))
    rng = np.random.default_rng(0)
    (path / "photos").mkdir()
    for i, size in enumerate([(80, 120), (96, 96), (150, 70)]):
        small = rng.integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC).save(path / f"photos/{i}.png")
    (path / "photos/broken.png").write_bytes(b"\x89PNG broken")
    return path


@pytest.fixture(scope="module")
def onnx_file(folder):
    """The ONNX file of the checkpoint."""
    return api.compile(folder, folder / "tiny.onnx").path


def results(path):
    return {p.stem: json.loads(p.read_text()) for p in sorted(path.glob("*.json"))}


def test_checkpoint_and_onnx_predict_the_same(detc, folder, onnx_file, tmp_path):
    for model, out in ((folder / "best.pt", "torch"), (onnx_file, "onnx")):
        done = detc("run", "predict", model, folder / "photos", "-o", tmp_path / out, "--score", "0.001")
        assert done.code == 0 and "3 results" in done.out
        assert "skipped" in done.err and "broken.png" in done.err
        assert (tmp_path / out / "0.jpg").exists()
    first, second = results(tmp_path / "torch"), results(tmp_path / "onnx")
    assert list(first) == list(second) == ["0", "1", "2"]
    from detc.compiler.backends.verify import compare

    for name in first:
        a, b = (arrays(r[name]) for r in (first, second))
        assert len(a["scores"][0]) > 5
        assert compare(a, b).problem is None


def arrays(result):
    objects = result["objects"]
    return {
        "boxes": np.array([[o["box"] for o in objects]]),
        "scores": np.array([[o["score"] for o in objects]]),
        "labels": np.array([[o["label"] for o in objects]]),
        "valid": np.ones((1, len(objects)), bool),
    }


def test_class_names_and_spec_travel_in_the_file(folder, onnx_file):
    import onnx

    detector = api.load(onnx_file)
    assert detector.classes == ("cat", "dog") and detector.backend == "onnxruntime"
    metadata = {p.key: p.value for p in onnx.load(onnx_file).metadata_props}
    assert "model Tiny" in metadata["spec"]


def test_a_checkpoint_holds_its_spec(folder):
    detector = api.load(folder)
    assert detector.run.model.name == "Tiny" and detector.parameter_count > 1000
    assert api.resolve(folder) == detector.run.text


def test_a_spec_without_weights_is_loaded_with_a_warning(folder):
    with pytest.warns(UserWarning, match="random"):
        detector = api.load(folder / "tiny.det")
    same = api.load(folder / "tiny.det", weights=folder)
    assert not np.array_equal(first_weight(detector), first_weight(same))
    assert np.array_equal(first_weight(api.load(folder)), first_weight(same))


def first_weight(detector):
    return next(iter(detector.state_dict().values())).numpy()


def test_compile_warns_of_random_weights(detc, folder, tmp_path):
    done = detc("compile", folder / "tiny.det", "-o", tmp_path / "random.py")
    assert done.code == 0 and "random" in done.err
    assert (tmp_path / "random.py").exists()


def test_compile_prints_graphs(detc, folder, tmp_path):
    assert detc("compile", folder / "tiny.det", "-o", tmp_path / "g.txt").code == 0
    assert detc("compile", folder / "tiny.det", "-o", tmp_path / "g.svg").code == 0
    assert (tmp_path / "g.txt").read_text().startswith("model Tiny")
    done = detc("compile", folder, "-o", tmp_path / "m.py", "--no-verify", "--print-after", "no_such_pass")
    assert done.code == 2 and "fold_norm" in done.err


def test_compile_refuses_other_suffixes(detc, folder, tmp_path):
    assert detc("compile", folder, "-o", tmp_path / "m.tflite").code == 2
    assert detc("compile", folder, "-o", tmp_path / "none" / "m.onnx").code == 1


def test_weights_of_another_model_are_refused(detc, folder, tmp_path):
    other = tmp_path / "other.det"
    other.write_text(SPEC.replace("0.125", "0.25"))
    done = detc("compile", other, "--weights", folder, "-o", tmp_path / "m.onnx")
    assert done.code == 1 and "DET0902" in done.err and not (tmp_path / "m.onnx").exists()
    done = detc("run", "predict", other, folder / "photos", "--weights", folder, "-o", tmp_path)
    assert done.code == 1 and "DET0902" in done.err


def test_a_file_that_is_no_model(detc, folder, tmp_path):
    for name in ("m.onnx", "m.pt"):
        (tmp_path / name).write_bytes(b"neither")
        done = detc("run", "predict", tmp_path / name, folder / "photos", "-o", tmp_path)
        assert done.code == 1 and name in done.err


def test_bench(detc, folder, onnx_file):
    quick = ("--size", 64, "--runs", 3, "--seconds", 0, "--warmup", 1, "--json")
    for model, backend in ((onnx_file, "onnxruntime"), (folder, "torch")):
        found = json.loads(detc("run", "bench", model, *quick, "--batch", 2).out)
        assert found["backend"] == backend and found["batch"] == 2 and found["latency"]["runs"] >= 3
        assert found["throughput"] == pytest.approx(2000 / found["latency"]["median"])
    assert "images/s" in detc("run", "bench", folder, *quick[:-1]).out


def test_results_from_python_draw_and_convert(folder):
    image = Image.open(folder / "photos/0.png")
    detector = api.load(folder)
    by_path, by_image, by_array = (
        detector.predict(x, score=0.001)[0] for x in (folder / "photos/0.png", image, np.asarray(image))
    )
    assert isinstance(by_path, api.Detections)
    np.testing.assert_allclose(by_path.boxes, by_image.boxes, atol=1e-3)
    np.testing.assert_allclose(by_path.boxes, by_array.boxes, atol=1e-3)
    assert by_image.draw().size == image.size


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "predict", "best.pt", "photos", "-o", "out"),
        ("run", "predict", "tiny.onnx", "photos", "-o", "out"),
        ("run", "bench", "best.pt", "--size", "64"),
        ("run", "val", "tiny.det", "--weights", "best.pt"),
    ],
)
@pytest.mark.parametrize("device", ["cuda:17", "toaster"])
def test_devices_that_are_not_there(detc, folder, onnx_file, monkeypatch, arguments, device):
    monkeypatch.chdir(folder)
    if arguments[1] == "val":  # it asks for data first
        (folder / "with_data.det").write_text(SPEC.replace("model = ", 'data = Coco(classes = ["cat", "dog"]) model = ').replace(
            "import std.models", "import std.data { Coco }\nimport std.models"))  # fmt: skip
        arguments = ("run", "val", "with_data.det", "--weights", "best.pt")
    done = detc(*arguments, "--device", device)
    assert done.code == 1 and "DET0906" in done.err


@pytest.mark.parametrize("arguments", [("run", "val"), ("compile", "-o", "again.onnx")])
def test_an_onnx_file_is_no_checkpoint(detc, folder, onnx_file, arguments):
    done = detc(*arguments, onnx_file)
    assert done.code == 1 and "DET0906" in done.err and "is compiled" in done.err


def test_predictions_need_a_folder_to_go_to(detc, folder):
    done = detc("run", "predict", folder, folder / "photos", "-o", folder / "tiny.det")
    assert done.code == 1 and "error[DET0712]" in done.err


def test_unreadable_images_have_a_code(detc, folder, tmp_path):
    broken = folder / "photos/broken.png"
    done = detc("run", "predict", folder, broken, "-o", tmp_path)
    assert done.code == 1 and "warning[DET0904]" in done.err and "skipped" in done.err
    done = detc("run", "predict", folder, "missing.jpg", "-o", tmp_path)
    assert done.code == 1 and "error[DET0904]: missing.jpg: no such file" in done.err


@pytest.mark.parametrize("command", [("check",), ("resolve",), ("run", "train"), ("run", "bench")])
def test_a_run_that_there_is_not(detc, folder, command):
    done = detc(*command, folder / "tiny.det", "--run", "large")
    assert done.code == 1 and "DET0906" in done.err and "there is no run `large`" in done.err
