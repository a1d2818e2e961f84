"""`--json` of the commands about specs: one document on stdout, whether all is well or not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

SPEC = """det 1
import std.models { FCOS }

model Mine(classes: labels) extends FCOS(classes) {
  set neck.width = 64
}

run { model = Mine(classes = ["cat", "dog"]) }
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "mine.det"
    path.write_text(SPEC)
    return path


def test_why_gives_the_history(detc, spec):
    done = detc("why", spec, "neck.width", "--json")
    found = json.loads(done.out)
    assert done.code == 0 and found["value"] == "64"
    assert [(h["how"], h["value"]) for h in found["history"]] == [("set", "64"), ("given", "256")]
    assert found["history"][0]["line"] == 5 and found["history"][0]["file"] == str(spec)
    node = json.loads(detc("why", spec, "neck.lateral[0]", "--json").out)
    assert node["params"]["kernel"]["value"] == "1"
    assert [a["phase"] for a in node["applied"]] == ["infer", "train"]


def test_resolve_and_graph(detc, spec, tmp_path):
    resolved = json.loads(detc("resolve", spec, "--json").out)
    assert resolved["text"] == detc("resolve", spec).out and resolved["model"] == "Mine"
    graph = json.loads(detc("graph", spec, "--json", "--phase", "train").out)
    assert [n["id"] for n in graph["nodes"]][:2] == ["image", "truth"]
    assert {x["name"] for x in graph["losses"]} == {"cls", "box", "centerness"}
    done = detc("graph", spec, "--json", "-o", tmp_path / "g.svg")
    assert json.loads(done.out)["phase"] == "infer" and (tmp_path / "g.svg").exists()


def test_fmt_says_what_it_changed_and_leaves_broken_files(detc, spec, tmp_path):
    (tmp_path / "a.det").write_text("det 1\nrun {")
    (tmp_path / "z.det").write_text("det 1\nmodel M{input image:image}\n")
    done = detc("fmt", tmp_path, "--json")
    found = json.loads(done.out)
    assert done.code == 1 and found["changed"] == [str(tmp_path / "z.det")] and len(found["files"]) == 3
    assert [d["code"] for d in found["diagnostics"]] == ["DET0104"]
    assert (tmp_path / "z.det").read_text() == "det 1\nmodel M { input image: image }\n"
    assert detc("fmt", spec, "--json").code == 0


@pytest.mark.parametrize("command", [("why", "neck"), ("resolve",), ("graph",), ("check",)])
def test_errors_are_json_too(detc, spec, command):
    spec.write_text(SPEC.replace("width", "widht"))
    name, *more = command
    done = detc(name, spec, *more, "--json")
    assert done.code == 1
    found = json.loads(done.out)["diagnostics"]
    assert [d["code"] for d in found] == ["DET0401"]
    assert found[0]["labels"][0]["line"] == 5


def test_a_broken_file_does_not_keep_other_tests_from_running(detc, tmp_path):
    (tmp_path / "a.det").write_text("det 1\ntest {")
    (tmp_path / "b.det").write_text('det 1\ntest "sums" { expect 1 + 1 == 2 }\n')
    done = detc("test", tmp_path)
    assert done.code == 1 and "b.det: sums" in done.out and "DET01" in done.err
    found = json.loads(detc("test", tmp_path, "--json").out)
    assert [r.get("passed") for r in found] == [None, True]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("data/coco", "data/coco"), ("../x", "../x"), ("a-b/c (2)", "a-b/c (2)"), ('"x y"', "x y")],
)
def test_words_of_the_command_line_are_strings(detc, tmp_path, setting, value):
    path = tmp_path / "d.det"
    path.write_text(
        "det 1\nimport std.data { Coco }\nimport std.models { FCOS }\n"
        'run { data = Coco(classes = ["a"])  model = FCOS(classes = data.classes) }\n'
    )
    done = detc("resolve", path, "--set", f"data.root={setting}")
    assert done.code == 0 and f'root = "{value}"' in done.out


@pytest.mark.parametrize(
    ("setting", "code", "place"),
    [
        ("neck.widht=3", "DET0401", "neck.widht=3"),
        ("data.classes=[b]", "DET0401", "data.classes=[b]"),
        ("train.epochs=[1", "DET0101", "train.epochs=[1"),
        ("model=Other", "DET0406", "model=Other"),
        ("neck.width=wide", "DET0301", "neck.width=wide"),
    ],
)
def test_errors_of_settings_show_the_setting(detc, spec, setting, code, place):
    done = detc("check", spec, "--set", setting)
    assert done.code == 1 and code in done.err
    assert "<command line>" in done.err and f"1| {place}" in done.err
