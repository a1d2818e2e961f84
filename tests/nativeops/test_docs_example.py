"""The op that docs/native-ops.md adds as an example: its blocks are written to files, built and run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from detc.nativeops import toolchain

ROOT = toolchain.ROOT.parent
BLOCK = re.compile(
    r"^ *```(?:cpp|python)\n *(?://|#) (\S*box_area\S*|tests/\S*op_cases.py)[^\n]*\n(.*?)^ *```$", re.M | re.S
)
IMPORT = re.compile(r"`ops/__init__.py`: `(from [^`]*)`")
PLACES = {
    "kernels/box_area.h",
    "kernels/box_area.cpp",
    "kernels/box_area.cu",
    "torch_binding/box_area.cpp",
    "reference/box_area.py",
    "ops/box_area.py",
    "tests/nativeops/test_box_area.py",
    "tests/nativeops/op_cases.py",
}
BUILD = """
from detc.nativeops import build, toolchain
made = build.build("torch", architectures=("90",) if toolchain.nvcc() else ())
print(made.architectures, made.path)
"""


def house(folder: Path) -> Path:
    """A package `detc` of links, whose nativeops has the sources that every library has, and no op's."""
    package = folder / "detc"
    native = package / "nativeops"
    (native / "kernels").mkdir(parents=True)
    (native / "torch_binding").mkdir()
    (native / "reference").mkdir()
    (native / "ops").mkdir()
    for entry in ROOT.iterdir():
        if entry.name != "nativeops" and not entry.name.startswith("."):
            (package / entry.name).symlink_to(entry)
    for entry in toolchain.ROOT.rglob("*"):
        inside = entry.relative_to(toolchain.ROOT)
        if entry.is_dir() or inside.parts[0] in ("lib", "__pycache__"):
            continue
        op_source = inside.parts[0] in ("kernels", "torch_binding") and entry.suffix in (".cpp", ".cu")
        if op_source and entry.name not in ("parallel.cpp", "library.cpp"):
            continue
        target = native / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        if (
            entry.suffix == ".py"
        ):  # a linked module would still be found, but its `__file__` would not be here
            target.write_text(entry.read_text())
        else:
            target.symlink_to(entry)
    return native


def house_tests(folder: Path, case: str) -> Path:
    """The folder of the native tests, as links, with one more case in ``op_cases.py``."""
    here = folder / "tests/nativeops"
    here.mkdir(parents=True)
    (folder / "tests/__init__.py").touch()
    for entry in (ROOT / "tests/nativeops").glob("*.py"):
        if entry.name != "op_cases.py":
            (here / entry.name).symlink_to(entry)
    text = (ROOT / "tests/nativeops/op_cases.py").read_text()
    opening = "CASES: dict[str, Case] = {\n"
    assert text.count(opening) == 1
    (here / "op_cases.py").write_text(text.replace(opening, opening + case))
    return here


@pytest.mark.slow
def test_the_example_builds_and_passes_its_own_tests(tmp_path: Path) -> None:
    if toolchain.cxx() is None:
        pytest.skip("no C++ compiler")
    text = (ROOT / "docs/native-ops.md").read_text()
    blocks = {path: re.sub(r"^ {4}", "", body, flags=re.M) for path, body in BLOCK.findall(text)}
    assert set(blocks) == PLACES
    native = house(tmp_path)
    tests = house_tests(tmp_path, blocks.pop("tests/nativeops/op_cases.py"))
    for path, body in blocks.items():
        (tmp_path / path if path.startswith("tests/") else native / path).write_text(body)
    (line,) = IMPORT.findall(text)
    with (native / "ops/__init__.py").open("a") as file:
        file.write(line + "\n")
    environment = {
        **os.environ,
        "DETC_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
    }
    environment.pop("DETC_LIBRARY", None)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, check=False, cwd=tmp_path
        )

    built = run("-c", BUILD)
    assert built.returncode == 0, built.stderr
    assert ("90+PTX" in built.stdout) == (toolchain.nvcc() is not None)
    files = (str(tests / "test_box_area.py"), str(tests / "test_every_op.py"))
    done = run(
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--rootdir={tmp_path}",
        "-rs",
        "-k",
        "box_area",
        *files,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # its own two tests, and every kind of test that holds for all ops
    assert "19 passed" in done.stdout and "skipped" not in done.stdout, done.stdout
