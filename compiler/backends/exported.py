"""The deployed module as an `ExportedProgram`, with dynamic batch and, if wanted, sizes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn
from torch.export import Dim, ExportedProgram, export
from torch.fx import traceback

from detc.compiler.backends.deploy import Deploy
from detc.compiler.spec import TargetSpec
from detc.dsl.diagnostics import error

SMALLEST, LARGEST = 16, 8192


def example_input(deploy: Deploy, target: TargetSpec) -> torch.Tensor:
    """A random image batch of the dtype and layout that the target asks for."""
    low, high = target.batch or (1, 0)
    image = deploy.example(low if low == high else 2)
    if target.layout == "nhwc":
        image = image.permute(0, 2, 3, 1).contiguous()
    return image if target.pixels == "uint8" else image.to(torch.float32)


def batch_axis(target: TargetSpec) -> Any:
    """The batch as `torch.export` takes it; None if it is fixed."""
    if target.batch is None:
        return Dim("batch")
    if target.batch[0] != target.batch[1]:
        return Dim("batch", min=target.batch[0], max=target.batch[1])
    return None


def dynamic_axes(deploy: Deploy, target: TargetSpec) -> dict[int, Any]:
    """Which axes of the input may vary, as `torch.export` takes them."""
    axes: dict[int, Any] = {}
    batch = batch_axis(target)
    if batch is not None:
        axes[0] = batch
    first = 1 if target.layout == "nhwc" else 2
    least = SMALLEST if deploy.pre.box else max(SMALLEST, deploy.pre.coarsest + 1)
    axes[first] = Dim("height", min=least, max=LARGEST)
    axes[first + 1] = Dim("width", min=least, max=LARGEST)
    return axes


@contextmanager
def places_kept(graph: fx.GraphModule) -> Iterator[None]:
    """Within the block the graph runs node by node, so that what is traced keeps each node's place in the spec."""
    interpreter = fx.Interpreter(graph)

    def forward(*inputs: Any) -> Any:
        with traceback.preserve_node_meta():
            return interpreter.run(*inputs)

    graph.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        del graph.forward


def to_exported(deploy: Deploy, target: TargetSpec) -> ExportedProgram:
    """Trace the deployed module.

    Raises:
        DetError: DET0802 if it cannot be traced with the axes that the target leaves open.
    """
    example = example_input(deploy, target)
    with torch.no_grad(), places_kept(deploy.inner):
        return traced(deploy, (example,), {"image": dynamic_axes(deploy, target)}, target)


def traced(
    deploy: nn.Module, given: tuple[Any, ...], axes: dict[str, Any], target: TargetSpec
) -> ExportedProgram:
    """`torch.export`, whose refusals become errors at the line of the target that they come from."""
    try:
        return export(deploy, given, dynamic_shapes=axes, strict=False)
    except Exception as problem:  # of many kinds; what torch says of shapes is in its first line
        first, *more = str(problem).strip().splitlines()
        open_size = "image" in target.stated and target.image is None
        what = "with images of any size" if open_size else "as this target wants it"
        raise error(
            "DET0802",
            f"this graph cannot be exported {what}: {first}",
            target.places.get("image" if open_size else "batch"),
            "dynamic" if open_size else "",
            notes=[line.strip(" -") for line in more if line.startswith("  - ")],
            help="state the size of the network's input, as `image = 640x640`; photos may still have any size"
            if open_size
            else None,
        ) from problem
