"""Users get messages, bugs get tracebacks; exit codes tell which."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from detc.cli.faults import INTERNAL, diagnostic, report
from detc.dsl.diagnostics import error
from detc.runtime.images import ImageError


def caught(function) -> Exception:
    try:
        function()
    except Exception as fault:
        return fault
    raise AssertionError("nothing was raised")


def words(fault: Exception) -> tuple[str, str]:
    (found,) = diagnostic(fault)
    return found.code, found.message


def test_files_are_named():
    fault = caught(lambda: Path("/no/such/file").read_text())
    assert words(fault) == ("DET0903", "/no/such/file: No such file or directory")
    assert words(OSError(errno.ENOSPC, "No space left on device", "a.onnx"))[0] == "DET0712"


def test_values_refused_by_detc_are_messages():
    from detc.runtime.draw import grid

    assert words(ImageError("a.jpg", "is cut short")) == ("DET0904", "a.jpg: is cut short")
    assert words(caught(lambda: grid([]))) == ("DET0906", "a grid needs at least one image")


def test_values_refused_inside_a_library_are_bugs():
    assert diagnostic(caught(lambda: int("x"))) is None
    assert diagnostic(caught(lambda: [][1])) is None


def test_missing_extras_name_their_package():
    def wanting():
        import surely_not_installed.sub  # noqa: F401

    (found,) = diagnostic(caught(wanting))
    assert "pip install surely_not_installed" in found.help


def test_want_of_memory_is_no_bug():
    import torch

    for fault in (MemoryError(), caught(lambda: torch.empty(1 << 60)), torch.OutOfMemoryError("12 GiB")):
        (found,) = diagnostic(fault)
        assert found.code == "DET0714" and "memory" in found.message and "batch" in found.help


def test_bugs_show_a_traceback(capsys):
    assert report(caught(lambda: {}["k"]), as_json=False) == INTERNAL
    err = capsys.readouterr().err
    assert "Traceback" in err and "bug in detc" in err


def test_messages_can_be_json(capsys):
    assert report(ImageError("a.jpg", "is cut short"), as_json=True) == 1
    (found,) = json.loads(capsys.readouterr().out)["diagnostics"]
    assert (found["code"], found["message"]) == ("DET0904", "a.jpg: is cut short")


def test_diagnostics_are_rendered(capsys):
    assert report(error("DET0901", "there is no file x.pt"), as_json=False) == 1
    err = capsys.readouterr().err
    assert "error[DET0901]: there is no file x.pt" in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (["--version"], 0, "detc 0."),
        (["--help"], 0, "graph-compiled language"),
        ([], 2, "Usage"),
        (["chekc"], 2, "No such command"),
        (["check"], 2, "Missing argument"),
        (["check", "--nope", "x.det"], 2, "No such option"),
    ],
)
def test_exit_codes_of_the_command_line(args, code, text):
    command = [sys.executable, "-m", "detc.cli.main", *args]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == code, done.stderr
    assert text in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
