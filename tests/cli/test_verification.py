"""An export that does not do what the program does is not written: tampered graphs of every kind are caught."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.compiler.specs import TINY

SUFFIXES = (".onnx", ".pt2", ".py")


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.det"
    target = (
        'target small { image = 128x128 }\nrun { model = Tiny(classes = ["cat", "dog"])  target = small() }\n'
    )
    path.write_text(TINY.format(more="", model="Tiny()").rpartition("run {")[0] + target)
    return path


def tamper(monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """The back end multiplies the weights of one convolution by 1.05; the source takes another activation."""
    from onnx import numpy_helper
    from torch.nn import Parameter

    from detc.compiler.backends import exported, python
    from detc.runtime import export

    onnx_model, to_exported, source = export._onnx_model, exported.to_exported, python.python_source

    def onnx_made(*args: Any) -> Any:
        model = onnx_model(*args)
        weight = next(w for w in model.graph.initializer if len(w.dims) == 4)
        weight.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.05), weight.name)
        )
        return model

    def exported_made(*args: Any) -> Any:
        program = to_exported(*args)
        name = next(n for n, w in program.state_dict.items() if w.dim() == 4)
        program.state_dict[name] = Parameter(program.state_dict[name] * 1.05, requires_grad=False)
        return program

    def source_made(*args: Any) -> str:
        text = source(*args)
        assert "functional.silu(" in text
        return text.replace("functional.silu(", "functional.relu(")

    if suffix == ".onnx":
        monkeypatch.setattr(export, "_onnx_model", onnx_made)
    elif suffix == ".pt2":
        monkeypatch.setattr(exported, "to_exported", exported_made)
    else:
        monkeypatch.setattr(python, "python_source", source_made)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_tampered_export_is_refused(
    detc: Any, spec: Path, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tamper(monkeypatch, suffix)
    out = tmp_path / f"m{suffix}"
    done = detc("compile", spec, "-o", out)
    assert done.code == 1
    assert "error[DET0803]" in done.err and "does not agree with torch" in done.err
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.det"], "no file, nor a part of one"

    out.write_text("what was here before")
    assert detc("compile", spec, "-o", out).code == 1
    assert out.read_text() == "what was here before"

    done = detc("compile", spec, "-o", out, "--no-verify")
    assert done.code == 0 and out.read_bytes() != b"what was here before"
    assert "verified" not in done.out


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_honest_export_is_written(detc: Any, spec: Path, tmp_path: Path, suffix: str) -> None:
    done = detc("compile", spec, "-o", tmp_path / f"m{suffix}")
    assert done.code == 0, done.err
    assert "agree with torch" in done.out and "detections" in done.out and "verified: 0" not in done.out


@pytest.fixture
def blind(spec: Path) -> Path:
    """The same model at a threshold that random weights never reach."""
    spec.write_text(spec.read_text().replace("score = 0.1%", "score = 100%"))
    return spec


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_where_nothing_is_detected_the_scores_before_it_are_compared(
    detc: Any, blind: Path, tmp_path: Path, suffix: str
) -> None:
    done = detc("compile", blind, "-o", tmp_path / f"m{suffix}")
    assert done.code == 0, done.err
    assert "nothing is detected on 4 images; the " in done.out and "agree with torch" in done.out


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_tampered_export_that_detects_nothing_is_refused(
    detc: Any, blind: Path, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tamper(monkeypatch, suffix)
    done = detc("compile", blind, "-o", tmp_path / f"m{suffix}")
    assert done.code == 1
    assert "error[DET0803]" in done.err and "from which boxes are selected" in done.err


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_tracker_that_is_given_nothing_says_little(
    detc: Any, blind: Path, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = blind.read_text().replace("det 1\n", "det 1\nimport std.models { Tracking }\n")
    names = 'Tiny(classes = ["cat", "dog"])'
    blind.write_text(text.replace(names, f'Tracking(classes = ["cat", "dog"], detector = {names})'))
    done = detc("compile", blind, "-o", tmp_path / f"m{suffix}")
    assert done.code == 0, done.err
    assert "nothing is detected on " in done.out and "agree with torch" in done.out
    if suffix == ".py":
        tamper(monkeypatch, suffix)
        assert "from which boxes are selected" in detc("compile", blind, "-o", tmp_path / "n.py").err


def test_a_full_disk_is_named_with_the_file(
    detc: Any, spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.name.endswith(".part"):
            raise OSError(28, "No space left on device")
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    done = detc("compile", spec, "-o", tmp_path / "m.py")
    assert done.code == 1 and "error[DET0712]: cannot write" in done.err and "m.py: No space left" in done.err
