"""Building and loading: without a compiler, with a failing one, and what the library depends on."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from detc.nativeops import build, loader, toolchain
from tests.nativeops.op_checks import require_native

CALL = """
import sys, warnings
import detc.nativeops
assert "torch" not in sys.modules
import torch
from detc.nativeops import loader, ops
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(3):
        boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 3.9], [9, 9, 12, 12]])
        kept = ops.nms(boxes, torch.tensor([0.5, 0.9, 0.1]), 0.5)
        loss = ops.sigmoid_focal_loss(torch.zeros(2, 3, requires_grad=True), torch.ones(2, 3)).sum()
        loss.backward()
assert kept.tolist() == [1, 2], kept
ours = [w for w in caught if issubclass(w.category, loader.NativeFallbackWarning)]
print(len(ours), loader.loaded_library() is not None, str(ours[0].message) if ours else "", sep="|")
"""


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    full = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", CALL], capture_output=True, text=True, env=full, check=False)


def test_without_a_compiler_the_references_run_and_one_warning_says_so(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    done = run(PATH=str(tools), CXX="", NVCC="", CUDA_HOME="", DETC_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    warned, loaded, text = done.stdout.strip().split("|")
    assert (warned, loaded) == ("1", "False")
    assert "no C++ compiler was found" in text and "apt-get install g++" in text


def test_a_cache_that_cannot_be_written_leaves_the_references(tmp_path: Path) -> None:
    if toolchain.cxx() is None:
        pytest.skip("no C++ compiler here")
    (tmp_path / "file").write_text("")
    done = run(DETC_CACHE=str(tmp_path / "file" / "cache"), DETC_LIBRARY="")
    assert done.returncode == 0, done.stderr
    warned, loaded, text = done.stdout.strip().split("|")
    assert (warned, loaded) == ("1", "False")
    assert "could not be written" in text and "Set DETC_CACHE" in text


def test_a_library_that_does_not_load_leaves_the_references(tmp_path: Path) -> None:
    path = shipped(tmp_path, [])
    done = run(DETC_LIBRARY=str(path), DETC_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    warned, loaded, text = done.stdout.strip().split("|")
    assert (warned, loaded) == ("1", "False")
    assert f"{path} could not be loaded: " in text and "detc native build --force" in text


def test_native_can_be_turned_off(tmp_path: Path) -> None:
    done = run(DETC_NATIVE="0", DETC_CACHE=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "0|False|"
    assert not list(tmp_path.iterdir())


def test_a_failing_compiler_is_quoted_with_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("kernels", "torch_binding"):
        (tmp_path / "src" / folder).mkdir(parents=True)
    (tmp_path / "src/kernels/broken.cpp").write_text("int f() { return nonsense; }\n")
    monkeypatch.setenv("DETC_CACHE", str(tmp_path / "cache"))
    for module in (build, toolchain):
        monkeypatch.setattr(module, "ROOT", tmp_path / "src")
    if toolchain.cxx() is None:
        pytest.skip("no C++ compiler here")
    with pytest.raises(build.NativeBuildError) as raised:
        build.build("torch", architectures=())
    assert "building broken failed" in raised.value.summary
    assert "'nonsense' was not declared" in raised.value.log.replace("‘", "'").replace("’", "'")
    assert "broken.cpp" in raised.value.hint
    assert not list((tmp_path / "cache/native").glob("*.so"))
    assert not list((tmp_path / "cache/native/objects").glob("*"))


def test_objects_are_compiled_once_and_follow_their_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("kernels", "torch_binding"):
        (tmp_path / "src" / folder).mkdir(parents=True)
    first, second = tmp_path / "src/kernels/one.cpp", tmp_path / "src/kernels/two.cpp"
    first.write_text("int one() { return 1; }\n")
    second.write_text("int two() { return 2; }\n")
    monkeypatch.setenv("DETC_CACHE", str(tmp_path / "cache"))
    for module in (build, toolchain):
        monkeypatch.setattr(module, "ROOT", tmp_path / "src")
    if toolchain.cxx() is None:
        pytest.skip("no C++ compiler here")
    compiled: list[str] = []
    real = build.run_to
    monkeypatch.setattr(
        build,
        "run_to",
        lambda command, output: (compiled.append(output.stem.split("-")[0]), real(command, output))[1],
    )
    made = build.build("torch", architectures=())
    assert sorted(compiled) == ["libdetc_torch", "one", "two"]
    assert build.find("torch") == made
    compiled.clear()
    assert build.build("torch", architectures=()) == made
    assert compiled == []
    second.write_text("int two() { return 22; }\n")
    assert build.find("torch") is None
    assert build.build("torch", architectures=()).path != made.path
    assert sorted(compiled) == ["libdetc_torch", "two"]


def test_a_header_is_followed_by_what_includes_it_and_by_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / "src" / name for name in ("kernels", "torch_binding")]
    for folder in folders:
        folder.mkdir(parents=True)
    (folders[0] / "deep.h").write_text("#define DEEP 1\n")
    (folders[0] / "near.h").write_text('#pragma once\n#include "deep.h"\n')
    (folders[0] / "alone.cpp").write_text("int alone() { return 1; }\n")
    (folders[0] / "user.cpp").write_text(
        '#include <cstdint>\n  #  include "near.h"\nint user() { return DEEP; }\n'
    )
    (folders[1] / "bound.cpp").write_text('#include "../kernels/near.h"\nint bound() { return DEEP; }\n')
    monkeypatch.setenv("DETC_CACHE", str(tmp_path / "cache"))
    for module in (build, toolchain):
        monkeypatch.setattr(module, "ROOT", tmp_path / "src")
    if toolchain.cxx() is None:
        pytest.skip("no C++ compiler here")
    compiled: list[str] = []
    real = build.run_to
    monkeypatch.setattr(
        build,
        "run_to",
        lambda command, output: (compiled.append(output.stem.split("-")[0]), real(command, output))[1],
    )
    build.build("torch", architectures=())
    assert sorted(compiled) == ["alone", "bound", "libdetc_torch", "user"]
    compiled.clear()
    (folders[0] / "deep.h").write_text("#define DEEP 2\n")
    build.build("torch", architectures=())
    assert sorted(compiled) == ["bound", "libdetc_torch", "user"]


def test_both_libraries_share_the_objects_of_the_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("kernels", "torch_binding", "ort_binding"):
        (tmp_path / "src" / folder).mkdir(parents=True)
        (tmp_path / "src" / folder / "own.h").write_text(f"// {folder}\n")
        (tmp_path / "src" / folder / f"{folder}.cpp").write_text(f"int {folder}() {{ return 1; }}\n")
    monkeypatch.setenv("DETC_CACHE", str(tmp_path / "cache"))
    for module in (build, toolchain):
        monkeypatch.setattr(module, "ROOT", tmp_path / "src")
    if toolchain.cxx() is None:
        pytest.skip("no C++ compiler here")
    compiled: list[str] = []
    real = build.run_to
    monkeypatch.setattr(
        build,
        "run_to",
        lambda command, output: (compiled.append(output.stem.split("-")[0]), real(command, output))[1],
    )
    build.build("torch", architectures=())
    build.build("ort", architectures=())
    assert sorted(compiled) == sorted(
        ["kernels", "libdetc_ort", "libdetc_torch", "ort_binding", "torch_binding"]
    )
    for path in (tmp_path / "cache/native/objects").glob("*.o"):
        os.utime(path, (0, 0))  # long ago
    compiled.clear()
    since = time.time() - 1  # as `--force` has it: everything anew, and what both have once
    build.build("torch", architectures=(), since=since)
    build.build("ort", architectures=(), since=since)
    assert compiled.count("kernels") == 1 and len(compiled) == 5
    made = sorted(p.name.split("-")[0] for p in (tmp_path / "cache/native/objects").glob("*.o"))
    assert made == ["kernels", "ort_binding", "torch_binding"]


def test_an_edit_during_the_build_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("kernels", "torch_binding"):
        (tmp_path / "src" / folder).mkdir(parents=True)
    source, real = tmp_path / "src/kernels/one.cpp", build.run_to
    seen = 'extern "C" __attribute__((visibility("default"))) int one() '
    source.write_text(seen + "{ return 1; }\n")
    first: Path | None = None

    def edited_before_it_is_compiled(command: list[str], output: Path) -> None:
        nonlocal first
        if first is None:
            first = output
            source.write_text(seen + "{ return 2; }\n")
        real(command, output)

    monkeypatch.setenv("DETC_CACHE", str(tmp_path / "cache"))
    for module in (build, toolchain):
        monkeypatch.setattr(module, "ROOT", tmp_path / "src")
    if toolchain.cxx() is None:
        pytest.skip("no C++ compiler here")
    monkeypatch.setattr(build, "run_to", edited_before_it_is_compiled)
    made = build.build("torch", architectures=())
    assert first is not None and not first.exists()  # named for a text that was not what got compiled
    assert made.sources == build.source_hash("torch")
    assert ctypes.CDLL(str(made.path)).one() == 2
    assert build.find("torch") == made


def test_no_nvcc_is_said_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("DETC_CUDA", raising=False)
    monkeypatch.setattr(build, "nvcc", lambda: None)
    build._say_once.cache_clear()
    assert build.default_architectures() == () == build.default_architectures()
    assert capsys.readouterr().err.count("CPU only") == 1
    monkeypatch.setenv("DETC_CUDA", "0")
    monkeypatch.setattr(build, "nvcc", lambda: "/usr/bin/nvcc")
    assert build.default_architectures() == ()


def built_libraries() -> list[build.Library]:
    """The library in use, and every other one that lies in the cache, those with CUDA kernels too."""
    require_native()
    used = loader.loaded_library()
    assert used is not None
    others = [build._read(meta) for meta in sorted(build.cache_folder().glob("libdetc_*.json"))]
    return [used, *(x for x in others if x is not None and x.path != used.path)]


def needed_by(library: Path) -> set[str]:
    listing = subprocess.run(
        ["readelf", "-d", str(library)], capture_output=True, text=True, check=True
    ).stdout
    return {line.split("[")[1].rstrip("]") for line in listing.splitlines() if "(NEEDED)" in line}


def test_the_library_depends_on_no_cuda_and_no_python() -> None:
    if shutil.which("readelf") is None:
        pytest.skip("no readelf here")
    for library in built_libraries():
        needed = needed_by(library.path)
        if library.host == "torch":
            assert {"libtorch.so", "libtorch_cpu.so"} <= needed
        foreign = ("libtorch_cuda", "libcudart", "libcuda", "libpython", "libc10_cuda", "libgomp", "libonnx")
        assert not [n for n in needed if n.startswith(foreign)], library


def device_code(library: Path) -> set[tuple[int, int]]:
    """(kind, architecture) of the code for cards in a library: kind 1 is PTX, 2 machine code.

    It lies in containers that begin with a magic number: 16 bytes of header, then entries (kind, size of the entry's
    header, size of its payload, ..., architecture at byte 28).
    """
    data, found, at = library.read_bytes(), set(), 0
    while (at := data.find(b"\x50\xed\x55\xba", at)) >= 0:
        _, header, size = struct.unpack_from("<HHQ", data, at + 4)
        entry, end = at + header, at + header + size
        while entry < end:
            kind, _, length, payload = struct.unpack_from("<HHIQ", data, entry)
            if kind not in (1, 2) or length < 32:
                break  # the magic number was no header's
            found.add((kind, struct.unpack_from("<I", data, entry + 28)[0]))
            entry += length + payload
        at += 4
    return found


def test_the_cuda_library_has_code_for_every_card() -> None:
    with_cuda = [x for x in built_libraries() if x.architectures]
    if not with_cuda:
        pytest.skip("no library with CUDA kernels is built here: `detc native build` with nvcc makes one")
    for library in with_cuda:
        *machine, ptx = library.architectures
        wanted = {(2, int(a)) for a in machine} | {(1, int(ptx.removesuffix("+PTX")))}
        assert device_code(library.path) == wanted


def test_the_static_runtime_is_found_behind_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An nvcc on the PATH may be a wrapper that tells nothing about where CUDA lies."""
    top = tmp_path / "cuda"
    (top / "lib64").mkdir(parents=True)
    (top / "lib64/libcudart_static.a").touch()
    script = tmp_path / "nvcc"
    script.write_text(f"#!/bin/sh\necho '#$ TOP={top}/bin/..' >&2\n")
    script.chmod(0o755)
    (top / "bin").mkdir()
    monkeypatch.setenv("NVCC", str(script))
    toolchain.cudart_folder.cache_clear()
    try:
        assert toolchain.cudart_folder() == (top / "lib64").resolve()
        (top / "lib64/libcudart_static.a").unlink()
        toolchain.cudart_folder.cache_clear()
        with pytest.raises(build.NativeBuildError, match="no libcudart_static"):
            toolchain.cudart_folder()
    finally:
        toolchain.cudart_folder.cache_clear()


