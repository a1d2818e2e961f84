"""Proves that one library file serves several torch releases.

For each release: a fresh virtual environment with that torch (and the torchvision that pip finds for it), the
same ``.so`` named by ``DETC_LIBRARY``, and the CPU tests of the native ops. Then the sources are compiled with
that torch's headers, for its CPU, and called once. Prints a Markdown table.

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

BUILD = """
import os
from detc.nativeops import build
made = build.build("torch", architectures=())
os.environ["DETC_LIBRARY"] = str(made.path)
import torch
from detc.nativeops import loader, ops, registry
boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 3.9], [9, 9, 12, 12]])
assert ops.nms(boxes, torch.tensor([0.5, 0.9, 0.1]), 0.5).tolist() == [1, 2]
assert loader.loaded_library() == made and registry.has_native_kernel("nms", "cpu")
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
    print("| torch | CPU tests | file loaded | sources compile there |\n| --- | --- | --- | --- |")
    failed = False
    for version in options.versions:
        row, good = _one(version, library.path, options.work)
        failed = failed or not good
        print(row, flush=True)
    return int(failed)


def _own_torch() -> str:
    import torch

    return torch.__version__


def _python(version: str, work: Path) -> Path:
    """The interpreter of a fresh environment with that torch; one that is there already is taken as it is."""
    folder = work / f"torch-{version}"
    python = folder / "bin/python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        # not +cpu: torchvision would not fit
        wanted = "torch" if version == "newest" else f"torch==={version}"
        subprocess.run([python, "-m", "pip", "install", "-q", wanted, *NEEDS], check=True, stdout=sys.stderr)
    return python


def _one(version: str, library: Path, work: Path) -> tuple[str, bool]:
    python = _python(version, work)
    package = work / "path"
    package.mkdir(exist_ok=True)
    link = package / "detc"
    if not link.exists():
        link.symlink_to(ROOT, target_is_directory=True)
    environment = {**os.environ, "PYTHONPATH": f"{package}:{ROOT}", "DETC_LIBRARY": str(library)}

    def run(*arguments: str | Path, folder: Path = work, **more: str) -> subprocess.CompletedProcess[str]:
        command = [str(a) for a in (python, *arguments)]
        return subprocess.run(
            command, env={**environment, **more}, capture_output=True, text=True, check=False, cwd=folder
        )

    probe = run("-c", PROBE)
    if probe.returncode != 0:
        return f"| {version} | does not load: {_last(probe.stderr)} | | |", False
    torch, loaded = probe.stdout.split()
    skip = [f"--ignore={ROOT / 'tests/nativeops' / name}" for name in NOT_HERE]
    options = ["-q", "-o", "addopts=", "-m", "not slow", "-p", "no:cacheprovider", "--tb=short"]
    tests = run("-m", "pytest", *options, "--show-capture=no", *skip, ROOT / "tests/nativeops", folder=ROOT)
    built = run("-c", BUILD, DETC_CACHE=str(work / "cache"), DETC_LIBRARY="")
    log = tests.stdout + tests.stderr + built.stdout + built.stderr
    (work / f"torch-{version}.log").write_text(log)
    counts = re.findall(r"\d+ (?:passed|failed|errors?|skipped)", _last(tests.stdout))
    summary = ", ".join(counts) or "no summary: see the log"
    compiles = "yes" if built.returncode == 0 else f"no: {_last(built.stderr)}"
    good = tests.returncode == 0 == built.returncode
    return f"| {torch} | {summary} | {Path(loaded).name} | {compiles} |", good


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["nothing was said"])[-1]


if __name__ == "__main__":
    sys.exit(main())
