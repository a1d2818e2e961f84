"""A detector that is ready for use: pixels in, `Detections` out, whatever it was loaded from.

Torch and ONNX detectors run the same deployed graph (letter-boxing, network, selection and the way back to
pixels of the original image), so their results agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import nn

from detc.runtime.images import ImageError, Named, gather
from detc.runtime.results import Detections, renumbered

if TYPE_CHECKING:
    from torch import Tensor

    from detc.compiler.experiments.runs import ResolvedRun

OnError = Callable[[ImageError], None]


class Detector(nn.Module):
    """A deployed model with its class names; made by `detc.load`.

    Attributes:
        classes: class names in label order.
        run: the resolved run that it was built from; None for an ONNX file.
        name: what it was loaded from.
        backend: "torch" or "onnxruntime".
        max_batch: the largest batch that it takes, None for any.
        parameter_count: of the model as the spec has it, frozen ones included; None for an ONNX file.
    """

    def __init__(
        self,
        deployed: nn.Module,
        classes: Sequence[str],
        run: ResolvedRun | None = None,
        *,
        name: str = "",
        backend: str = "torch",
        max_batch: int | None = None,
        parameter_count: int | None = None,
    ) -> None:
        super().__init__()
        self.deployed = deployed
        self.classes = tuple(classes)
        self.run = run
        self.name, self.backend, self.max_batch = name, backend, max_batch
        self.parameter_count = parameter_count
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Detecting is done in evaluation mode, whatever mode a program puts its modules into."""
        super().train(mode)
        self.deployed.eval()
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """The deployed graph.

        Args:
            image: [B, 3, H, W], uint8 or float 0..255, RGB, any size.

        Returns:
            boxes [B, K, 4] (x1 y1 x2 y2 in pixels of `image`), scores [B, K], labels [B, K] int64 and
            valid [B, K] bool; perhaps masks [B, K, H, W], or maps panoptic or semantic [B, H, W].
        """
        return self.deployed(image)

    def predict(
        self, images: Any, *, score: float = 0.3, batch: int = 1, on_error: OnError | None = None
    ) -> list[Detections]:
        """Detect objects in any number of images.

        Args:
            images: paths, folders, patterns (`shots/*.jpg`), arrays [H, W, 3] RGB, PIL images, tensors
                [3, H, W], or lists that mix them.
            score: leave out detections below it.
            batch: images of one size that go through the network together.
            on_error: called with each unreadable image, which is then skipped; without it, the first raises.

        Returns:
            One result for each image, in order.

        Raises:
            ImageError: if there is no such image, or one cannot be read and `on_error` is not given.
        """
        return list(self.stream(images, score=score, batch=batch, on_error=on_error))

    def stream(
        self, images: Any, *, score: float = 0.3, batch: int = 1, on_error: OnError | None = None
    ) -> Iterator[Detections]:
        """`predict`, one result after the other, so that a large folder needs little memory."""
        named = gather(images)
        step = max(1, min(batch, self.max_batch or batch))
        for start in range(0, len(named), step):
            yield from self._chunk(named[start : start + step], score, on_error)

    @torch.inference_mode()
    def _chunk(self, named: list[Named], score: float, on_error: OnError | None) -> list[Detections]:
        """Results of a few images; those of one size share a batch."""
        pixels: dict[int, Tensor] = {}
        for i, one in enumerate(named):
            try:
                pixels[i] = load(one)
            except ImageError as fault:
                if on_error is None:
                    raise
                on_error(fault)
        results: dict[int, Detections] = {}
        for shape in dict.fromkeys(tuple(p.shape) for p in pixels.values()):
            members = [i for i, p in pixels.items() if tuple(p.shape) == shape]
            out = self(torch.stack([pixels[i] for i in members]).to(self.device))
            arrays = {name: value.cpu().numpy() for name, value in out.items()}
            for row, i in enumerate(members):
                found = {name: value[row] for name, value in arrays.items()}
                results[i] = to_detections(found, self.classes, (shape[1], shape[2]), named[i], score)
        return [results[i] for i in sorted(results)]

    def __repr__(self) -> str:
        kind = self.run.model.name if self.run is not None else self.name
        return f"<Detector {kind}: {len(self.classes)} classes, {self.backend} on {self.device}>"


def load(image: Named) -> Tensor:
    """uint8 [3, H, W]; files are decoded as in training.

    Raises:
        ImageError: if it cannot be read.
    """
    if isinstance(image.source, str | Path):
        from detc.runtime.data.pixels import load_pixels

        return load_pixels(str(image.source)).contiguous()
    return torch.from_numpy(image.pixels().copy()).permute(2, 0, 1).contiguous()


def to_detections(
    out: dict[str, np.ndarray[Any, Any]],
    classes: tuple[str, ...],
    size: tuple[int, int],
    image: Named,
    score: float,
) -> Detections:
    """One image's part of the deployed graph's output, without padding and low scores."""
    keep = np.flatnonzero(out["valid"] & (out["scores"] >= score))
    masks = out["masks"][keep] if "masks" in out else None
    if masks is not None and masks.dtype != bool:
        masks = masks > 0.5
    return Detections(
        out["boxes"][keep],
        out["scores"][keep],
        out["labels"][keep],
        classes,
        size,
        masks,
        image.name,
        image.source,
        _segments(out, keep),
    )


def _segments(
    out: dict[str, np.ndarray[Any, Any]], keep: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any] | None:
    """The map of the kept detections, from a map of all of them or from one of classes."""
    if "panoptic" in out:
        return renumbered(out["panoptic"], len(out["scores"]), keep)
    if "semantic" in out:
        classes = out["semantic"]
        table = np.zeros(int(classes.max(initial=0)) + 2, np.int32)
        labels = out["labels"][keep]
        there = labels < len(table) - 1
        table[labels[there] + 1] = np.flatnonzero(there) + 1
        return table[classes + 1]  # type: ignore[no-any-return]
    return None
