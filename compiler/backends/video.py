"""Deployed modules that carry state: a camera's frames in, detections and tracks in its pixels out.

The state goes in and comes out, so the module stays a pure function: it is exported like any other, and the videos
of a batch do not know of each other. In files, names are flat: `state.<state>.<field>` goes in,
`next.<state>.<field>` comes out, and an output that is no plain detection is called `<output>.<field>`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_map

from detc.compiler.backends.deploy import Deploy, Preprocessing, finish, prepare
from detc.compiler.backends.exported import (
    batch_axis,
    dynamic_axes,
    example_input,
    places_kept,
    traced,
)
from detc.compiler.functional import letterbox as lb
from detc.compiler.spec import TargetSpec

State = dict[str, dict[str, Tensor] | Tensor]
First = Callable[..., State]  # (batch, device) -> the state before the first frame


class VideoDeploy(Deploy):
    """`forward(image, state) -> {"boxes", "scores", …, "tracks": {…}, "state": {…}}`.

    image, and what a plain `Deploy` returns: see there. tracks: `boxes` [B, N, 4] xyxy in the image's own pixels,
    `scores`, `labels`, `ids`, `valid` [B, N]. state: as `first(batch)` gives it for the first frame; boxes in it are
    in pixels of the network's input. All frames of a video have one size.
    """

    def __init__(
        self,
        inner: fx.GraphModule,
        pre: Preprocessing,
        classes: tuple[str, ...],
        layout: str = "nchw",
        first: First | None = None,
    ) -> None:
        super().__init__(inner, pre, classes, layout)
        assert first is not None
        self.first = first

    def forward(self, image: Tensor, state: State) -> dict[str, Any]:  # type: ignore[override]
        """See the class."""
        camera, pixels, fit = prepare(image, self.pre, self.layout)
        outputs = self.inner({"pixels": pixels, "size": lb.content_size(pixels, fit)}, state)
        return finish(outputs, camera, pixels, fit)


class TrackDeploy(nn.Module):
    """`forward(detections, state) -> {"tracks": {…}, "state": {…}}`, for models whose input is detections.

    detections: `boxes` [B, K, 4], `scores`, `labels`, `valid` [B, K]; the rest as in `VideoDeploy`.
    """

    def __init__(self, inner: fx.GraphModule, capacity: int, first: First) -> None:
        super().__init__()
        self.inner, self.capacity, self.first = inner, capacity, first

    def forward(self, detections: dict[str, Tensor], state: State) -> dict[str, Any]:
        """See the class."""
        found: dict[str, Any] = self.inner(detections, state)
        return found

    @torch.no_grad()
    def example(self, batch: int = 1) -> dict[str, Tensor]:
        """Random detections for tracing."""
        generator = torch.Generator().manual_seed(0)
        corner = torch.rand(batch, self.capacity, 2, generator=generator) * 500
        side = 20 + torch.rand(batch, self.capacity, 2, generator=generator) * 80
        return {
            "boxes": torch.cat((corner, corner + side), -1),
            "scores": torch.rand(batch, self.capacity, generator=generator).sort(1, descending=True).values,
            "labels": torch.zeros(batch, self.capacity, dtype=torch.int64),
            "valid": torch.arange(self.capacity).expand(batch, -1) < max(2, self.capacity // 4),
        }


def arguments(deploy: VideoDeploy | TrackDeploy, target: TargetSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """Example inputs by name, nested as `forward` takes them, and which of their axes may vary."""
    if isinstance(deploy, VideoDeploy):
        first = example_input(deploy, target)
        axes = dynamic_axes(deploy, target)
        given: dict[str, Any] = {"image": first}
        shapes: dict[str, Any] = {"image": axes}
        batch, axis = first.shape[0], axes.get(0)
    else:
        low, high = target.batch or (1, 0)
        batch = low if low == high else 2
        axis = batch_axis(target)
        given = {"detections": deploy.example(batch)}
        shapes = {"detections": {k: {0: axis} if axis else {} for k in given["detections"]}}
    given["state"] = deploy.first(batch)
    mark = {0: axis} if axis is not None else {}
    shapes["state"] = tree_map(lambda _: mark, given["state"])
    return given, shapes


def export_video(deploy: VideoDeploy | TrackDeploy, target: TargetSpec) -> ExportedProgram:
    """Trace a deployed module with its state."""
    given, shapes = arguments(deploy, target)
    with torch.no_grad(), places_kept(deploy.inner):
        return traced(deploy, tuple(given.values()), shapes, target)


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Tensor]:
    """`{"tracks": {"ids": x}}` -> `{"tracks.ids": x}`, in order."""
    found: dict[str, Tensor] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{prefix}{name}."))
        else:
            found[prefix + name] = value
    return found


def flat_outputs(outputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """Outputs under the names that they have in files: the state as `next.…`."""
    return flat({("next" if k == "state" else k): v for k, v in outputs.items()})


def initial_values(first: First) -> dict[str, Any]:
    """What a file says of its states: shape without the batch, dtype, and the first value.

    A value that is the same everywhere is one number.
    """
    found = {}
    for name, value in flat({"state": first(1)}).items():
        one = value[0]
        same = one.numel() > 0 and bool((one == one.flatten()[0]).all())
        found[name] = {
            "next": "next." + name.removeprefix("state."),
            "shape": list(one.shape),
            "dtype": str(one.dtype).removeprefix("torch."),
            "value": one.flatten()[0].item() if same else one.tolist(),
        }
    return found
