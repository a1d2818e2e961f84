"""Predictions as files: a JSON and a drawn picture for every image, and the map of segments if there is one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detc.runtime.images import ImageError
from detc.runtime.train.checkpoint import check_writable

if TYPE_CHECKING:
    from detc.runtime.detector import Detector
    from detc.runtime.results import Detections


@dataclass(frozen=True)
class Written:
    """One image's result and the files that hold it."""

    result: Detections
    json: Path
    picture: Path | None


def predict_to(
    detector: Detector,
    images: Any,
    out: Path,
    *,
    score: float = 0.3,
    batch: int = 1,
    draw: bool = True,
    zoom: int = 1,
    on_error: Callable[[ImageError], None] | None = None,
) -> Iterator[Written]:
    """Predict and write `<name>.json` and `<name>.jpg` into `out` for every image.

    Maps of segments become `<name>.png`, as COCO's panoptic PNGs are: number i is object i - 1 of the JSON.

    Images of the same name from several folders get a number. Results come as they are written.

    Args:
        detector: see `detc.load`.
        images: what `Detector.predict` takes.
        out: a folder; made if it is not there.
        score: leave out detections below it.
        batch: images of one size that go through the network together.
        draw: write pictures too.
        zoom: how many times as large as the images the pictures are.
        on_error: called with each unreadable image, which is then skipped; without it, the first raises.

    Raises:
        DetError: DET0712 if `out` cannot be written to.
    """
    check_writable(out)
    taken: set[str] = set()
    for result in detector.stream(images, score=score, batch=batch, on_error=on_error):
        stem = free_name(result.stem, taken)
        target = out / f"{stem}.json"
        target.write_text(json.dumps(result.to_dict(), ensure_ascii=False, indent=1), encoding="utf-8")
        if result.segments is not None:
            from detc.runtime.data.segment_map import write_ids

            write_ids(out / f"{stem}.png", result.segments)
        picture = None
        if draw:
            picture = out / f"{stem}.jpg"
            result.draw(score=score, zoom=zoom).save(picture, quality=92)
        yield Written(result, target, picture)


def free_name(stem: str, taken: set[str]) -> str:
    """`stem`, or `stem_2`, `stem_3`, … if that is taken; marks it as taken."""
    name, number = stem, 2
    while name.lower() in taken:  # some file systems do not tell cases apart
        name, number = f"{stem}_{number}", number + 1
    taken.add(name.lower())
    return name
