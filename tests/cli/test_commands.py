"""Every command on a good spec, on a bad one, and on nothing: output and exit codes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "torchvision", "numpy", "PIL", "onnx", "scipy", "matplotlib", "networkx", "rich", "yaml")


# --- check -------------------------------------------------------------------------------------------


def test_check_says_what_it_found(detc, good):
    done = detc("check", good)
    assert done.code == 0 and done.err == ""
    assert "RetinaNet, 2 classes" in done.out and "2 losses" in done.out
    assert detc("check", "-q", good).out == ""


def test_check_as_json(detc, good, bad):
    done = json.loads(detc("check", good, "--json").out)
    assert done["ok"] and done["diagnostics"] == []
    assert done["runs"][str(good)][""]["classes"] == 2
    done = detc("check", good, bad, "--json")
    found = json.loads(done.out)
    assert done.code == 1 and not found["ok"]
    assert [d["code"] for d in found["diagnostics"]] == ["DET0207"]
    assert found["diagnostics"][0]["labels"][0]["line"] == 5


def test_check_refuses_with_the_users_line(detc, bad):
    done = detc("check", bad)
    assert done.code == 1 and done.out == ""
    assert "error[DET0207]" in done.err and f"{bad}:5:" in done.err and "did you mean `backbone`?" in done.err
    assert "1 error" in done.err


def test_check_reads_standard_input(detc, good, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(good.read_text().replace("18", "19")))
    done = detc("check", "-")
    assert done.code == 1 and "19" in done.err


def test_check_of_a_file_that_is_not_there(detc, tmp_path):
    done = detc("check", tmp_path / "gone.det")
    assert done.code == 1 and "gone.det" in done.err


def test_check_with_an_edit_from_the_command_line(detc, good):
    assert detc("check", good, "--set", "model.neck.width=128").code == 0
    done = detc("check", good, "--set", "model.neck.widht=128")
    assert done.code == 1 and "widht" in done.err and "<command line>" in done.err
    assert detc("check", good, "--set", "nonsense").code == 1


def test_check_of_a_run_that_is_not_there(detc, good):
    done = detc("graph", good, "--run", "x")
    assert done.code == 1 and "DET0906" in done.err


def test_check_imports_nothing_heavy():
    code = (
        "import sys\nfrom detc.cli.main import main\n"
        "try: main(['check', '-q', 'specs/cascade.det'])\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    run = [sys.executable, "-c", code]
    subprocess.run(run, cwd=ROOT, capture_output=True, check=True)  # fills the cache of parsed files
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- fmt, fix ------------------------------------------------------------------------------------------


def test_fmt(detc, good, tmp_path):
    text = good.read_text()
    good.write_text(text.replace("run { model", "run  {model"))
    done = detc("fmt", "--check", good)
    assert done.code == 1 and "not formatted" in done.out
    done = detc("fmt", "--diff", good)
    assert done.code == 1 and "+run { model" in done.out
    assert detc("fmt", tmp_path).code == 0
    assert good.read_text() == text
    assert detc("fmt", "--check", good).code == 0


def test_fmt_reads_standard_input(detc, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("det 1\nrun{model=X()}\n"))
    done = detc("fmt", "-")
    assert done.code == 0 and done.out == "det 1\nrun { model = X() }\n"


def test_fmt_leaves_broken_files_alone(detc, good):
    good.write_text("det 1\nrun { model = ")
    done = detc("fmt", good)
    assert done.code == 1 and "DET01" in done.err
    assert good.read_text() == "det 1\nrun { model = "
    assert detc("fmt", good.parent / "gone.det").code == 1


def test_fix_mends_what_it_can(detc, bad):
    done = detc("fix", "--dry-run", bad)
    assert done.code == 1 and "bakcbone" in bad.read_text()
    done = detc("fix", bad)
    assert done.code == 0 and "`bakcbone` -> `backbone`" in done.out
    assert detc("check", bad).code == 0


# --- graph, resolve ------------------------------------------------------------------------------------


def test_graph_as_text(detc, good):
    done = detc("graph", good)
    assert done.code == 0 and done.out.startswith("graph infer {") and "%backbone." in done.out
    assert "loss" in detc("graph", good, "--phase", "train").out


def test_graph_as_svg(detc, good, tmp_path):
    done = detc("graph", good, "-o", tmp_path / "g.svg", "--depth", 2)
    assert done.code == 0
    root = ElementTree.parse(tmp_path / "g.svg").getroot()
    assert root.tag.endswith("svg") and len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 100


@pytest.mark.parametrize("args", [("--phase", "both"), ("-o", "x.png"), ("--model", "Nope")])
def test_graph_refuses_wrong_options(detc, good, args):
    assert detc("graph", good, *args).code == 2


def test_resolved_specs_stand_alone(detc, good, tmp_path):
    done = detc("resolve", good, "-o", tmp_path / "resolved.det")
    assert done.code == 0
    text = (tmp_path / "resolved.det").read_text()
    assert "import" not in text
    assert detc("check", tmp_path / "resolved.det").code == 0
    assert detc("resolve", tmp_path / "resolved.det").out == text, "resolving is idempotent"


# --- run -----------------------------------------------------------------------------------------------


def test_run_refuses_wrong_options(detc, good, tmp_path):
    assert detc("run", "bench", good, "--size", "big").code == 2
    assert detc("run", "val", good).code == 2
    assert detc("run", "train", good, "--procs", "0").code == 2
    done = detc("run", "predict", good, tmp_path / "no*.jpg", "-o", tmp_path)
    assert done.code == 1 and "no image matches" in done.err
    done = detc("run", "predict", tmp_path / "gone.pt", tmp_path, "-o", tmp_path)
    assert done.code == 1


# --- why, test, explain --------------------------------------------------------------------------------


def test_why_names_every_place_that_had_a_say(detc, good):
    done = detc("why", good, "neck.lateral[0].out", "--set", "model.neck.lateral[0].out=256")
    assert done.code == 0 and done.out.startswith("neck.lateral[0].out = 256")
    assert "<command line>" in done.out and "std/" in done.out
    done = detc("why", good, "neck.latreal[0].out")
    assert done.code == 1 and "did you mean `neck.lateral[0].out`?" in done.err


def test_fragments_tests_are_run(detc, tmp_path):
    path = tmp_path / "neck.det"
    path.write_text(
        "det 1\nimport std.necks { FPN }\n"
        'test "width" {\n  let y = pyramid(channels = [8, 16], strides = [4, 8]) -> FPN(32, levels = 2)\n'
        "  expect y.channels == [32, 32]\n}\n"
    )
    done = detc("test", path)
    assert done.code == 0 and "1 test, 0 failed" in done.out
    path.write_text(path.read_text().replace("[32, 32]", "[32, 31]"))
    done = detc("test", tmp_path)
    assert done.code == 1 and "FAIL" in done.out and f"{path}:5:" in done.err and "[32, 31]" in done.err
    found = json.loads(detc("test", path, "--json").out)
    assert not found[0]["passed"] and found[0]["problems"][0]["labels"][0]["line"] == 5


def test_the_standard_librarys_tests_hold(detc):
    done = detc("test", ROOT / "stdlib")
    assert done.code == 0, done.out + done.err


def test_explain(detc):
    done = detc("explain", "302")
    assert done.code == 0 and done.out.startswith("# DET0302")
    assert json.loads(detc("explain", "DET0302", "--json").out)["code"] == "DET0302"
    assert "DET0101" in detc("explain").out
    assert detc("explain", "DET9999").code == 1
