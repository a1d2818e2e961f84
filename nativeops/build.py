"""Builds the native libraries with plain compiler command lines: no ninja, no setuptools extension.

Every translation unit is an object in the cache, named by the hash of what went into it (its text, the
headers, the flags), so a change in one op compiles that op only. The library is named by the hash of its
objects. Sources do not include torch's version: the stable ABI makes one library serve every torch from 2.10
on.

Environment: ``DETC_CUDA=0`` (no CUDA) or ``1`` (CUDA also in a build that happens on first need),
    ``DETC_MARCH`` (default: native),
``DETC_BUILD_JOBS``, ``DETC_CACHE``, ``DETC_SANITIZE=address,undefined``, ``CXX``, ``NVCC``.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).parent
PREBUILT = ROOT / "lib"
TORCH_TARGET_VERSION = "0x020a000000000000"  # LibTorch stable ABI of torch 2.10
WHEEL_MARCH = "x86-64-v3"
MACHINE_CODE = ("75", "80", "86", "89", "90")  # the last one also as PTX, for cards to come


class NativeBuildError(RuntimeError):
    """A build that could not be done: what failed, the compiler's own words, and the one line that helps."""

    def __init__(self, summary: str, *, log: str = "", hint: str = "") -> None:
        super().__init__("\n".join(part for part in (log, summary, hint) if part))
        self.summary, self.log, self.hint = summary, log, hint


@dataclass(frozen=True)
class Library:
    """A built shared library and what it was built from (the JSON file beside it)."""

    path: Path
    host: str  # "torch" or "ort"
    sources: str  # hash of the sources
    march: str
    cpu_flags: tuple[str, ...]  # CPU features without which it must not be loaded
    architectures: tuple[str, ...]  # CUDA: ("75", ..., "90", "90+PTX"), empty for CPU only
    compiler: str


@dataclass(frozen=True)
class _Unit:
    source: Path
    command: tuple[str, ...]  # without the output

    def key(self, headers: str) -> str:
        text = self.source.read_bytes()
        return _digest(self.source.name.encode(), text, headers.encode(), "\0".join(self.command).encode())


def find_or_build(need_cuda: bool = False) -> Library:
    """The torch library for these sources: one shipped in the wheel, one in the cache, or a new one.

    A build on first need is for this machine: CUDA only when a CUDA tensor asks for it, and then for the
        cards that are here.
    """
    found = find("torch", need_cuda) or find("torch", False)
    if found is not None and (found.architectures or not _wants_cuda_now(need_cuda)):
        return found
    return build("torch", architectures=_local_architectures() if _wants_cuda_now(need_cuda) else ())


def find(host: str = "torch", need_cuda: bool = False) -> Library | None:
    """The best library that is already built for these sources and can run on this CPU, or None."""
    wanted, marches = source_hash(host), {_march(), WHEEL_MARCH}
    candidates = []
    for folder in (cache_folder(), PREBUILT):
        for meta in sorted(folder.glob(f"libdetc_{host}*.json")):
            library = _read(meta)
            if (
                library
                and library.sources == wanted
                and library.march in marches
                and _cpu_has(library.cpu_flags)
            ):
                candidates.append(library)
    candidates = [c for c in candidates if c.architectures or not need_cuda]
    return max(candidates, key=lambda c: (len(c.architectures), c.march == _march()), default=None)


def build(
    host: str = "torch",
    *,
    architectures: Sequence[str] | None = None,
    force: bool = False,
    march: str | None = None,
    include: Sequence[Path] = (),
) -> Library:
    """Compile and link one library into the cache.

    Args:
        host: "torch" or "ort".
        architectures: CUDA compute capabilities ("90"); empty for CPU only; None for all of ``MACHINE_CODE``
            where nvcc is found and ``DETC_CUDA`` is not 0.
        force: compile every object anew.
        march: the CPU to compile for; None for ``DETC_MARCH`` or this machine.
        include: further header folders (ONNX Runtime's).

    Raises:
        NativeBuildError: no compiler, or it failed.
    """
    march = march or _march()
    if architectures is None:
        architectures = default_architectures()
    sources = source_hash(host)  # before compiling: an edit during the build must not pass for built
    units = _units(host, tuple(architectures), march, tuple(include))
    with _locked(cache_folder()):
        return _build_locked(host, units, tuple(architectures), march, force, sources)


