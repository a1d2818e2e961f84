"""Videos as frames: folders of images, MOTChallenge sequences, video files; and videos that are written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from detc.dsl.diagnostics import error
from detc.runtime.data.sources.mot import Sequence, find_sequences

if TYPE_CHECKING:
    from PIL import Image

Array = np.ndarray[Any, Any]
VIDEOS = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".gif"})


@dataclass(frozen=True)
class Video:
    """A video with its name. `sequence` is set for folders, `file` for video files."""

    name: str
    rate: float
    sequence: Sequence | None = None
    file: Path | None = None

    def __len__(self) -> int:
        """Frames, as far as it is known without decoding; else 0."""
        return max(self.sequence.length, len(self.sequence.frames)) if self.sequence is not None else 0

    def frames(self) -> Iterator[Array]:
        """uint8 [H, W, 3] RGB, in order.

        Raises:
            ImageError: if a frame cannot be read.
            DetError: DET0903 if the video cannot be decoded.
        """
        from detc.runtime.images import read_image

        if self.file is not None:
            yield from _decoded(self.file)
        elif self.sequence is not None:
            for path in self.sequence.frames:
                yield read_image(path)


def open_videos(source: str | Path) -> list[Video]:
    """The videos that a path means: a video file, a folder of frames, a sequence, a folder of sequences.

    Raises:
        DetError: DET0903 if it is nothing of the kind.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return [Video(s.name, s.rate, s) for s in find_sequences(path)]
    if not path.exists():
        raise error("DET0903", f"there is no file or folder {path}")
    if path.suffix.lower() not in VIDEOS:
        raise error(
            "DET0903",
            f"{path} is no video: its name does not end in {', '.join(sorted(VIDEOS))}",
            help="give a video, a folder of frames, or a MOTChallenge sequence",
        )
    return [Video(path.stem, _rate(path), file=path)]


def _av() -> Any:
    try:
        import av
    except ImportError:
        raise error(
            "DET0903",
            "videos are read and written through PyAV, which is not installed",
            help="pip install av, or give a folder of frames",
        ) from None
    return av


def _rate(path: Path) -> float:
    av = _av()
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            return float(stream.average_rate or 30)
    except (OSError, IndexError, av.error.FFmpegError) as fault:
        raise error("DET0903", f"{path} cannot be read as a video: {fault}") from None


def _decoded(path: Path) -> Iterator[Array]:
    av = _av()
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")
    except (OSError, av.error.FFmpegError) as fault:
        raise error("DET0903", f"{path} cannot be decoded: {fault}") from None


class VideoWriter:
    """Writes pictures of one size as an MP4 file (H.264 where the encoder is there, else MPEG-4).

    Use as a context; the first picture decides the size.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self.rate = path, rate
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, picture: Image.Image) -> None:
        """Add a picture, RGB; an odd last row or column is cut off, as the format demands."""
        av = _av()
        pixels = np.asarray(picture)
        pixels = pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2]
        if self._container is None:
            from fractions import Fraction

            self._container = av.open(str(self.path), "w")
            codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
            self._stream = self._container.add_stream(codec, rate=Fraction(self.rate).limit_denominator(1000))
            self._stream.height, self._stream.width = pixels.shape[:2]
            self._stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._container is not None:
            for packet in self._stream.encode():
                self._container.mux(packet)
            self._container.close()
