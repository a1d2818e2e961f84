"""`detc run track`: videos in, MOTChallenge files, drawn videos and metrics out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from detc.dsl.diagnostics import error
from detc.runtime.video import Video, VideoWriter

if TYPE_CHECKING:
    from detc.compiler.program import Program
    from detc.compiler.spec import DataSpec
    from detc.runtime.track import Tracked, Tracker

Array = np.ndarray[Any, Any]


@dataclass
class Followed:
    """What was found in one video."""

    video: Video
    frames: int = 0
    ids: set[int] = field(default_factory=set)
    boxes: int = 0
    text: Path | None = None
    picture: Path | None = None
    lines: list[str] = field(default_factory=list)


def track_to(
    tracker: Tracker,
    video: Video,
    out: Path | None,
    *,
    detections: Path | None = None,
    draw: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Followed:
    """Follow a video; write `<name>.txt` (MOTChallenge) and, if wanted, `<name>.mp4` with the tracks drawn.

    Args:
        out: a folder, made if it is not there; None: write nothing.
        detections: a MOTChallenge file, for a model that takes detections; by default the sequence's
            `det/det.txt`.
        draw: draw the frames, where there are some.
        progress: called with the frames done.
    """
    result = Followed(video)
    source, shown = _inputs(tracker, video, detections)
    drawn = draw and out is not None and shown is not None
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        writer = None
        if drawn and out is not None:
            result.picture = out / f"{video.name}.mp4"
            writer = stack.enter_context(VideoWriter(result.picture, video.rate))
        pictures: Iterator[Array] | None = None
        if writer is not None and shown is not None and tracker.capacity:
            pictures = shown()
        seen: list[Array] = []

        def kept() -> Iterator[Any]:
            for frame in source:
                seen[:] = [frame]
                yield frame

        for number, found in enumerate(tracker.follow(kept()), 1):
            result.frames = number
            result.ids.update(int(i) for i in found.ids)
            result.boxes += len(found)
            result.lines += mot_lines(number, found)
            if writer is not None:
                picture = next(pictures, None) if pictures is not None else seen[0]
                if picture is not None:
                    writer.write(found.draw(picture, tracker.classes))
            if progress is not None:
                progress(number)
    if out is not None:
        result.text = out / f"{video.name}.txt"
        result.text.write_text("".join(result.lines), encoding="utf-8")
    return result


def _inputs(
    tracker: Tracker, video: Video, detections: Path | None
) -> tuple[Iterator[Any], Callable[[], Iterator[Array]] | None]:
    """What goes into the model, frame by frame, and the frames to draw on."""
    frames = video.frames if video.file is not None or (video.sequence and video.sequence.frames) else None
    if not tracker.capacity:
        if detections is not None:
            raise error(
                "DET0906", "--detections goes with a model that takes detections; this one takes images"
            )
        if frames is None:
            raise error("DET0903", f"{video.name} has no frames")
        return frames(), frames
    path = detections or (video.sequence.detections if video.sequence is not None else None)
    if path is None:
        raise error(
            "DET0906",
            f"this model takes detections, and {video.name} has none",
            help="give a sequence with det/det.txt, or --detections FILE",
        )
    return read_detections(path, len(video)), frames


def read_detections(path: Path, length: int = 0) -> Iterator[Array]:
    """Frame by frame, float32 [N, 5]: boxes x1 y1 x2 y2 and scores, of a MOTChallenge file.

    Args:
        length: frames of the video; by default up to the last that the file mentions.

    Raises:
        DetError: DET0903 if the file cannot be read.
    """
    from detc.runtime.metrics.tracks import read_mot

    try:
        rows = read_mot(path)
    except (OSError, ValueError) as fault:
        raise error("DET0903", str(fault)) from None
    for frame in range(1, (length or max(rows, default=0)) + 1):
        found = [[*box, score] for _, box, score, _ in rows.get(frame, [])]
        yield np.asarray(found, np.float32).reshape(-1, 5)


def mot_lines(frame: int, found: Tracked) -> list[str]:
    """Lines `frame, id, left, top, width, height, score, class, -1, -1`, numbers from 1."""
    lines = []
    for box, score, label, id in zip(found.boxes, found.scores, found.labels, found.ids, strict=True):
        x1, y1, x2, y2 = (float(v) for v in box)
        place = f"{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f}"
        lines.append(f"{frame},{id},{place},{float(score):.4f},{int(label) + 1},-1,-1\n")
    return lines


def evaluate_tracks(
    program: Program, data: DataSpec, split: str, device: str | None = None
) -> dict[str, float]:
    """Metrics of the tracks over the sequences of a split: "tracks/HOTA", "tracks/MOTA", …

    Empty if the model does not track or the data has no sequences. The split's `TrackMetrics` say by which rules.
    """
    from detc.runtime.data.options import options
    from detc.runtime.metrics.mot import COMBINED
    from detc.runtime.metrics.schema import TrackMetrics
    from detc.runtime.track import from_program

    sequences = getattr(data.source, "sequences", None)
    if "tracks" not in program.spec.infer.outputs or not program.spec.states or sequences is None:
        return {}
    bound = [m for m in options(data.fields).evaluate.values() if isinstance(m, TrackMetrics)]
    tracker = from_program(program, device)
    followed = [track_to(tracker, Video(s.name, s.rate, s), None) for s in sequences(split)]
    numbers = score_tracks(followed, mot17=any(m.mot17 for m in bound if m.on == split))
    whole = numbers.get(COMBINED) or next(iter(numbers.values()), {})
    return {f"tracks/{name}": value for name, value in whole.items()}


def score_tracks(followed: list[Followed], *, mot17: bool = False) -> dict[str, dict[str, float]]:
    """HOTA, MOTA, IDF1 and the rest for the videos that have a ground truth, by name, and "combined".

    Empty if none has one. mot17: see `metrics.tracks.sequence`.
    """
    from detc.runtime.metrics.mot import track_metrics
    from detc.runtime.metrics.tracks import parse_mot, read_mot, sequence

    pairs = {}
    for one in followed:
        where = one.video.sequence
        if where is None or where.truth is None:
            continue
        found = parse_mot("".join(one.lines), one.video.name)
        pairs[one.video.name] = sequence(
            read_mot(where.truth), found, length=max(one.frames, where.length) or None, mot17=mot17
        )
    return track_metrics(pairs) if pairs else {}