def default_architectures() -> tuple[str, ...]:
    """What an explicit build compiles for: every architecture where nvcc is found, nothing (said once) where
    it is not."""
    if os.environ.get("DETC_CUDA") == "0":
        return ()
    if nvcc() is None:
        _say_once("no nvcc on the PATH: building for the CPU only")
        return ()
    return MACHINE_CODE


def source_hash(host: str) -> str:
    """Hash of every kernel, binding and header of a host's library."""
    files = [p for folder in ("kernels", f"{host}_binding") for p in sorted((ROOT / folder).glob("*"))]
    files = [p for p in files if p.suffix in (".h", ".cpp", ".cu")]
    return _digest(*(part for p in files for part in (p.name.encode(), p.read_bytes())))


def cache_folder() -> Path:
    """``$DETC_CACHE/native``, by default ``~/.cache/detc/native``."""
    base = (
        os.environ.get("DETC_CACHE")
        or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "detc"
    )
    return Path(base) / "native"


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


def _units(host: str, architectures: tuple[str, ...], march: str, include: tuple[Path, ...]) -> list[_Unit]:
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
    if architectures:
        common.append("-DDETC_WITH_CUDA")
    includes = [f"-isystem{folder}" for folder in include]
    if host == "torch":
        common_binding = [
            f"-DTORCH_TARGET_VERSION={TORCH_TARGET_VERSION}",
            f"-isystem{_torch_folder() / 'include'}",
        ]
        if architectures:
            common_binding.append("-DUSE_CUDA")
    else:
        common_binding = []
    units = []
    for folder, flags in (("kernels", []), (f"{host}_binding", [*common_binding, *includes])):
        for source in sorted((ROOT / folder).glob("*.cpp")):
            units.append(_Unit(source, (compiler, *common, *flags, *_file_flags(source), "-c", str(source))))
    if architectures:
        units += _cuda_units(architectures)
    return units


def _cuda_units(architectures: tuple[str, ...]) -> list[_Unit]:
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
    return [_Unit(source, (compiler, *flags, *_file_flags(source), "-c", str(source))) for source in sources]


def _build_locked(
    host: str, units: list[_Unit], architectures: tuple[str, ...], march: str, force: bool, sources: str
) -> Library:
    objects_folder = cache_folder() / "objects"
    objects_folder.mkdir(parents=True, exist_ok=True)
    headers = _headers_hash(host)
    objects = {unit: objects_folder / f"{unit.source.stem}-{unit.key(headers)}.o" for unit in units}
    key = _digest(*(path.name.encode() for path in objects.values()))
    library = cache_folder() / f"libdetc_{host}-{key}.so"
    meta = library.with_suffix(".json")
    todo = [unit for unit in units if force or not objects[unit].exists()]
    if not todo and meta.exists() and library.exists():
        found = _read(meta)
        if found is not None:
            return found
    _compile_all(todo, objects)
    command = _link_command(host, list(objects.values()), bool(architectures))
    _progress(f"linking {library.name}", last=True)
    _run_to(command, library)
    record = Library(
        path=library,
        host=host,
        sources=sources,
        march=march,
        cpu_flags=_required_flags(march),
        architectures=(*architectures, f"{architectures[-1]}+PTX") if architectures else (),
        compiler=_version(cxx() or ""),
    )
    meta.write_text(json.dumps({**asdict(record), "path": library.name}, indent=1))
    return record


def _compile_all(todo: list[_Unit], objects: dict[_Unit, Path]) -> None:
    jobs = int(os.environ.get("DETC_BUILD_JOBS") or min(2, os.cpu_count() or 1))
    with ThreadPoolExecutor(jobs) as pool:
        # Long ones first: nvcc takes longest.
        todo = sorted(todo, key=lambda unit: unit.source.suffix != ".cu")
        futures = {pool.submit(_run_to, [*unit.command], objects[unit]): unit for unit in todo}
        for done, future in enumerate(as_completed(futures), 1):
            try:
                future.result()
            except NativeBuildError:
                for other in futures:
                    other.cancel()
                raise
            source = futures[future].source
            _progress(f"[{done}/{len(todo)}] {source.parent.name}/{source.name}")


