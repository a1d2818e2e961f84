"""The deployed module: what the camera gives goes in, boxes in the camera's pixels come out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from detc.compiler.functional import letterbox as lb
from detc.compiler.functional.masks import paste_masks, resample_masks
from detc.compiler.spec import TargetSpec
from detc.compiler.types import Map

if TYPE_CHECKING:
    from detc.compiler.experiments.runs import ResolvedRun

DEFAULT_BOX = (640, 640)
MAPS = ("panoptic", "semantic")  # outputs that say something of every pixel


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input.

    `box` is (height, width), or None for graphs of dynamic size, which only pad to `align` and are traced for
    images whose coarsest map, `coarsest` pixels a cell, has more than one cell each way.
    """

    box: tuple[int, int] | None
    align: int
    fill: tuple[float, ...]
    stretch: bool = False
    coarsest: int = 32


def preprocessing(run: ResolvedRun, target: TargetSpec) -> Preprocessing:
    """From the target, else from the data set's `val` pipeline: the size of its resize, padded to the alignment."""
    steps = [] if run.data is None else [s.step for s in run.data.pipelines.get("val", ())]
    fill: tuple[float, ...] = (0.0,)
    align, box, stretch = run.align, None, False
    for step in steps:
        if getattr(step, "pads", False):
            value = getattr(step, "fill", 0.0)
            fill = tuple(value) if isinstance(value, (list, tuple)) else (float(value),)
        size = getattr(step, "size", None)
        if (size is not None and getattr(step, "geometric", False)) or (
            getattr(step, "pads", False) and size is not None
        ):
            box = (size.height, size.width)
            stretch = getattr(step, "mode", "") == "exact" or stretch
    if target.image is not None:
        box = (target.image.height, target.image.width)
    elif "image" in target.stated:
        strides = [int(n.type.stride) for n in run.model.infer.nodes() if isinstance(n.type, Map)]
        return Preprocessing(None, align, fill, stretch, max(strides, default=align))
    elif box is None:
        box = DEFAULT_BOX
    box = (-(-box[0] // align) * align, -(-box[1] // align) * align)
    return Preprocessing(box, align, fill, stretch)


class Deploy(nn.Module):
    """`forward(image) -> {"boxes", "scores", "labels", "valid", …}`.

    image: uint8 or float32 [B, 3, H, W], RGB, 0..255, any H and W. boxes: float32 [B, K, 4] xyxy in the image's
    own pixels; scores [B, K] falling; labels [B, K] int64; valid [B, K] bool; masks, if the model draws some,
    bool [B, K, H, W]; panoptic or semantic, if it draws maps, int64 [B, H, W].
    """

    def __init__(
        self, inner: fx.GraphModule, pre: Preprocessing, classes: tuple[str, ...], layout: str = "nchw"
    ) -> None:
        super().__init__()
        self.inner, self.pre, self.classes, self.layout = inner, pre, classes, layout

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """See the class."""
        camera, pixels, fit = prepare(image, self.pre, self.layout)
        outputs = self.inner({"pixels": pixels, "size": lb.content_size(pixels, fit)})
        return finish(outputs, camera, pixels, fit)

    @torch.no_grad()
    def example(self, batch: int = 1) -> Tensor:
        """A random image of the network's own size, for tracing."""
        least = max(4 * self.pre.align, 2 * self.pre.coarsest)
        height, width = self.pre.box or (least, least + self.pre.align)
        generator = torch.Generator().manual_seed(0)
        return torch.randint(0, 256, (batch, 3, height, width), generator=generator, dtype=torch.uint8)


def prepare(image: Tensor, pre: Preprocessing, layout: str = "nchw") -> tuple[Tensor, Tensor, Tensor]:
    """The image as [B, 3, H, W], the network's pixels and the size of the content in them."""
    if layout == "nhwc":
        image = image.permute(0, 3, 1, 2).contiguous()  # other strides would be traced as bounds of the size
    if pre.box is None:
        pixels, fit = lb.pad_to(image, pre.align, list(pre.fill))
    else:
        pixels, fit = lb.letterbox(image, pre.box, list(pre.fill), pre.stretch)
    return image, pixels, fit


def finish(outputs: dict[str, Any], image: Tensor, pixels: Tensor, fit: Tensor) -> dict[str, Any]:
    """The network's outputs as the camera sees them: detections flat, others that hold boxes by name."""
    result: dict[str, Any] = {}
    for name, value in outputs.items():
        if name == "detections":
            result.update(_to_image(value, image, pixels, fit))
        elif isinstance(value, Tensor) or name == "state":
            result[name] = value
        elif isinstance(value, dict) and "boxes" in value and "state" in outputs:
            result[name] = _to_image(value, image, pixels, fit)
    return result


def _to_image(found: dict[str, Tensor], image: Tensor, pixels: Tensor, fit: Tensor) -> dict[str, Tensor]:
    """Detections in the network's pixels as the camera sees them; masks become bitmaps of its image."""
    result = {"boxes": lb.unletterbox(found["boxes"], image, fit)}
    result.update({k: v for k, v in found.items() if k not in ("boxes", "box_masks", "masks")})
    for name in MAPS:
        if name in found:
            result[name] = lb.map_to_image(found[name], image, fit)
    height, width = image.shape[-2:]
    if "box_masks" in found:
        result["masks"] = paste_masks(found["box_masks"], result["boxes"], height, width)
    elif "masks" in found:
        scale = (fit[0] / height, fit[1] / width)
        masks = resample_masks(
            found["masks"], (pixels.shape[-2], pixels.shape[-1]), scale, (0.0, 0.0), height, width
        )
        result["masks"] = masks & found["valid"][..., None, None]
    return result
