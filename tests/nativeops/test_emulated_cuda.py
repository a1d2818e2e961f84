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
PROGRAMS = {
    "emulated_cuda": (
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
    ),
    "emulated_detection": (
        "box_iou",
        "focal_loss",
        "max_iou_assign",
        "nms",
        "roi_align",
        "roi_pool",
        "roi_tables",
        "rotated_box",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_cuda_kernels_agree_with_cpu_kernels(name: str, tmp_path: Path) -> None:
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
    # Both sides without contraction, so that decisions at a threshold fall alike.
    flags += ["-DDETC_WITH_CUDA", "-ffp-contract=off", f"-I{HERE}"]
    emulate = ["-DDETC_EMULATE_CUDA", "-include", str(HERE / "emulated_cuda.h")]
    sources = [KERNELS / f"{op}{suffix}" for op in PROGRAMS[name] for suffix in (".cpp", ".cu")]
    units: list[tuple[list[str], Path]] = [([], KERNELS / "parallel.cpp"), (emulate, HERE / f"{name}.cpp")]
    units += [([*emulate, "-x", "c++"] if s.suffix == ".cu" else [], s) for s in sources if s.exists()]

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
    program = tmp_path / name
    link = [compiler, "-fsanitize=address,undefined", *objects, "-lpthread", "-o", str(program)]
    subprocess.run(link, check=True, capture_output=True)
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("same") > 100
