"""Runs the CPU tests of the native ops under AddressSanitizer and UndefinedBehaviorSanitizer.

    python -m detc.nativeops.tools.sanitize [arguments of pytest]        (or: make sanitize)

The library is built anew with both, into a cache of its own, and the runtimes of the sanitizers are loaded before
Python. Left out are the tests that build other libraries, which are not sanitized, and the slow ones. Leaks are not
looked for, because Python and torch keep memory until the end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from detc.nativeops.toolchain import NativeBuildError, cxx

ROOT = Path(__file__).resolve().parents[2]
RUNTIMES = ("libasan.so", "libubsan.so", "libstdc++.so.6")
LEFT_OUT = (
    "test_build.py",
    "test_ort.py",
    "test_onnx_regions.py",
    "test_onnx_sampling.py",
    "test_emulated_cuda.py",
    "test_docs_example.py",
    "test_cuda.py",
)


def environment(cache: Path) -> dict[str, str]:
    """The variables that make a build and a run sanitized.

    Raises:
        NativeBuildError: the compiler has no sanitizers.
    """
    compiler = cxx()
    if compiler is None:
        raise NativeBuildError("no C++ compiler was found")
    found = []
    for name in RUNTIMES:
        command = [compiler, f"-print-file-name={name}"]
        path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        if not Path(path).exists():
            raise NativeBuildError(f"{compiler} has no {name}", hint="Install g++'s sanitizers, or set CXX.")
        found.append(str(Path(path).resolve()))
    return {
        **os.environ,
        "DETC_CACHE": str(cache),
        "DETC_CUDA": "0",
        "DETC_SANITIZE": "address,undefined",
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "LD_PRELOAD": " ".join(found),
    }


def main() -> int:
    """Build, run the tests, and give pytest's status."""
    cache = Path(os.environ.get("DETC_CACHE") or Path(tempfile.gettempdir()) / "detc-sanitized")
    build = "from detc.nativeops import build; print(build.build('torch', architectures=()).path)"
    variables = environment(cache)
    plain = {name: value for name, value in variables.items() if name != "LD_PRELOAD"}
    subprocess.run([sys.executable, "-c", build], env=plain, check=True)
    tests = ROOT / "tests/nativeops"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "not slow", str(tests)]
    command += [f"--ignore={tests / name}" for name in LEFT_OUT]
    return subprocess.run([*command, *sys.argv[1:]], env=variables, check=False, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
