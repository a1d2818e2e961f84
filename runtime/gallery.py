"""Pictures for reports: what is annotated beside what was found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from detc.runtime.draw import draw
from detc.runtime.images import ImageError
from detc.runtime.results import Detections

if TYPE_CHECKING:
    from PIL import Image

    from detc.runtime.data.records import Record
    from detc.runtime.detector import Detector

GAP = 6  # pixels between the two halves
SMALL = 400  # pixels; smaller images are enlarged


def gallery(
    detector: Detector, records: Sequence[Record], *, limit: int = 12, score: float = 0.3
) -> Iterator[tuple[str, Image.Image]]:
    """Captions and pictures of up to `limit` images, taken evenly from the split: truth left, found right.

    Images that cannot be read are passed over; the evaluation has reported them.
    """
    count = min(limit, len(records))
    for i in np.linspace(0, len(records) - 1, count).round().astype(int) if count else ():
        record = records[i]
        try:
            found = detector.predict(record.path, score=score)[0]
        except ImageError:
            continue
        truth = annotated(record, found.size, detector.classes)
        zoom = 2 if max(found.size) < SMALL else 1
        left = draw(record.path, truth, score=0.0, scores=False, zoom=zoom)
        right = found.draw(score=score, zoom=zoom)
        caption = f"{record.path.rsplit('/', 1)[-1]}: annotated {truth.summary()}; found {found.summary()}"
        yield caption, side_by_side(left, right)


def save_gallery(pictures: Iterable[tuple[str, Image.Image]], folder: Path) -> list[Path]:
    """Write pictures as JPEG files that carry their captions as comments."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for caption, picture in pictures:
        path = folder / f"{Path(caption.partition(':')[0]).stem}.jpg"
        picture.save(path, quality=92, comment=caption.encode())
        written.append(path)
    return written


def read_gallery(folder: Path) -> list[tuple[str, Image.Image]]:
    """What `save_gallery` wrote, in order of the names."""
    from PIL import Image

    found = []
    for path in sorted(folder.glob("*.jpg")):
        with Image.open(path) as image:
            caption = image.info.get("comment", b"").decode() or path.name
            found.append((caption, image.convert("RGB")))
    return found


def annotated(record: Record, size: tuple[int, int], classes: tuple[str, ...]) -> Detections:
    """The annotations of an image as detections of score 1."""
    whole = record.scaled(size[1], size[0])
    keep = whole.trainable
    boxes, labels = whole.boxes[keep], whole.labels[keep]
    return Detections(boxes, np.ones(len(labels)), labels, classes, size, None, record.path, record.path)


def side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    """Two pictures of one size beside each other."""
    from PIL import Image

    both = Image.new("RGB", (left.width + GAP + right.width, max(left.height, right.height)), "white")
    both.paste(left, (0, 0))
    both.paste(right, (left.width + GAP, 0))
    return both
