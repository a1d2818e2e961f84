"""The resolved spec is valid, complete, and a fixed point."""

from __future__ import annotations

from pathlib import Path

import pytest

from detc.compiler.check import check
from tests.compiler.specs import tiny

SPECS = sorted((Path(__file__).parents[2] / "specs").glob("*.det"))


def test_tiny_resolves_to_itself() -> None:
    run = tiny().run()
    again = check(run.text)
    assert again.ok, again.report.errors
    copy = again.run()
    assert copy.text == run.text
    assert list(copy.model.weights) == list(run.model.weights)
    assert [w.op for w in copy.model.weights.values()] == [w.op for w in run.model.weights.values()]
    assert "import" not in run.text and "extends" not in run.text


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_every_spec_resolves(path: Path) -> None:
    result = check(path)
    assert result.ok, result.report.errors
    for name, run in list(result.runs.items())[:2]:
        again = check(run.text)
        assert again.ok, (name, again.report.errors[:2])
        copy = again.run(name or None)
        assert copy.text == run.text
        assert {p: w.op for p, w in copy.model.weights.items()} == {
            p: w.op for p, w in run.model.weights.items()
        }
        assert copy.data == run.data
        assert copy.train == run.train
