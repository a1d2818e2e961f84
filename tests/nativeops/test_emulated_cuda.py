"""The CUDA kernels, run on the host thread by thread and under the sanitizers, against the CPU kernels.

It shows indices, bounds and arithmetic where there is no GPU; races and speed are for a GPU.
"""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from detc.nativeops import build

HERE = Path(__file__).parent
KERNELS = build.ROOT / "kernels"
OPS = (
    "carafe",
    "corner_pool",
    "deform_conv2d",
    "deform_roi_pool",
    "linear_assignment",
    "mask_paste",
    "masked_conv2d",
    "ms_deform_attn",
    "point_sample",
    "rle",
)


@pytest.mark.slow
def test_cuda_kernels_agree_with_cpu_kernels(tmp_path: Path) -> None:
    compiler = build.cxx()
    if compiler is None:
        pytest.skip("no C++ compiler: the CUDA kernels were not checked on the host")
    flags = [
        "-std=c++20",
        "-O1",
        "-g",
        "-march=native",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
    ]
    flags += ["-Wno-unknown-pragmas", "-fopenmp-simd", f"-I{KERNELS}"]
    emulate = ["-DDETC_EMULATE_CUDA", "-include", str(HERE / "emulated_cuda.h")]
    units = [([], KERNELS / f"{op}.cpp") for op in OPS]
    units += [([*emulate, "-x", "c++"], KERNELS / f"{op}.cu") for op in OPS]
    units += [([], KERNELS / "parallel.cpp"), (emulate, HERE / "emulated_cuda.cpp")]

    def compile_one(unit: tuple[list[str], Path]) -> str:
        options, source = unit
        target = tmp_path / f"{source.name}.o"
        done = subprocess.run(
            [compiler, *flags, *options, "-c", str(source), "-o", str(target)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return str(target)

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, units))
    program = tmp_path / "emulated_cuda"
    link = [compiler, "-fsanitize=address,undefined", *objects, "-lpthread", "-o", str(program)]
    subprocess.run(link, check=True, capture_output=True)
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("same") > 100
