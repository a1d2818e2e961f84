"""`set` reaches the fields that a declaration may have, also where no body states them."""

from __future__ import annotations

from pathlib import Path

import pytest

from detc.compiler.check import check

SPEC = """det 1
import std.data { Coco }
import std.models { RetinaNet }
import std.recipes { SGD1x }

data Mine extends Coco(root = "data/coco") { set workers = 3 }
train Long extends SGD1x() { set clip = 35.0 }

run {
  data = Mine()
  model = RetinaNet(classes = data.classes)
  train = Long()
}
"""


def test_in_a_body_and_on_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "spec.det"
    path.write_text(SPEC)
    result = check(path, sets=["train.amp=true", "data.cache=ram"])
    assert not result.report.errors
    run = result.run()
    assert run.train.clip == 35.0 and run.train.amp is True
    assert (run.data.fields["workers"], run.data.fields["cache"]) == (3, "ram")


@pytest.mark.parametrize(
    ("edit", "said"), [("train.clop=3", "`train.clip`"), ("data.wrkers=3", "`data.workers`")]
)
def test_fields_that_there_are_not(tmp_path: Path, edit: str, said: str) -> None:
    path = tmp_path / "spec.det"
    path.write_text(SPEC)
    (found,) = check(path, sets=[edit]).report.errors
    assert found.code == "DET0401"
    assert said in found.labels[0].text
