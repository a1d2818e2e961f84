"""What an export is verified on, and how it is compared with torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from detc.dsl.diagnostics import DetError, error

if TYPE_CHECKING:
    import torch

    from detc.compiler.backends.deploy import Deploy
    from detc.compiler.backends.verify import Comparison
    from detc.compiler.experiments.runs import ResolvedRun
    from detc.compiler.spec import TargetSpec

    Module = TypeVar("Module", bound=Deploy)

REAL_IMAGES = 3
RANDOM_IMAGES = 2


def image_batches(
    run: ResolvedRun, deploy: Deploy, spec: TargetSpec, images: Sequence[Path]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Named image batches to verify on: real ones first, then random ones of other sizes."""
    import torch

    from detc.runtime.images import read_image

    def shaped(image: torch.Tensor) -> torch.Tensor:
        low, high = spec.batch or (1, 8)
        image = image.expand(max(low, 1), *image.shape[1:]) if low > 1 else image
        if deploy.pre.box is None:
            h, w = (max(64, n // 64 * 64) for n in image.shape[-2:])
            image = image[..., :h, :w]
        image = image.permute(0, 2, 3, 1).contiguous() if spec.layout == "nhwc" else image.contiguous()
        del high
        return image if spec.pixels == "uint8" else image.float()

    paths = list(images) or _validation_images(run)
    for path in paths[:REAL_IMAGES]:
        pixels = torch.from_numpy(read_image(path).copy()).permute(2, 0, 1)[None]
        yield str(path), shaped(pixels)
    generator = torch.Generator().manual_seed(1)
    height, width = deploy.pre.box or (256, 320)
    low, high = spec.batch or (1, 2)
    for i in range(RANDOM_IMAGES):
        h, w = (height, width) if i == 0 else (max(32, height * 3 // 4), max(32, width * 5 // 8))
        count = max(low, min(high, 2))
        yield (
            f"random image {h}x{w}",
            shaped(torch.randint(0, 256, (count, 3, h, w), generator=generator, dtype=torch.uint8)),
        )


def _validation_images(run: ResolvedRun) -> list[Path]:
    if run.data is None:
        return []
    for split in ("val", "train"):
        try:
            records = run.data.source.open(split, list(run.data.classes))
        except (DetError, OSError):
            continue
        found = [Path(r.path) for r in records.records[: REAL_IMAGES * 4]]
        return [p for p in found if p.is_file()][:REAL_IMAGES]
    return []


def compared(
    batches: list[tuple[str, torch.Tensor]],
    deploy: Deploy,
    made: Callable[..., Any],
    again: Callable[[Deploy], Callable[..., Any]],
    what: str,
    precision: str = "fp32",
) -> Comparison:
    """Compare with torch on `batches`; where nothing is detected, what boxes are selected from.

    Args:
        made: what was compiled from `deploy`.
        again: compiles another module the same way.

    Raises:
        DetError: DET0803 where they do not agree.
    """
    import torch

    from detc.compiler.backends.verify import EXACT, HALF, Comparison, compare

    total = Comparison()
    tolerance = HALF if precision == "fp16" else EXACT
    with torch.no_grad():
        for name, image in batches:
            _take(total, compare(deploy(image), made(image), name, tolerance), what)
    if total.detections == 0:
        given = [(name, {"image": image}) for name, image in batches]

        def by_name(other: Deploy) -> Callable[..., Any]:
            runner = again(other)
            return lambda inputs: runner(inputs["image"])

        compare_sources(total, deploy, by_name, given, what, half=precision == "fp16")
    return total


def compare_sources(
    total: Comparison,
    deploy: Module,
    again: Callable[[Module], Callable[..., Any]],
    given: list[tuple[str, dict[str, Any]]],
    what: str,
    *,
    half: bool = False,
) -> None:
    """Where nothing is detected: compare what boxes are selected from, on named inputs; added to `total`.

    Raises:
        DetError: DET0803 where they do not agree.
    """
    import torch

    from detc.compiler.backends.witness import agree, witnessed

    with torch.no_grad():
        inner = witnessed(deploy.inner, deploy, *given[0][1].values())
        if inner is None:
            return
        probe = copy(deploy)  # shares everything but the graph inside
        probe._modules = {**deploy._modules, "inner": inner.eval()}
        made = again(probe)
        for name, inputs in given:
            _take(total, agree(probe(*inputs.values()), made(inputs), name, half), what)


def _take(total: Comparison, one: Comparison, what: str) -> None:
    total.merge(one)
    if total.problem is not None:
        raise disagreement(what, total.problem)


def open_session(data: bytes | str) -> Any:
    """An ONNX Runtime session on the CPU.

    Raises:
        DetError: DET0803 if ONNX Runtime does not take the model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as problem:  # its exceptions have no common class of their own
        words = str(problem).strip().splitlines()[0]
        raise error(
            "DET0803",
            f"ONNX Runtime {onnxruntime.__version__} does not take the model: {words}",
            help="no file was written; --no-verify writes it all the same",
        ) from problem


def disagreement(what: str, problem: str) -> DetError:
    """DET0803."""
    return error(
        "DET0803",
        f"the {what} does not agree with torch: {problem}",
        help="no file was written; --no-verify writes it all the same",
    )
