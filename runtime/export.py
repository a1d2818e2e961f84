"""`detc compile`: a resolved run to a file, by its suffix, verified before it is written."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detc.dsl.diagnostics import error

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import fx

    from detc.compiler.backends.deploy import Deploy
    from detc.compiler.backends.verify import Comparison
    from detc.compiler.experiments.runs import ResolvedRun
    from detc.compiler.program import Program
    from detc.compiler.spec import TargetSpec

GRAPHS = (".txt", ".svg")
SUFFIXES = (".onnx", ".pt2", ".py", *GRAPHS)
REAL_IMAGES = 3
RANDOM_IMAGES = 2


class RandomWeightsWarning(UserWarning):
    """A model was compiled without weights."""


@dataclass
class Compiled:
    """What `compile_to` wrote."""

    path: Path
    files: list[Path]
    comparison: Comparison | None = None  # None: not verified
    notes: list[str] = field(default_factory=list)


def compile_to(
    run: ResolvedRun,
    out: Path,
    *,
    weights: str | Path | None = None,
    target: str | None = None,
    verify: bool = True,
    images: Sequence[Path] = (),
    after: Callable[[str, Any], None] | None = None,
) -> Compiled:
    """Compile a run to `.onnx`, `.pt2`, `.py`, `.svg` or `.txt`.

    Args:
        weights: a checkpoint; without it the weights are those of the run's `model = M(…) from "…"`, or random, and
            a `RandomWeightsWarning` says so.
        target: the name of a `target` declaration; by default the run's own.
        verify: compare with torch on real images (`images`, else the data set's validation images where they
            are there) and random ones before anything is written.
        after: called with a pass's name and the graph after each pass.

    Raises:
        DetError: DET0906 for another suffix, DET0802 for what the target cannot have, DET0803 if the
            verification fails: then no file is written.
    """
    out = Path(out)
    if out.suffix not in SUFFIXES:
        raise error(
            "DET0906",
            f"cannot compile to `{out.name}`: the suffix says to what",
            help=f"one of {', '.join(SUFFIXES)}",
        )
    if not out.parent.is_dir():
        raise error("DET0906", f"the folder {out.parent} does not exist")
    spec = run.find_target(target)
    if out.suffix in GRAPHS:
        return _graph(run, out)
    if spec.precision != "fp32" and out.suffix != ".onnx":
        raise error(
            "DET0802",
            f'precision = "{spec.precision}" is for .onnx files, not for {out.suffix}',
            spec.places.get("precision"),
            "of no use here",
            help="compile to .onnx, or choose another target",
        )
    from detc.compiler.program import build
    from detc.runtime.weights.apply import load_stated

    program = build(run, seed=run.train.seed if run.train is not None else 0)
    trained = weights is not None or load_stated(program)
    if weights is not None:
        from detc.runtime.train.checkpoint import load_weights

        load_weights(program, weights)
    elif not trained and run.model.weights:
        warnings.warn(
            f"{run.model.name} is compiled without weights: they are random",
            RandomWeightsWarning,
            stacklevel=2,
        )
    program.model.eval()
    if out.suffix == ".py":
        return _python(program, spec, out, images if verify else None, trained)
    if run.model.states:
        from detc.runtime.export_video import compile_video, video_module

        video: Any = video_module(program, spec, after)
        clips = list(_batches(run, video, spec, images)) if verify and not program.takes_detections else []
        return compile_video(program, spec, out, clips if verify else None, video)
    deploy = _deploy(program, spec, after)
    batches = list(_batches(run, deploy, spec, images)) if verify else []
    return (_onnx if out.suffix == ".onnx" else _exported)(run, deploy, spec, out, batches)


def _deploy(
    program: Program,
    spec: TargetSpec,
    after: Callable[[str, Any], None] | None,
    inner: fx.GraphModule | None = None,
) -> Deploy:
    """inner: another graph than the optimised one."""
    from detc.compiler.backends.deploy import Deploy, preprocessing

    if inner is None:
        inner = program.optimised(after)
    return Deploy(inner, preprocessing(program.run, spec), program.classes, spec.layout).eval()


def _graph(run: ResolvedRun, out: Path) -> Compiled:
    if out.suffix == ".txt":
        from detc.compiler.text import model_text

        text = model_text(run.model)
    else:
        from detc.compiler.svg import model_svg

        text = model_svg(run.model)
    _write(out, text.encode("utf-8"))
    return Compiled(out, [out])


def _write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _batches(
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
        return image if spec.input == "uint8" else image.float()

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
    from detc.dsl.diagnostics import DetError

    for split in ("val", "train"):
        try:
            records = run.data.source.open(split, list(run.data.classes))
        except (DetError, OSError):
            continue
        found = [Path(r.path) for r in records.records[: REAL_IMAGES * 4]]
        return [p for p in found if p.is_file()][:REAL_IMAGES]
    return []


def _compare(
    batches: list[tuple[str, torch.Tensor]],
    expected: Callable[..., Any],
    found: Callable[..., Any],
    what: str,
    precision: str = "fp32",
) -> Comparison | None:
    import torch

    from detc.compiler.backends.verify import EXACT, HALF, Comparison, compare

    if not batches:
        return None
    total = Comparison()
    tolerance = HALF if precision == "fp16" else EXACT
    with torch.no_grad():
        for name, image in batches:
            total.merge(compare(expected(image), found(image), name, tolerance))
            if total.problem is not None:
                raise error(
                    "DET0803",
                    f"the {what} does not agree with torch: {total.problem}",
                    help="no file was written; --no-verify writes it all the same",
                )
    return total


def export_onnx(program: Program, spec: TargetSpec) -> onnx.ModelProto:
    """The ONNX model of a program as it stands: checked and simplified, not compared with torch."""
    return _onnx_model(program.run, _deploy(program, spec, None), spec)


def _onnx_model(run: ResolvedRun, deploy: Deploy, spec: TargetSpec) -> onnx.ModelProto:
    import torch

    from detc import __version__
    from detc.compiler.backends.exported import example_input, to_exported
    from detc.compiler.backends.onnx import metadata_of, to_onnx

    exported = to_exported(deploy, spec)
    with torch.no_grad():
        outputs = list(deploy(example_input(deploy, spec)))
    return to_onnx(exported, spec, outputs, metadata_of(run.classes, run.text, deploy.pre, __version__))


def _onnx(
    run: ResolvedRun, deploy: Deploy, spec: TargetSpec, out: Path, batches: list[tuple[str, torch.Tensor]]
) -> Compiled:
    model = _onnx_model(run, deploy, spec)
    data = model.SerializeToString()
    comparison = None
    if batches:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        names = [o.name for o in session.get_outputs()]
        feed = session.get_inputs()[0].name
        comparison = _compare(
            batches,
            deploy,
            lambda x: dict(zip(names, session.run(None, {feed: x.numpy()}), strict=True)),
            "ONNX model",
            spec.precision,
        )
    _write(out, data)
    return Compiled(out, [out], comparison)


def _exported(
    run: ResolvedRun, deploy: Deploy, spec: TargetSpec, out: Path, batches: list[tuple[str, torch.Tensor]]
) -> Compiled:
    import io
    import json

    import torch

    from detc.compiler.backends.exported import to_exported

    buffer = io.BytesIO()
    extra = {"classes": json.dumps(list(run.classes)), "spec": run.text}
    torch.export.save(to_exported(deploy, spec), buffer, extra_files=extra)
    comparison = None
    if batches:  # what the file gives, not what was put in it
        again = torch.export.load(io.BytesIO(buffer.getvalue())).module()
        comparison = _compare(batches, deploy, again, "exported program")
    _write(out, buffer.getvalue())
    return Compiled(out, [out], comparison)


def _python(
    program: Program, spec: TargetSpec, out: Path, images: Sequence[Path] | None, trained: bool
) -> Compiled:
    """Compile to `.py`, with the weights beside it if there are any.

    Args:
        images: what to verify on; None: do not verify.
    """
    import io

    import torch

    from detc.compiler.backends.python import python_source
    from detc.runtime.export_video import check_clips, video_module

    run, states = program.run, program.spec.states
    graph = program.infer_graph.eval()
    module_of = video_module if states else _deploy
    deploy: Any = module_of(program, spec, None, graph)
    name = "".join(c for c in run.model.name if c.isalnum())
    title = f"{run.model.name}, {len(run.classes)} classes"
    source = python_source(graph, deploy, name, title, run.classes, states)
    result = Compiled(out, [out])
    if images is not None:
        module = _executed(source, name, out).eval()
        module.load_state_dict(graph.state_dict())
        batches = [] if program.takes_detections else list(_batches(run, deploy, spec, images))
        if states:
            # plain torch is slow at matching: one clip of a photo, if there are some, and one of noise
            clips = [*batches[:1], *batches[-1:]]
            result.comparison, note = check_clips(
                deploy, lambda given: module(*given.values()), clips, out.suffix
            )
            result.notes.append(note)
        else:
            result.comparison = _compare(batches, deploy, module, "Python module")
    _write(out, source.encode("utf-8"))
    if trained:
        buffer = io.BytesIO()
        torch.save(graph.state_dict(), buffer)
        weights = out.with_suffix(".weights.pt")
        _write(weights, buffer.getvalue())
        result.files.append(weights)
    return result


def _executed(source: str, name: str, out: Path) -> Any:
    """An instance of the module that the source defines: our own text, run to see that it does what it says."""
    import sys
    import types

    scope = types.ModuleType("detc_export")
    sys.modules[scope.__name__] = scope  # dataclasses look their module up
    try:
        exec(compile(source, str(out), "exec"), vars(scope))
        return vars(scope)[name]()
    finally:
        del sys.modules[scope.__name__]