def test_status_builds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from detc.nativeops import cli_api

    monkeypatch.setenv("DETC_CACHE", str(tmp_path))
    text = cli_api.status()
    assert text.count("not built for these sources") == 2
    assert not list(tmp_path.rglob("*.so"))


def shipped(folder: Path, flags: list[str]) -> Path:
    """A library as a wheel brings it, for CPUs with these features."""
    path = folder / "libdetc_torch-0123.so"
    path.write_bytes(b"")
    sources = build.source_hash("torch")
    record = {"path": path.name, "host": "torch", "sources": sources, "march": build.WHEEL_MARCH}
    record |= {"cpu_flags": flags, "architectures": [], "compiler": "g++"}
    path.with_suffix(".json").write_text(json.dumps(record))
    return path


def test_a_wheels_library_is_refused_by_a_cpu_that_is_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from detc.nativeops import cli_api

    package, flags = tmp_path / "lib", list(toolchain.required_flags(build.WHEEL_MARCH))
    package.mkdir()
    path = shipped(package, flags)
    monkeypatch.setenv("DETC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DETC_LIBRARY", raising=False)
    monkeypatch.setattr(build, "PREBUILT", package)
    monkeypatch.setattr(toolchain, "_host_flags", lambda: frozenset(flags))
    found = build.find("torch")
    assert found is not None and found.path == path
    assert build.not_for_this_cpu() == ""

    monkeypatch.setattr(toolchain, "_host_flags", lambda: frozenset(flags) - {"avx2", "fma"})
    says = f"{path.name}, compiled for x86-64-v3, needs avx2, fma, which this CPU lacks"
    assert build.find("torch") is None
    assert says in cli_api.status()
    monkeypatch.setattr(toolchain, "cxx", lambda: None)  # no compiler either: both reasons are said
    with pytest.raises(build.NativeBuildError) as raised:
        build.find_or_build()
    assert raised.value.summary == f"no C++ compiler was found, and {says}"
    monkeypatch.setenv("DETC_LIBRARY", str(path))
    with pytest.raises(build.NativeBuildError, match="needs avx2, fma, which this CPU lacks"):
        build.find_or_build()


