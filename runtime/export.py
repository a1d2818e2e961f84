"""`detc compile`: a resolved run to a file, by its suffix, verified before it is written."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detc.dsl.diagnostics import error
from detc.runtime.export_verify import compared, image_batches, open_session

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
        clips = (
            list(image_batches(run, video, spec, images)) if verify and not program.takes_detections else []
        )
        return compile_video(program, spec, out, clips if verify else None, video)
    deploy = _deploy(program, spec, after)
    batches = list(image_batches(run, deploy, spec, images)) if verify else []
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
    except OSError as problem:
        raise error(
            "DET0712",
            f"cannot write {path}: {problem.strerror}",
            help="free some space or choose another folder with `-o`",
        ) from problem
    finally:
        part.unlink(missing_ok=True)


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
    def runner(data: bytes) -> Callable[..., Any]:
        session = open_session(data)
        names = [o.name for o in session.get_outputs()]
        feed = session.get_inputs()[0].name
        return lambda x: dict(zip(names, session.run(None, {feed: x.numpy()}), strict=True))

    def again(other: Deploy) -> Callable[..., Any]:
        return runner(_onnx_model(run, other, spec).SerializeToString())

    data = _onnx_model(run, deploy, spec).SerializeToString()
    comparison = (
        compared(batches, deploy, runner(data), again, "ONNX model", spec.precision) if batches else None
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

    extra = {"classes": json.dumps(list(run.classes)), "spec": run.text}

    def saved(module: Deploy) -> bytes:
        buffer = io.BytesIO()
        torch.export.save(to_exported(module, spec), buffer, extra_files=extra)
        return buffer.getvalue()

    def runner(data: bytes) -> Callable[..., Any]:  # what the file gives, not what was put in it
        found: Callable[..., Any] = torch.export.load(io.BytesIO(data)).module()
        return found

    data = saved(deploy)
    comparison = (
        compared(batches, deploy, runner(data), lambda other: runner(saved(other)), "exported program")
        if batches
        else None
    )
    _write(out, data)
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

    def text_of(module: Any) -> str:
        return python_source(module.inner, module, name, title, run.classes, states)

    def runner(source: str, *, whole: bool = True) -> Callable[..., Any]:
        module: torch.nn.Module = _executed(source, name, out).eval()
        module.load_state_dict(graph.state_dict(), strict=whole)
        return module

    def by_name(source: str, *, whole: bool = True) -> Callable[..., Any]:
        module = runner(source, whole=whole)
        return lambda given: module(*given.values())

    text = text_of(deploy)
    result = Compiled(out, [out])
    if images is not None:
        batches = [] if program.takes_detections else list(image_batches(run, deploy, spec, images))
        if states:
            # plain torch is slow at matching: one clip of a photo, if there are some, and one of noise
            clips = [*batches[:1], *batches[-1:]]
            result.comparison, note = check_clips(
                deploy, by_name(text), lambda other: by_name(text_of(other), whole=False), clips, out.suffix
            )
            result.notes.append(note)
        else:
            result.comparison = compared(
                batches,
                deploy,
                runner(text),
                lambda other: runner(text_of(other), whole=False),
                "Python module",
            )
    _write(out, text.encode("utf-8"))
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
