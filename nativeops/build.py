"""Builds the native libraries with plain compiler command lines: no ninja, no setuptools extension.

Every translation unit is an object in the cache, named by the hash of what went into it (its text, the
headers that it includes, the flags), so a change in one op compiles that op only. The library is named by the hash of its
objects. Sources do not include torch's version: the stable ABI makes one library serve every torch from 2.10
on.

Environment: ``DETC_CUDA=0`` (no CUDA) or ``1`` (CUDA also in a build that happens on first need),
``DETC_BUILD_JOBS``, ``DETC_CACHE``; ``DETC_LIBRARY`` (use this file, whatever the sources say); and what
``toolchain.py`` reads.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from detc.nativeops.toolchain import (
    ROOT,
    NativeBuildError,
    Unit,
    cpu_lacks,
    cxx,
    digest,
    included,
    link_command,
    march_of_this_machine,
    nvcc,
    required_flags,
    run_to,
    units,
    version,
)

__all__ = [
    "Library",
    "NativeBuildError",
    "build",
    "cache_folder",
    "find",
    "find_or_build",
    "ship",
    "source_hash",
]

PREBUILT = ROOT / "lib"
WHEEL_MARCH = "x86-64-v3"
MACHINE_CODE = ("75", "80", "86", "89", "90")  # the last one also as PTX, for cards to come


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


def find_or_build(need_cuda: bool = False) -> Library:
    """The torch library for these sources: one shipped in the wheel, one in the cache, or a new one.

    A build on first need is for this machine: with CUDA only where there are cards, and then for those.
    """
    chosen = given()
    if chosen is not None:
        return chosen
    found = find("torch", need_cuda) or find("torch", False)
    if found is not None and (found.architectures or not _wants_cuda_now(need_cuda)):
        return found
    return build_for_here("torch", cuda=_wants_cuda_now(need_cuda))


def given() -> Library | None:
    """The torch library that ``DETC_LIBRARY`` names, None where it is not set.

    Raises:
        NativeBuildError: there is none, or not for this CPU.
    """
    path = os.environ.get("DETC_LIBRARY")
    if not path:
        return None
    chosen = _read(Path(path).with_suffix(".json"))
    if chosen is None:
        raise NativeBuildError(f"DETC_LIBRARY={path}: no library with its .json beside it is there")
    if cpu_lacks(chosen.cpu_flags):
        raise NativeBuildError(f"DETC_LIBRARY={path}: {_needs(chosen)}")
    return chosen


def build_for_here(host: str, cuda: bool, include: Sequence[Path] = ()) -> Library:
    """Build for this machine: its CPU and, with ``cuda``, the cards that are here.

    Raises:
        NativeBuildError: there is no compiler, or it failed.
    """
    try:
        return build(host, architectures=_local_architectures() if cuda else (), include=include)
    except NativeBuildError as error:
        unfit = not_for_this_cpu(host)
        if not unfit:
            raise
        raise NativeBuildError(f"{error.summary}, and {unfit}", log=error.log, hint=error.hint) from error


def find(host: str = "torch", need_cuda: bool = False) -> Library | None:
    """The best library that is already built for these sources and can run on this CPU, or None."""
    candidates = [c for c in _built(host) if not cpu_lacks(c.cpu_flags)]
    candidates = [c for c in candidates if c.architectures or not need_cuda]
    cuda = need_cuda or cuda_is_here(host)
    return max(
        candidates,
        key=lambda c: (cuda * len(c.architectures), c.march == march_of_this_machine()),
        default=None,
    )


def not_for_this_cpu(host: str = "torch") -> str:
    """What the library that a wheel brought (or the cache holds) needs of a CPU and this one lacks; empty where
    nothing stands in the way."""
    return next((_needs(library) for library in _built(host) if cpu_lacks(library.cpu_flags)), "")


def _needs(library: Library) -> str:
    lacks = ", ".join(cpu_lacks(library.cpu_flags))
    return f"{library.path.name}, compiled for {library.march}, needs {lacks}, which this CPU lacks"


def _built(host: str) -> list[Library]:
    """What is built for these sources, here or in the package."""
    wanted, marches = source_hash(host), {march_of_this_machine(), WHEEL_MARCH}
    read = [
        _read(meta)
        for folder in (cache_folder(), PREBUILT)
        for meta in sorted(folder.glob(f"libdetc_{host}*.json"))
    ]
    return [x for x in read if x is not None and x.sources == wanted and x.march in marches]


def build(
    host: str = "torch",
    *,
    architectures: Sequence[str] | None = None,
    since: float = 0.0,
    march: str | None = None,
    include: Sequence[Path] = (),
) -> Library:
    """Compile and link one library into the cache.

    Args:
        host: "torch" or "ort".
        architectures: CUDA compute capabilities ("90"); empty for CPU only; None for all of ``MACHINE_CODE``
            where nvcc is found and ``DETC_CUDA`` is not 0.
        since: compile anew every object that was made before this time (of ``time.time()``).
        march: the CPU to compile for; None for ``DETC_MARCH`` or this machine.
        include: further header folders (ONNX Runtime's).

    Raises:
        NativeBuildError: no compiler, or it failed, or the cache cannot be written to.
    """
    march = march or march_of_this_machine()
    if architectures is None:
        architectures = default_architectures()
    try:
        with _locked(cache_folder()):
            for _ in range(5):  # an edit during the build must not pass for built: it is built again
                sources = source_hash(host)
                to_compile = units(host, tuple(architectures), march, tuple(include))
                library = _build_locked(host, to_compile, tuple(architectures), march, since, sources)
                if library is not None:
                    return library
        raise NativeBuildError("the sources were edited while they were compiled, five times in a row")
    except OSError as error:  # a home that cannot be written to, a full disk
        raise NativeBuildError(
            f"the native library could not be written: {error}",
            hint="Set DETC_CACHE to a folder that can be written to and has room.",
        ) from error


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
    return digest(*(part for p in files for part in (p.name.encode(), p.read_bytes())))


def cache_folder() -> Path:
    """``$DETC_CACHE/native``, by default ``~/.cache/detc/native``."""
    base = (
        os.environ.get("DETC_CACHE")
        or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "detc"
    )
    return Path(base) / "native"


def ship(host: str) -> Library:
    """Copy the portable library for these sources into the package (``nativeops/lib``), where a wheel takes
    it up.

    Raises:
        NativeBuildError: it has not been built.
    """
    found = [
        library
        for meta in cache_folder().glob(f"libdetc_{host}*.json")
        if (library := _read(meta)) and library.sources == source_hash(host) and library.march == WHEEL_MARCH
    ]
    if not found:
        raise NativeBuildError(f"there is no {host} library for {WHEEL_MARCH}", hint="Build it first.")
    best = max(found, key=lambda library: len(library.architectures))
    PREBUILT.mkdir(exist_ok=True)
    for old in PREBUILT.glob(f"libdetc_{host}*"):
        old.unlink()
    for path in (best.path, best.path.with_suffix(".json")):
        shutil.copyfile(path, PREBUILT / path.name)
    return best


def _build_locked(
    host: str, units: list[Unit], architectures: tuple[str, ...], march: str, since: float, sources: str
) -> Library | None:
    """None if the sources were edited meanwhile: then nothing that was compiled from them is kept."""
    objects_folder = cache_folder() / "objects"
    objects_folder.mkdir(parents=True, exist_ok=True)
    objects = {unit: objects_folder / f"{unit.source.stem}-{_key(unit, march)}.o" for unit in units}
    key = digest(*(path.name.encode() for path in objects.values()))
    library = cache_folder() / f"libdetc_{host}-{key}.so"
    meta = library.with_suffix(".json")
    todo = [unit for unit in units if not _made_since(objects[unit], since)]
    if not todo and meta.exists() and library.exists():
        found = _read(meta)
        if found is not None:
            return found
    _compile_all(todo, objects)
    edited = [unit for unit in todo if objects[unit].stem != f"{unit.source.stem}-{_key(unit, march)}"]
    if edited:
        for unit in edited:
            objects[unit].unlink()
        _progress(f"{edited[0].source.name} was edited meanwhile: again", last=True)
        return None
    command = link_command(host, list(objects.values()), bool(architectures))
    _progress(f"linking {library.name}", last=True)
    run_to(command, library)
    record = Library(
        path=library,
        host=host,
        sources=sources,
        march=march,
        cpu_flags=required_flags(march),
        architectures=(*architectures, f"{architectures[-1]}+PTX") if architectures else (),
        compiler=version(cxx() or ""),
    )
    meta.write_text(json.dumps({**asdict(record), "path": library.name}, indent=1))
    return record


def _made_since(path: Path, since: float) -> bool:
    return path.exists() and path.stat().st_mtime >= since


def _key(unit: Unit, march: str) -> str:
    # "native" is another CPU elsewhere; nvcc is not told of it
    cpu = "" if unit.source.suffix == ".cu" else " ".join(required_flags(march))
    return unit.key(digest(included(unit.source).encode(), cpu.encode()))


def _compile_all(todo: list[Unit], objects: dict[Unit, Path]) -> None:
    jobs = int(os.environ.get("DETC_BUILD_JOBS") or min(2, os.cpu_count() or 1))
    with ThreadPoolExecutor(jobs) as pool:
        # Long ones first: nvcc takes longest.
        todo = sorted(todo, key=lambda unit: unit.source.suffix != ".cu")
        futures = {pool.submit(run_to, [*unit.command], objects[unit]): unit for unit in todo}
        for done, future in enumerate(as_completed(futures), 1):
            try:
                future.result()
            except NativeBuildError:
                for other in futures:
                    other.cancel()
                raise
            source = futures[future].source
            _progress(f"[{done}/{len(todo)}] {source.parent.name}/{source.name}")


def _wants_cuda_now(need_cuda: bool) -> bool:
    """Whether a build on first need has CUDA in it: a library cannot be exchanged for a fuller one later."""
    choice = os.environ.get("DETC_CUDA")
    return choice != "0" and nvcc() is not None and (need_cuda or choice == "1" or cuda_is_here("torch"))


def cuda_is_here(host: str) -> bool:
    """Whether this host (torch or ONNX Runtime) could run CUDA kernels now."""
    if host == "ort":
        import onnxruntime

        return "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    import torch

    return torch.cuda.is_available()


def _local_architectures() -> tuple[str, ...]:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = {"".join(map(str, torch.cuda.get_device_capability(i))) for i in range(count)}
    return tuple(sorted(found, key=int)) or MACHINE_CODE


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
