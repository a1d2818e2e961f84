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
BLOCK = re.compile(r"^ *```(?:cpp|python)\n *(?://|#) (\S*box_area\S*)\n(.*?)^ *```$", re.M | re.S)
PLACES = {
    "kernels/box_area.h",
    "kernels/box_area.cpp",
    "kernels/box_area.cu",
    "torch_binding/box_area.cpp",
    "reference/box_area.py",
    "ops/box_area.py",
    "tests/nativeops/test_box_area.py",
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


def test_the_example_builds_and_passes_its_own_tests(tmp_path: Path) -> None:
    if toolchain.cxx() is None:
        pytest.skip("no C++ compiler")
    text = (ROOT / "docs/native-ops.md").read_text()
    blocks = {path: re.sub(r"^ {4}", "", body, flags=re.M) for path, body in BLOCK.findall(text)}
    assert set(blocks) == PLACES
    native = house(tmp_path)
    test = tmp_path / "test_box_area.py"
    for path, body in blocks.items():
        (test if path.startswith("tests/") else native / path).write_text(body)
    with (native / "ops/__init__.py").open("a") as file:
        file.write("from detc.nativeops.ops.box_area import box_area\n")
    environment = {
        **os.environ,
        "DETC_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
    }
    environment.pop("DETC_LIBRARY", None)
    built = subprocess.run(
        [sys.executable, "-c", BUILD],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        cwd=tmp_path,
    )
    assert built.returncode == 0, built.stderr
    assert ("90+PTX" in built.stdout) == (toolchain.nvcc() is not None)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"--rootdir={tmp_path}", "-rs", str(test)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout, done.stdout
