"""Runs commands inside this process: fast, and with the exit code that the shell would see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from detc.cli.main import main


@dataclass
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def detc(capsys) -> Callable[..., Done]:
    def run(*args: object) -> Done:
        capsys.readouterr()
        code = 0
        try:
            main([str(a) for a in args])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err, captured.err
        return Done(code, captured.out, captured.err)

    return run


GOOD = """det 1
import std.backbones { ResNet }
import std.models { RetinaNet }

run { model = RetinaNet(classes = ["cat", "dog"], backbone = ResNet(18)) }
"""


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.det"
    path.write_text(GOOD)
    return path


@pytest.fixture
def bad(tmp_path):
    path = tmp_path / "bad.det"
    path.write_text(GOOD.replace("backbone =", "bakcbone ="))
    return path