def test_what_a_wheels_library_needs_is_what_the_compiler_may_use() -> None:
    """Every feature that g++ turns on for the wheel's CPU and not for the oldest x86-64 is asked of the CPU."""
    compiler = toolchain.cxx()
    if compiler is None:
        pytest.skip("no C++ compiler here")

    def macros(march: str) -> set[str]:
        command = [compiler, f"-march={march}", "-dM", "-E", "-x", "c++", os.devnull]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"this compiler does not know {march}")
        return set(re.findall(r"^#define __([A-Z0-9_]+)__ 1$", done.stdout, re.M))

    # names of the compiler and of /proc/cpuinfo; below v2 lies what any CPU that runs torch's wheels has
    names = {"AVX2": "avx2", "BMI": "bmi1", "BMI2": "bmi2", "F16C": "f16c", "FMA": "fma", "LZCNT": "abm"}
    names |= {"MOVBE": "movbe", "POPCNT": "popcnt", "SSSE3": "ssse3", "SSE4_2": "sse4_2"}
    implied = {"AVX", "SSE3", "SSE4_1", "CRC32", "XSAVE", "LAHF_SAHF", "GCC_HAVE_SYNC_COMPARE_AND_SWAP_16"}
    more = macros(build.WHEEL_MARCH) - macros("x86-64") - implied
    more = {m for m in more if not m.startswith("GCC_") and m.lower() not in ("k8", "tune_k8")}
    assert {names[m] for m in more} == set(toolchain.required_flags(build.WHEEL_MARCH))


