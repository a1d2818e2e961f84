"""`detc compile` of models that carry state: the state is an input and an output, verified over several frames."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detc.runtime.export_verify import disagreement, open_session

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import Tensor, fx

    from detc.compiler.backends.verify import Comparison
    from detc.compiler.backends.video import TrackDeploy, VideoDeploy
    from detc.compiler.program import Program
    from detc.compiler.spec import TargetSpec
    from detc.runtime.export import Compiled

FRAMES = 4  # of each image, shifted a little from one to the next
STEP = (3, 5)  # pixels down and to the right
Frames = list[dict[str, Any]]  # inputs of `forward` but the state
Runner = Callable[[Mapping[str, Any]], dict[str, Any]]  # nested inputs by name -> nested outputs


def compile_video(
    program: Program,
    spec: TargetSpec,
    out: Path,
    clips: list[tuple[str, Tensor]] | None,
    deploy: VideoDeploy | TrackDeploy,
) -> Compiled:
    """Compile to `.onnx` or `.pt2`.

    Args:
        clips: named image batches to verify on, each moved about to make a clip; None: do not verify.

    Raises:
        DetError: DET0803 if the verification fails; then no file is written.
    """
    import io

    import torch

    from detc.compiler.backends.video import export_video
    from detc.runtime.export import Compiled, _write

    extra = {"classes": json.dumps(list(program.classes)), "spec": program.run.text}

    def made(module: VideoDeploy | TrackDeploy) -> bytes:
        if out.suffix == ".onnx":
            return onnx_model(program, module, spec).SerializeToString()
        buffer = io.BytesIO()
        torch.export.save(export_video(module, spec), buffer, extra_files=extra)
        return buffer.getvalue()

    def runner(data: bytes) -> Runner:
        if out.suffix == ".onnx":
            return onnx_runner(data)
        module = torch.export.load(io.BytesIO(data)).module()
        return lambda given: module(*given.values())

    data = made(deploy)
    comparison, note = (
        (None, None)
        if clips is None
        else check_clips(deploy, runner(data), lambda other: runner(made(other)), clips, out.suffix)
    )
    _write(out, data)
    return Compiled(out, [out], comparison, [note] if note else [])


def check_clips(
    deploy: VideoDeploy | TrackDeploy,
    runner: Runner,
    again: Callable[[VideoDeploy], Runner],
    batches: list[tuple[str, Tensor]],
    suffix: str,
) -> tuple[Comparison | None, str]:
    """Compare over several frames; how the detections differ, if there are some, and what was seen in words.

    Args:
        runner: what was compiled from `deploy`.
        again: compiles another module the same way.

    Raises:
        DetError: DET0803 where they do not agree.
    """
    from detc.compiler.backends.verify import Comparison
    from detc.compiler.backends.video import VideoDeploy
    from detc.runtime.export_verify import compare_sources

    total, frames, tracks = Comparison(), 0, 0
    for name, clip in _clips(deploy, batches):
        shown, followed = _verify(deploy, runner, name, clip, suffix, total)
        frames, tracks = frames + shown, tracks + followed
    if total.images and total.detections == 0 and isinstance(deploy, VideoDeploy):
        given = [(name, {"image": x, "state": deploy.first(len(x))}) for name, x in batches]
        compare_sources(total, deploy, again, given, f"{suffix[1:]} file")
    note = f"{frames} frames with {tracks} boxes of tracks agree with torch"
    return total if total.images else None, note


def video_module(
    program: Program,
    spec: TargetSpec,
    after: Callable[[str, Any], None] | None = None,
    inner: fx.GraphModule | None = None,
) -> VideoDeploy | TrackDeploy:
    """The deployed module of a model that carries state; `inner` is another graph than the optimised one."""
    from detc.compiler.backends.deploy import preprocessing
    from detc.compiler.backends.video import TrackDeploy, VideoDeploy

    if inner is None:
        inner = program.optimised(after)
    if program.takes_detections:
        return TrackDeploy(inner, program.takes_detections, program.initial_state).eval()
    pre = preprocessing(program.run, spec)
    return VideoDeploy(inner, pre, program.classes, spec.layout, program.initial_state).eval()


def onnx_model(program: Program, deploy: VideoDeploy | TrackDeploy, spec: TargetSpec) -> onnx.ModelProto:
    """The ONNX model; its metadata `state` tells the names, shapes and first values of what it carries."""
    import torch

    from detc import __version__
    from detc.compiler.backends.onnx import metadata_of, to_onnx
    from detc.compiler.backends.video import arguments, export_video, flat, flat_outputs, initial_values

    given, _ = arguments(deploy, spec)
    with torch.no_grad():
        outputs = list(flat_outputs(deploy(*given.values())))
    metadata = metadata_of(program.classes, program.run.text, getattr(deploy, "pre", None), __version__)
    metadata["state"] = json.dumps(initial_values(deploy.first))
    return to_onnx(export_video(deploy, spec), spec, outputs, metadata, list(flat(given)))


def onnx_runner(data: bytes | str) -> Runner:
    """A function from nested torch inputs to nested outputs, on onnxruntime."""
    return session_runner(open_session(data))


def session_runner(session: Any) -> Runner:
    """The same of a session that is open."""
    import torch

    from detc.compiler.backends.video import flat

    names = [o.name for o in session.get_outputs()]
    wanted = {i.name for i in session.get_inputs()}

    def run(given: Mapping[str, Any]) -> dict[str, Any]:
        feed = {k: v.cpu().numpy() for k, v in flat(given).items() if k in wanted}
        found = {n: torch.from_numpy(v) for n, v in zip(names, session.run(names, feed), strict=True)}
        return nested(found)

    return run


def nested(outputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """`{"tracks.ids": x, "next.a.b": y}` -> `{"tracks": {"ids": x}, "state": {"a": {"b": y}}}`."""
    found: dict[str, Any] = {}
    for name, value in outputs.items():
        *parents, leaf = name.split(".")
        here = found
        for i, part in enumerate(parents):
            here = here.setdefault("state" if i == 0 and part == "next" else part, {})
        here[leaf] = value
    return found


def _clips(
    deploy: VideoDeploy | TrackDeploy, clips: list[tuple[str, Tensor]]
) -> Iterator[tuple[str, Frames]]:
    import torch

    from detc.compiler.backends.video import VideoDeploy

    if isinstance(deploy, VideoDeploy):
        rows = 1 if deploy.layout == "nhwc" else 2
        for name, image in clips:
            moved = [torch.roll(image, (STEP[0] * t, STEP[1] * t), (rows, rows + 1)) for t in range(FRAMES)]
            yield name, [{"image": m} for m in moved]
        return
    for batch in (1, 2):
        first = deploy.example(batch)
        drift = torch.tensor([STEP[1], STEP[0], STEP[1], STEP[0]])
        yield (
            "random detections",
            [
                {
                    "detections": {
                        **first,
                        "boxes": first["boxes"] + t * drift,
                        "valid": first["valid"] & (t != 3),
                    }
                }
                for t in range(2 * FRAMES)
            ],
        )


def _verify(
    deploy: torch.nn.Module, runner: Any, name: str, clip: Frames, suffix: str, total: Any
) -> tuple[int, int]:
    """Run a clip through both, each with its own state; frames and boxes compared."""
    import torch

    from detc.compiler.backends.verify import compare
    from detc.compiler.backends.verify_tracks import SameTracks
    from detc.compiler.backends.video import flat_outputs

    batch = next(iter(flat_outputs(clip[0]).values())).shape[0]
    states = [deploy.first(batch), deploy.first(batch)]  # type: ignore[operator]
    same: dict[str, SameTracks] = {}
    for number, given in enumerate(clip):
        label = f"{name}, frame {number}"
        with torch.no_grad():
            expected = deploy(*given.values(), states[0])
            found = runner({**given, "state": states[1]})
        states = [expected["state"], found["state"]]
        problem = None
        if "boxes" in expected:
            plain = [{k: v for k, v in x.items() if not isinstance(v, Mapping)} for x in (expected, found)]
            one = compare(plain[0], plain[1], label)
            total.merge(one)
            problem = one.problem
        for key, value in expected.items():
            if isinstance(value, Mapping) and "ids" in value and problem is None:
                problem = same.setdefault(key, SameTracks()).compare(value, found[key], f"{label}, {key}")
        if problem is not None:
            raise disagreement(f"{suffix[1:]} file", problem)
    return len(clip), sum(s.tracks for s in same.values())
