"""What ``detc native`` does, as functions: tell what is built, and build it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from detc.nativeops import build as builder
from detc.nativeops import loader, ort_headers
from detc.nativeops.toolchain import NativeBuildError, cxx, nvcc, version


def status() -> str:
    """What is built, for which processors, from which sources; builds nothing."""
    lines = []
    for host, title in (("torch", "torch"), ("ort", "ONNX Runtime")):
        lines += [f"{title} library", *(f"  {line}" for line in _describe(host))]
    lines += ["tools"]
    compiler, cuda, headers = cxx(), nvcc(), ort_headers.find()
    lines += [f"  C++ compiler  {version(compiler) if compiler else 'none found'}"]
    lines += [f"  nvcc          {_nvcc_version(cuda) if cuda else 'none found: builds are for the CPU only'}"]
    lines += [f"  ORT headers   {headers or 'not here; the first build fetches them with apt'}"]
    lines += [f"  cache         {builder.cache_folder()}"]
    if not loader.enabled():
        lines += ["DETC_NATIVE=0: the references run, no library is loaded"]
    lines += _ops(loader.enabled() and _loads_without_a_build())
    return "\n".join(lines)


def build(force: bool = False, wheel: bool = False) -> str:
    """Build both libraries for every architecture that the compilers here can do; what was built, as text.

    Args:
        force: compile every source anew.
        wheel: for any x86-64 CPU with AVX2 rather than this one, into the package, and the wheel around it
            into ``dist/``.

    Raises:
        NativeBuildError: there is no compiler, or it failed.
    """
    march = builder.WHEEL_MARCH if wheel else None
    since = time.time() - 1 if force else 0.0  # the clock of files is coarser; both libraries share kernels
    lines = [_line(builder.build("torch", since=since, march=march))]
    built = ["torch"]
    try:
        include = [ort_headers.find_or_fetch()]
    except NativeBuildError as error:
        lines.append(f"ONNX Runtime: not built: {error.summary}. {error.hint}")
    else:
        lines.append(_line(builder.build("ort", since=since, march=march, include=include)))
        built.append("ort")
    if wheel:
        for host in built:
            builder.ship(host)
        lines.append(f"wheel: {_wheel()}")
    return "\n".join(lines)


def _line(library: builder.Library) -> str:
    return f"{library.host}: {library.path} ({_processors(library)})"


def _processors(library: builder.Library) -> str:
    cuda = " ".join(f"sm_{a}" for a in library.architectures) if library.architectures else "no CUDA"
    cpu = "this CPU" if library.march == "native" else library.march
    return f"{cpu}; {cuda}"


def _describe(host: str) -> list[str]:
    try:
        library = (builder.given() if host == "torch" else None) or builder.find(host)
    except NativeBuildError as error:
        return [error.summary]
    if library is None:
        unfit = builder.not_for_this_cpu(host)
        return [
            f"not built for these sources ({builder.source_hash(host)}); the first call builds it",
            *([unfit] if unfit else []),
        ]
    loaded = loader.loaded_library()
    here = builder.source_hash(host)
    same = "the sources here" if library.sources == here else f"others than those here, {here}"
    return [
        f"file          {library.path}",
        f"built for     {_processors(library)}",
        f"sources       {library.sources} ({same})",
        f"compiled by   {library.compiler}",
        f"in use        {'yes' if loaded and loaded.path == library.path else 'not loaded in this process'}",
    ]


def _loads_without_a_build() -> bool:
    with contextlib.suppress(NativeBuildError):
        return (builder.given() or builder.find("torch")) is not None
    return False


def _nvcc_version(path: str) -> str:
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    return next((x.strip() for x in done.stdout.splitlines() if "release" in x), path)


def _ops(load: bool) -> list[str]:
    """Every op and the devices that have a native kernel for it, once the library can be loaded without a
    build."""
    if not load or not loader.ensure_loaded("cpu"):
        return []
    import detc.nativeops.ops  # noqa: F401  (registers them)
    from detc.nativeops import registry

    names = registry.op_names()
    width = max(len(n) for n in names)
    rows = []
    for name in names:
        has = [d for d in ("cpu", "cuda") if registry.has_native_kernel(name, d)]
        rows.append(f"  {name:<{width}}  {' '.join(has) or 'reference only'}")
    return ["ops", *rows]


def _wheel() -> Path:
    """The project's wheel, tagged for this platform because there is machine code in it."""
    root = builder.ROOT.parent
    if not (root / "pyproject.toml").exists():
        raise NativeBuildError(
            "a wheel can be made from a checkout only", hint="The libraries are in the package."
        )
    import sysconfig

    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    target = root / "dist"
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        str(root),
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(target),
    ]
    with tempfile.TemporaryDirectory() as folder:
        # A build folder of its own: what an earlier build left in build/ (an older library) must not get in.
        settings = Path(folder) / "setup.cfg"
        settings.write_text(f"[build]\nbuild_base = {folder}/build\n")
        done = subprocess.run(
            [*command, f"--config-settings=--build-option=--plat-name={platform}"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "DIST_EXTRA_CONFIG": str(settings)},
        )
    if done.returncode != 0:
        raise NativeBuildError(
            "making the wheel failed", log=(done.stdout + done.stderr).strip(), hint=" ".join(command)
        )
    return max(target.glob("detc-*.whl"), key=lambda p: p.stat().st_mtime)