def detc_native(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "detc.cli.main", "native", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


def test_the_command_quotes_a_failing_compiler_and_exits_with_1(tmp_path: Path) -> None:
    script = tmp_path / "cxx"
    script.write_text("#!/bin/sh\necho 'a.cpp:1:1: error: out of luck' >&2\nexit 1\n")
    script.chmod(0o755)
    done = detc_native("build", "--force", CXX=str(script), DETC_CACHE=str(tmp_path / "cache"), DETC_CUDA="0")
    assert done.returncode == 1
    words, summary, hint = done.stderr.strip().splitlines()[-3:]
    assert words == "a.cpp:1:1: error: out of luck"
    assert summary.startswith("building ") and summary.endswith(" failed")
    assert hint.startswith(f"The command was: {script} ")
    assert "Traceback" not in done.stderr


def test_status_tells_of_the_library_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from detc.nativeops import cli_api

    monkeypatch.setattr(cli_api, "_ops", lambda load: [f"loads: {load}"])
    path = shipped(tmp_path, [])
    monkeypatch.setenv("DETC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DETC_LIBRARY", str(path))
    assert f"  file          {path}\n" in cli_api.status() and "loads: True" in cli_api.status()
    record = json.loads(path.with_suffix(".json").read_text()) | {"sources": "0123"}
    path.with_suffix(".json").write_text(json.dumps(record))
    assert f"0123 (others than those here, {build.source_hash('torch')})" in cli_api.status()
    monkeypatch.setenv("DETC_LIBRARY", str(tmp_path / "no.so"))
    text = cli_api.status()
    assert "no.so: no library with its .json beside it is there" in text and "loads: False" in text


def test_the_command_tells_what_is_there(tmp_path: Path) -> None:
    done = detc_native("status", DETC_CACHE=str(tmp_path), PATH=str(tmp_path), CXX="", NVCC="", CUDA_HOME="")
    assert done.returncode == 0, done.stderr
    assert "C++ compiler  none found" in done.stdout
    assert "nvcc          none found: builds are for the CPU only" in done.stdout
    assert build.source_hash("torch") in done.stdout
