"""Following objects through videos: a model that carries state, frame after frame, whatever it was loaded from.

tracker = load_tracker("runs/clips")
for found in tracker.follow(frames):        # uint8 [H, W, 3] RGB each
    print(found.ids, found.boxes)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from detc.dsl.diagnostics import error

if TYPE_CHECKING:
    from PIL import Image

    from detc.compiler.program import Program

Array = np.ndarray[Any, Any]
Step = Callable[[Mapping[str, Any]], dict[str, Any]]  # nested tensors in, nested tensors out


@dataclass(frozen=True)
class Tracked:
    """The tracks seen in one frame: boxes float32 [N, 4] xyxy in the frame's pixels, scores, labels, ids [N]."""

    boxes: Array
    scores: Array
    labels: Array
    ids: Array

    def __len__(self) -> int:
        return len(self.ids)

    def draw(self, image: Any, classes: Sequence[str]) -> Image.Image:
        """The frame with its tracks; a track has one colour throughout."""
        from detc.runtime.draw import draw
        from detc.runtime.results import Detections

        size = np.asarray(image).shape[:2]
        texts = [""] * (int(self.ids.max(initial=0)) + 1)
        for id, label in zip(self.ids, self.labels, strict=True):
            texts[id] = f"{classes[label]} {id}" if 0 <= label < len(classes) else f"{id}"
        shown = Detections(self.boxes, self.scores, self.ids, tuple(texts), (int(size[0]), int(size[1])))
        return draw(image, shown, score=0.0, scores=False)


@dataclass
class Tracker:
    """Runs the graph of a model that carries state.

    step: the graph, inputs and outputs nested by name. first: the state before the first frame. capacity: the most
        detections of a frame for a model that takes detections, 0 for one that takes images.
    """

    step: Step
    first: Callable[[], dict[str, Any]]
    classes: tuple[str, ...] = ()
    capacity: int = 0
    layout: str = "nchw"
    dtype: str = "uint8"
    device: str = "cpu"

    def follow(self, frames: Iterable[Any]) -> Iterator[Tracked]:
        """The tracks of each frame of one video.

        Args:
            frames: images uint8 [H, W, 3] RGB of one size; or, for a model that takes detections, float arrays
                [N, 5] of boxes x1 y1 x2 y2 in pixels and scores.
        """
        import torch

        state = self.first()
        for frame in frames:
            given = {"detections": self._padded(frame)} if self.capacity else {"image": self._image(frame)}
            # Around the step alone: a generator that waits would keep its caller in this mode.
            with torch.inference_mode():
                outputs = self.step({**given, "state": state})
            state = outputs["state"]
            found = {k: v[0].cpu().numpy() for k, v in outputs["tracks"].items()}
            keep = found["valid"]
            order = np.argsort(found["ids"][keep], kind="stable")
            yield Tracked(*(found[k][keep][order] for k in ("boxes", "scores", "labels", "ids")))

    def _image(self, pixels: Array) -> Any:
        import torch

        image = torch.from_numpy(np.array(pixels))[None]
        image = image if self.layout == "nhwc" else image.permute(0, 3, 1, 2).contiguous()
        return image.to(self.device, getattr(torch, self.dtype))

    def _padded(self, rows: Array) -> dict[str, Any]:
        """The best detections that fit, best first, in tensors of fixed size."""
        import torch

        rows = np.asarray(rows, np.float32).reshape(-1, 5)
        rows = rows[np.argsort(-rows[:, 4], kind="stable")][: self.capacity]
        padded = torch.zeros(1, self.capacity, 5)
        padded[0, : len(rows)] = torch.from_numpy(rows)
        padded = padded.to(self.device)
        return {
            "boxes": padded[..., :4],
            "scores": padded[..., 4],
            "labels": torch.zeros(1, self.capacity, dtype=torch.int64, device=self.device),
            "valid": torch.arange(self.capacity, device=self.device)[None] < len(rows),
        }


def load_tracker(
    source: str | Path,
    *,
    weights: str | Path | None = None,
    run: str | None = None,
    sets: Sequence[str] = (),
    device: str | None = None,
) -> Tracker:
    """A tracker from a `.det` spec with weights, a checkpoint, a training's folder or an `.onnx` file.

    Raises:
        DetError: if the model carries no state, DET0901 if it needs weights and there are none.
    """
    from detc.compiler.program import build
    from detc.runtime.api import open_run
    from detc.runtime.load import find
    from detc.runtime.train.checkpoint import load_weights
    from detc.runtime.weights.apply import load_stated

    path = find(Path(source).expanduser())
    if path.suffix == ".onnx":
        return from_onnx(path, device or "cpu")
    resolved = open_run(path, run=run, sets=sets)
    if not resolved.model.states:
        raise stateless(str(path))
    program = build(resolved)
    if weights or path.suffix != ".det":
        load_weights(program, find(Path(weights).expanduser()) if weights else path)
    elif not load_stated(program) and resolved.model.weights:
        raise error(
            "DET0901",
            f"{path} says nothing of the weights to track with",
            help='give them with --weights, or write model = … from "…"',
        )
    return from_program(program, device)


def from_program(program: Program, device: str | None = None) -> Tracker:
    """A tracker over a program as it stands."""
    from detc.runtime.device import choose_device
    from detc.runtime.export_video import video_module

    where = str(choose_device(device))
    program.model.eval()
    spec = program.run.target
    module = video_module(program, spec).to(where)

    def step(given: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = module(*given.values())
        return found

    return Tracker(
        step,
        lambda: program.initial_state(1, where),
        tuple(program.classes),
        program.takes_detections,
        getattr(module, "layout", "nchw"),
        device=where,
    )


def from_onnx(path: Path, device: str) -> Tracker:
    """A tracker from a file that `detc compile` wrote; its first state is in the metadata."""
    import torch

    from detc.runtime.export_video import nested, session_runner
    from detc.runtime.onnx import open_session

    session = open_session(path, device=device, threads=None)
    metadata = session.get_modelmeta().custom_metadata_map
    if "state" not in metadata:
        raise stateless(str(path))
    told: dict[str, dict[str, Any]] = json.loads(metadata["state"])
    inputs = {i.name: i for i in session.get_inputs()}
    capacity = int(inputs["detections.valid"].shape[1]) if "detections.valid" in inputs else 0

    def first() -> dict[str, Any]:
        made = {}
        for name, one in told.items():
            value = torch.tensor(one["value"], dtype=getattr(torch, one["dtype"]))
            made[name] = value.expand(1, *one["shape"]).clone()
        return dict(nested(made)["state"])

    image = inputs.get("image")
    wide = image is not None and image.shape[3] == 3
    return Tracker(
        session_runner(session),
        first,
        tuple(json.loads(metadata.get("classes", "[]"))),
        capacity,
        "nhwc" if wide else "nchw",
        "float32" if image is not None and image.type == "tensor(float)" else "uint8",
    )


def stateless(name: str) -> Exception:
    """The error for a model that does not track."""
    return error(
        "DET0906",
        f"{name} does not track: its model carries no state from frame to frame",
        help="put a tracker behind the detector: model = Tracking(classes, detector = …), from std.models",
    )