def _link_command(host: str, objects: list[Path], cuda: bool) -> list[str]:
    sanitize = [f"-fsanitize={s}" for s in os.environ.get("DETC_SANITIZE", "").split(",") if s]
    command = [cxx() or "g++", "-shared", *sanitize, *map(str, objects)]
    if host == "torch":
        # torch loads its libraries RTLD_LOCAL, so ours must name them (DT_NEEDED) although no symbol may be
        # needed at link time.
        command += [
            "-Wl,--no-as-needed",
            f"-L{_torch_folder() / 'lib'}",
            "-ltorch",
            "-ltorch_cpu",
            "-lc10",
            "-Wl,--as-needed",
        ]
    if cuda:
        folder = Path(nvcc() or "").resolve().parent.parent
        lib = next(
            (
                p
                for p in (folder / "lib64", folder / "targets/x86_64-linux/lib")
                if (p / "libcudart_static.a").exists()
            ),
            folder,
        )
        command += [f"-L{lib}", "-lcudart_static", "-ldl", "-lrt"]
    return [*command, "-lpthread", "-Wl,--exclude-libs,ALL"]


def _run_to(command: list[str], output: Path) -> None:
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


def _wants_cuda_now(need_cuda: bool) -> bool:
    choice = os.environ.get("DETC_CUDA")
    return choice != "0" and nvcc() is not None and (need_cuda or choice == "1")


def _local_architectures() -> tuple[str, ...]:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = {"".join(map(str, torch.cuda.get_device_capability(i))) for i in range(count)}
    return tuple(sorted(found, key=int)) or MACHINE_CODE


def _march() -> str:
    return os.environ.get("DETC_MARCH") or "native"


@lru_cache
def _host_flags() -> frozenset[str]:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.split(":", 1)[1].split())
    return frozenset()


def _required_flags(march: str) -> tuple[str, ...]:
    """CPU features a library compiled for ``march`` may use, as /proc/cpuinfo spells them."""
    if march == "native":
        return tuple(
            sorted(f for f in _host_flags() if re.match(r"sse|ssse|avx|fma|f16c|bmi|amx|asimd|sve", f))
        )
    return {
        "x86-64-v2": ("sse4_2",),
        "x86-64-v3": ("avx2", "bmi2", "f16c", "fma"),
        "x86-64-v4": ("avx2", "avx512f", "fma"),
    }.get(march, ())


def _cpu_has(flags: Sequence[str]) -> bool:
    return set(flags) <= _host_flags()


def _read(meta: Path) -> Library | None:
    try:
        record = json.loads(meta.read_text())
        library = Library(
            **{
                **record,
                "path": meta.parent / record["path"],
                "cpu_flags": tuple(record["cpu_flags"]),
                "architectures": tuple(record["architectures"]),
            }
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return library if library.path.exists() else None


def _headers_hash(host: str) -> str:
    files = [p for folder in ("kernels", f"{host}_binding") for p in sorted((ROOT / folder).glob("*.h"))]
    return _digest(*(part for p in files for part in (p.name.encode(), p.read_bytes())))


def _file_flags(source: Path) -> list[str]:
    first = source.read_text().split("\n", 1)[0]
    match = re.match(r"//\s*detc-flags:\s*(.*)", first)
    return shlex.split(match[1]) if match else []


def _torch_folder() -> Path:
    import torch

    return Path(torch.__file__).parent


@lru_cache
def _version(compiler: str) -> str:
    done = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.split("\n", 1)[0]


def _digest(*parts: bytes) -> str:
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.hexdigest()[:16]


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One build at a time a cache: the other processes of a torchrun job wait for the first one's result."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _progress(text: str, last: bool = False) -> None:
    stream = sys.stderr
    if stream.isatty():
        stream.write(f"\r\033[Kdetc: building native ops: {text}" + ("\n" if last else ""))
    else:
        stream.write(f"detc: building native ops: {text}\n")
    stream.flush()


@lru_cache
def _say_once(text: str) -> None:
    print(f"detc: {text}", file=sys.stderr)
