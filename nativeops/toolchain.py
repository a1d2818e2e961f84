"""The compilers: which there are, what command compiles each source, and what to say when one fails.

Environment: ``CXX``, ``NVCC``, ``CUDA_HOME``; ``DETC_MARCH`` (the CPU to compile for, default: native);
``DETC_SANITIZE=address,undefined`` (use with a ``DETC_CACHE`` of its own).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).parent
TORCH_TARGET_VERSION = "0x020a000000000000"  # LibTorch stable ABI of torch 2.10


class NativeBuildError(RuntimeError):
    """A build that could not be done: what failed, the compiler's own words, and the one line that helps."""

    def __init__(self, summary: str, *, log: str = "", hint: str = "") -> None:
        super().__init__("\n".join(part for part in (log, summary, hint) if part))
        self.summary, self.log, self.hint = summary, log, hint


@dataclass(frozen=True)
class Unit:
    """One source and what compiles it."""

    source: Path
    command: tuple[str, ...]  # without the output

    def key(self, headers: str) -> str:
        """What the object's name is made of: with another key it has to be compiled anew."""
        text = self.source.read_bytes()
        return digest(self.source.name.encode(), text, headers.encode(), "\0".join(self.command).encode())


def cxx() -> str | None:
    """The C++ compiler: ``$CXX`` or g++ or clang++, or None."""
    return next(
        (
            found
            for name in (os.environ.get("CXX"), "g++", "clang++")
            if name and (found := shutil.which(name))
        ),
        None,
    )


def nvcc() -> str | None:
    """``$NVCC``, nvcc on the PATH or in ``$CUDA_HOME``, or None."""
    home = os.environ.get("CUDA_HOME")
    names = (os.environ.get("NVCC"), "nvcc", f"{home}/bin/nvcc" if home else None)
    return next((found for name in names if name and (found := shutil.which(name))), None)


def units(host: str, architectures: tuple[str, ...], march: str, include: tuple[Path, ...]) -> list[Unit]:
    """Everything that one library is compiled from.

    Raises:
        NativeBuildError: there is no compiler.
    """
    compiler = cxx()
    if compiler is None:
        raise NativeBuildError(
            "no C++ compiler was found",
            hint="Install g++ (Debian: apt-get install g++) or set CXX; DETC_NATIVE=0 silences this.",
        )
    sanitize = [f"-fsanitize={s}" for s in os.environ.get("DETC_SANITIZE", "").split(",") if s]
    debug = (
        ["-g", "-O1", "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined"]
        if sanitize
        else ["-O3", "-DNDEBUG"]
    )
    common = [
        "-std=c++20",
        *debug,
        *sanitize,
        "-fPIC",
        f"-march={march}",
        "-fvisibility=hidden",
        "-fopenmp-simd",
        "-fno-math-errno",
        "-fno-trapping-math",
        "-Wall",
        "-Wno-unknown-pragmas",
    ]
    includes = [f"-isystem{folder}" for folder in include]
    if host == "torch":
        common_binding = [
            f"-DTORCH_TARGET_VERSION={TORCH_TARGET_VERSION}",
            f"-isystem{torch_folder() / 'include'}",
        ]
        if architectures:
            common_binding.append("-DUSE_CUDA")
    else:
        common_binding = []
    if architectures:
        common_binding.append("-DDETC_WITH_CUDA")
    folders: tuple[tuple[str, list[str]], ...] = (
        ("kernels", []),
        (f"{host}_binding", [*common_binding, *includes]),
    )
    found = [
        Unit(source, (compiler, *common, *flags, *_file_flags(source), "-c", str(source)))
        for folder, flags in folders
        for source in sorted((ROOT / folder).glob("*.cpp"))
    ]
    if architectures:
        found += _cuda_units(architectures)
    return found


def _cuda_units(architectures: tuple[str, ...]) -> list[Unit]:
    compiler = nvcc()
    if compiler is None:
        raise NativeBuildError(
            "no nvcc was found", hint="Put nvcc on the PATH, set NVCC, or build with DETC_CUDA=0."
        )
    codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in architectures]
    codes.append(f"-gencode=arch=compute_{architectures[-1]},code=compute_{architectures[-1]}")
    flags = [
        "-std=c++20",
        "-O3",
        "-DNDEBUG",
        "-DDETC_WITH_CUDA",
        "--expt-relaxed-constexpr",
        "--extended-lambda",
        "-cudart=static",
        "-Xcompiler=-fPIC,-fvisibility=hidden",
        "--threads=1",
        *codes,
    ]
    sources = sorted((ROOT / "kernels").glob("*.cu"))
    return [Unit(source, (compiler, *flags, *_file_flags(source), "-c", str(source))) for source in sources]


