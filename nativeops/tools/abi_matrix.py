"""Proves that one library file serves several torch releases.

For each release: a fresh virtual environment with that torch (and the torchvision that pip finds for it), the
same ``.so`` named by ``DETC_LIBRARY``, and the CPU tests of the native ops. Prints a Markdown table.

    python -m detc.nativeops.tools.abi_matrix --work /tmp/abi 2.10.0 2.13.0 newest
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import subprocess
import sys
import venv
from pathlib import Path

from detc.nativeops import build

ROOT = Path(__file__).resolve().parents[2]
NEEDS = ("torchvision", "numpy", "scipy", "pytest", "hypothesis", "pycocotools")
# These want more of the environment than torch: a compiler, onnxruntime.
NOT_HERE = (
    "test_build.py",
    "test_ort.py",
    "test_onnx_regions.py",
    "test_onnx_sampling.py",
    "test_docs_example.py",
    "test_emulated_cuda.py",
)
PROBE = """
import torch
from detc.nativeops import loader, ops
loader.ensure_loaded("cpu")
mapped = {line.split()[-1] for line in open("/proc/self/maps") if "libdetc_torch" in line}
print(torch.__version__, sorted(mapped)[0])
"""


def main() -> int:
    """Run the matrix; 1 if a release fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="where the environments go")
    parser.add_argument("versions", nargs="+", metavar="VERSION", help="torch releases, or 'newest'")
    options = parser.parse_args()
    library = build.find_or_build()
    digest = hashlib.sha256(library.path.read_bytes()).hexdigest()
    cuda = " ".join(f"sm_{a}" for a in library.architectures) or "none"
    print(f"`{library.path.name}`, sha256 `{digest[:16]}…`, sources `{library.sources}`, CUDA code: {cuda},")
    print(
        f"compiled by {library.compiler} against torch {_own_torch()}; Python {platform.python_version()}\n"
    )
    print("| torch | CPU tests | file loaded |\n| --- | --- | --- |")
    failed = False
    for version in options.versions:
        row, good = _one(version, library.path, options.work)
        failed = failed or not good
        print(row, flush=True)
    return int(failed)


def _own_torch() -> str:
    import torch

    return torch.__version__


def _one(version: str, library: Path, work: Path) -> tuple[str, bool]:
    folder = work / f"torch-{version}"
    python = folder / "bin/python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        wanted = (
            "torch" if version == "newest" else f"torch==={version}"
        )  # not +cpu: torchvision would not fit
        subprocess.run([python, "-m", "pip", "install", "-q", wanted, *NEEDS], check=True, stdout=sys.stderr)
    package = work / "path"
    package.mkdir(exist_ok=True)
    link = package / "detc"
    if not link.exists():
        link.symlink_to(ROOT, target_is_directory=True)
    environment = {**os.environ, "PYTHONPATH": f"{package}:{ROOT}", "DETC_LIBRARY": str(library)}
    probe = subprocess.run(
        [python, "-c", PROBE], env=environment, capture_output=True, text=True, check=False, cwd=work
    )
    if probe.returncode != 0:
        return f"| {version} | does not load: {probe.stderr.strip().splitlines()[-1]} | |", False
    torch, loaded = probe.stdout.split()
    skip = [f"--ignore={ROOT / 'tests/nativeops' / name}" for name in NOT_HERE]
    command = [
        python,
        "-m",
        "pytest",
        "-q",
        "-o",
        "addopts=",
        "-m",
        "not slow",
        "-p",
        "no:cacheprovider",
        "--tb=short",
        "--show-capture=no",
        *skip,
        str(ROOT / "tests/nativeops"),
    ]
    tests = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)  # type: ignore[arg-type]
    (work / f"torch-{version}.log").write_text(tests.stdout + tests.stderr)
    counts = re.findall(r"\d+ (?:passed|failed|errors?|skipped)", tests.stdout.splitlines()[-1])
    summary = ", ".join(counts) or "no summary: see the log"
    return f"| {torch} | {summary} | {Path(loaded).name} |", tests.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
