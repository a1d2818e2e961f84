"""What the documents show is true: every spec in them is checked, every command in them exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path) -> list[str]:
    """The fenced blocks of a page."""
    return re.findall(r"^```[a-z]*\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_whole_specs_in_documents_are_right(page, tmp_path):
    from detc.compiler.check import check

    for i, text in enumerate(b for b in blocks(page) if b.startswith("det 1")):
        declared = re.search(r"^component (\w+)", text, re.MULTILINE)
        path = tmp_path / ("my_neck.det" if declared and declared[1] == "TinyNeck" else f"spec{i}.det")
        path.write_text(text)
        assert [str(d.message) for d in check(path).report.errors] == [], text


def test_commands_in_documents_exist():
    from detc.cli.main import COMMANDS
    from detc.cli.run import COMMANDS as RUN

    for page in PAGES:
        for line in page.read_text(encoding="utf-8").splitlines():
            for command, sub in re.findall(r"(?:^|`)detc ([a-z]+)(?: ([a-z]+))?", line.strip()):
                assert command in COMMANDS, f"{page.name}: {line}"
                assert command != "run" or not sub or sub in RUN, f"{page.name}: {line}"


def test_the_guides_steps_work(tmp_path):
    """The fragment with its test, and the mistake that the guide makes on purpose."""
    from detc.compiler.check import check

    guide = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    component, test, experiment, edit = (
        b for b in blocks(ROOT / "docs" / "guide.md") if not b.startswith(("detc", "class", "from"))
    )
    (tmp_path / "my_neck.det").write_text(component + "\n" + test)
    assert check(tmp_path / "my_neck.det").report.errors == []
    broken = experiment.replace("run {", edit + "\nrun {").replace("RetinaNet(classes", "Odd(classes")
    (tmp_path / "experiment.det").write_text(broken)
    found = check(tmp_path / "experiment.det").report.errors
    assert [d.code for d in found] == ["DET0302"], "the guide says what happens"
    assert "64" in found[0].message and "128" in found[0].message
    assert "64 and 128 channels" in guide