def link_command(host: str, objects: list[Path], cuda: bool) -> list[str]:
    sanitize = [f"-fsanitize={s}" for s in os.environ.get("DETC_SANITIZE", "").split(",") if s]
    command = [cxx() or "g++", "-shared", *sanitize, *map(str, objects)]
    if host == "torch":
        # torch loads its libraries RTLD_LOCAL, so ours must name them (DT_NEEDED) although no symbol may be
        # needed at link time.
        command += [
            "-Wl,--no-as-needed",
            f"-L{torch_folder() / 'lib'}",
            "-ltorch",
            "-ltorch_cpu",
            "-lc10",
            "-Wl,--as-needed",
        ]
    if cuda:
        command += [f"-L{cudart_folder()}", "-lcudart_static", "-ldl", "-lrt"]
    return [*command, "-lpthread", "-Wl,--exclude-libs,ALL"]


@lru_cache
def cudart_folder() -> Path:
    """Where the static CUDA runtime of this nvcc lies. nvcc is asked, because what is on the PATH may be a script.

    Raises:
        NativeBuildError: it is not there.
    """
    asked = [nvcc() or "nvcc", "--dryrun", "-x", "cu", "-c", os.devnull, "-o", os.devnull]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    folders = [Path(p) for p in re.findall(r'"-L([^"]+)"', done.stderr + done.stdout)]
    for top in re.findall(r"^#\$ TOP=(.+)$", done.stderr + done.stdout, re.M):
        folders += [Path(top) / "lib64", Path(top) / "lib"]
    for folder in folders:
        if (folder / "libcudart_static.a").exists():
            return folder.resolve()
    raise NativeBuildError(
        "nvcc has no libcudart_static.a beside it",
        hint="Install the CUDA toolkit's static runtime (cuda-cudart-dev), or build with DETC_CUDA=0.",
    )


def run_to(command: list[str], output: Path) -> None:
    """Run a compiler so that ``output`` appears whole or not at all."""
    handle, temporary = tempfile.mkstemp(suffix=output.suffix, dir=output.parent)
    os.close(handle)
    try:
        done = subprocess.run([*command, "-o", temporary], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            words = (done.stderr + done.stdout).strip()
            raise NativeBuildError(
                f"building {output.stem.rsplit('-', 1)[0]} failed", log=words, hint=_hint(words, command)
            )
        os.chmod(temporary, 0o644)
        os.replace(temporary, output)
    except OSError as error:
        raise NativeBuildError(
            f"could not run {command[0]}: {error}", hint="Is the compiler installed and executable?"
        ) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _hint(words: str, command: list[str]) -> str:
    if "unsupported GNU version" in words or "unsupported Microsoft" in words:
        return "This nvcc does not take this g++: set NVCC_CCBIN to an older one, or build with DETC_CUDA=0."
    if "Killed" in words or "out of memory" in words:
        return "The compiler ran out of memory: set DETC_BUILD_JOBS=1."
    if re.search(r"torch/.*No such file", words):
        return "torch's headers are missing: reinstall torch from a wheel."
    if "march" in words:
        return "This compiler does not know the CPU asked for: set DETC_MARCH (for example x86-64-v2)."
    if "nvcc" in command[0]:
        return "DETC_CUDA=0 builds without CUDA."
    return "The command was: " + shlex.join(command)


def march_of_this_machine() -> str:
    return os.environ.get("DETC_MARCH") or "native"


@lru_cache
def _host_flags() -> frozenset[str]:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.split(":", 1)[1].split())
    return frozenset()


def required_flags(march: str) -> tuple[str, ...]:
    """CPU features a library compiled for ``march`` may use, as /proc/cpuinfo spells them."""
    if march == "native":
        return tuple(
            sorted(
                f
                for f in _host_flags()
                if re.match(r"sse|ssse|avx|fma|f16c|bmi|abm|movbe|popcnt|gfni|vaes|vpclmul|amx|asimd|sve", f)
            )
        )
    v2 = ("popcnt", "sse4_2", "ssse3")
    v3 = (*v2, "abm", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe")
    v4 = (*v3, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")
    return {"x86-64-v2": v2, "x86-64-v3": v3, "x86-64-v4": v4}.get(march, ())


def cpu_lacks(flags: Sequence[str]) -> tuple[str, ...]:
    """Those of the features that this CPU does not have."""
    return tuple(f for f in flags if f not in _host_flags())


def _file_flags(source: Path) -> list[str]:
    first = source.read_text().split("\n", 1)[0]
    match = re.match(r"//\s*detc-flags:\s*(.*)", first)
    return shlex.split(match[1]) if match else []


def included(source: Path) -> str:
    """Hash of every header of ours that a source includes, directly or through another."""
    texts: dict[Path, bytes] = {}
    todo = [source]
    while todo:
        path = todo.pop()
        for name in re.findall(rb'^\s*#\s*include\s*"([^"]+)"', path.read_bytes(), re.M):
            header = (path.parent / name.decode()).resolve()
            if header.exists() and header not in texts:
                texts[header] = header.read_bytes()
                todo.append(header)
    return digest(*(part for path in sorted(texts) for part in (path.name.encode(), texts[path])))


def torch_folder() -> Path:
    import torch

    return Path(torch.__file__).parent


@lru_cache
def version(compiler: str) -> str:
    done = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.split("\n", 1)[0]


def digest(*parts: bytes) -> str:
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.hexdigest()[:16]
