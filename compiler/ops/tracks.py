"""Tracking: the parts of SORT, ByteTrack and their kin. See `compiler.functional.tracks` for what tracks hold.

The type of `tracks` carries the capacity (the second dimension of its tensors) and the filter's motion model (the
kind of `mean`), both decided once, where the tracks begin.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from detc.compiler.dims import Dim
from detc.compiler.ops.base import Function, Op, Port
from detc.compiler.types import Mismatch, Struct, Tensor, Type, struct, tensor

Motion = Literal["xyah", "xysr"]
Status = Literal["new", "tracked", "lost"]
FUNCTIONAL = "detc.compiler.functional"
TRACKS = Port("tracks", Struct, kinds=("tracks",))
DETECTIONS = Port("detections", Struct, kinds=("detections",))


def tracks_type(cap: int, motion: str) -> Struct:
    """Tracks of `cap` slots."""
    return struct(
        "tracks",
        boxes=tensor("B", cap, 4, kind="boxes"),
        scores=tensor("B", cap),
        labels=tensor("B", cap, dtype="int64", kind="labels"),
        valid=tensor("B", cap, dtype="bool"),
        ids=tensor("B", cap, dtype="int64"),
        mean=tensor("B", cap, 4, kind=motion),
        velocity=tensor("B", cap, 4),
        covariance=tensor("B", cap, 4, 3),
        age=tensor("B", cap, dtype="int64"),
        hits=tensor("B", cap, dtype="int64"),
        confirmed=tensor("B", cap, dtype="bool"),
        born=tensor("B", cap, dtype="int64"),
        last_id=tensor("B", dtype="int64"),
        frame=tensor("B", dtype="int64"),
    )


def motion_of(tracks: Type) -> str:
    """The motion model of tracks."""
    assert isinstance(tracks, Struct)
    mean = tracks.get("mean")
    assert isinstance(mean, Tensor)
    return mean.kind


class NoTracks(Op):
    """No tracks yet: what a video begins with.

    cap: slots, the most tracks at a time. motion: what the Kalman filter follows, the centre with ratio and height
    ("xyah", noise grows with the height) or with area and ratio ("xysr", constant noise; SORT).
    """

    module = "std.track"
    inputs = (Port("like", (Tensor,), optional=True),)
    initial = True

    motion: Motion = "xyah"
    cap: PositiveInt = 256

    def infer(self, like: Type | None = None) -> Struct:
        """Tracks of `cap` slots."""
        return tracks_type(self.cap, self.motion)

    def torch(self, *like: Type) -> Function:
        """Zeros for the batch of `like`."""
        return Function(f"{FUNCTIONAL}.tracks:no_tracks", {"cap": self.cap})


class KalmanPredict(Op):
    """Tracks one frame later, where their velocities take them; positions become less certain.

    of: which tracks move: new ones (not confirmed), tracked ones (matched in the last frame), lost ones.
    """

    module = "std.track"
    inputs = (TRACKS,)

    of: tuple[Status, ...] = Field(("new", "tracked", "lost"), min_length=1)

    def infer(self, tracks: Struct) -> Struct:
        """Tracks to tracks."""
        return tracks

    def torch(self, tracks: Type) -> Function:  # type: ignore[override]
        """One step of the filter."""
        return Function(f"{FUNCTIONAL}.tracks:predict", {"motion": motion_of(tracks), "of": list(self.of)})


class MatchTracks(Op):
    """One round of association: the matching with the greatest total overlap, none below `iou`.

    What earlier rounds have matched (`matches`) stays and takes no part; so a second threshold is a second
    round over the detections that score lower.

    above, below: detections with above <= score < below take part. iou: the least overlap of a pair.
    of: tracks that take part. fuse: overlap times score counts, instead of overlap.
    by_class: only pairs of one class.
    """

    module = "std.track"
    inputs = (TRACKS, DETECTIONS, Port("matches", Struct, kinds=("matches",), optional=True))

    above: float = 0.0
    below: float | None = None
    iou: float = Field(0.3, ge=0, lt=1)
    of: tuple[Status, ...] = Field(("new", "tracked", "lost"), min_length=1)
    fuse: bool = False
    by_class: bool = True

    def infer(self, tracks: Struct, detections: Struct, matches: Struct | None = None) -> Struct:
        """Tracks [B, N] and detections [B, K] to matches: `detection` [B, N], `track` [B, K]."""
        if self.below is not None and self.below <= self.above:
            raise Mismatch(
                f"no score is at least {self.above:g} and below {self.below:g}", code="DET0311", param="below"
            )
        made = struct(
            "matches",
            detection=tensor("B", width_of(tracks), dtype="int64"),
            track=tensor("B", width_of(detections), dtype="int64"),
        )
        if matches is not None and matches != made:
            _other(matches, made, 2)
        return made

    def torch(self, tracks: Type, detections: Type, *matches: Type) -> Function:  # type: ignore[override]
        """Native linear assignment."""
        kwargs = {
            "above": self.above,
            "below": self.below,
            "iou": self.iou,
            "of": list(self.of),
            "fuse": self.fuse,
            "by_class": self.by_class,
        }
        return Function(f"{FUNCTIONAL}.track_match:match_tracks", kwargs)


class UpdateTracks(Op):
    """Correct matched tracks by their detections; let the others grow older, and end.

    keep: frames that a confirmed track may go without a match. A new track ends at the first.
    """

    module = "std.track"
    inputs = (TRACKS, DETECTIONS, Port("matches", Struct, kinds=("matches",)))

    keep: NonNegativeInt = 30

    def infer(self, tracks: Struct, detections: Struct, matches: Struct) -> Struct:
        """Tracks to tracks."""
        _check_matches(tracks, detections, matches)
        return tracks

    def torch(self, tracks: Type, detections: Type, matches: Type) -> Function:  # type: ignore[override]
        """The filter's correction."""
        return Function(f"{FUNCTIONAL}.tracks:update", {"motion": motion_of(tracks), "keep": self.keep})


class StartTracks(Op):
    """Detections that no track took begin tracks in free slots, the best scores first.

    above: the least score that begins a track. confirm: matches in a row after which a track is confirmed; in
    the first `confirm` frames all are. 0: all at once.
    """

    module = "std.track"
    inputs = (TRACKS, DETECTIONS, Port("matches", Struct, kinds=("matches",)))

    above: float = 0.0
    confirm: NonNegativeInt = 1

    def infer(self, tracks: Struct, detections: Struct, matches: Struct) -> Struct:
        """Tracks to tracks."""
        _check_matches(tracks, detections, matches)
        return tracks

    def torch(self, tracks: Type, detections: Type, matches: Type) -> Function:  # type: ignore[override]
        """Fresh detections into free slots."""
        kwargs = {"motion": motion_of(tracks), "above": self.above, "confirm": self.confirm}
        return Function(f"{FUNCTIONAL}.tracks:start", kwargs)


class RemoveTwins(Op):
    """Of a seen and a lost track that overlap by more than `iou`, only the one that lived longer stays."""

    module = "std.track"
    inputs = (TRACKS,)

    iou: float = Field(0.85, ge=0, le=1)

    def infer(self, tracks: Struct) -> Struct:
        """Tracks to tracks."""
        return tracks

    def torch(self, tracks: Type) -> Function:  # type: ignore[override]
        """All pairs of slots."""
        return Function(f"{FUNCTIONAL}.tracks:remove_twins", {"iou": self.iou})


class ReportTracks(Op):
    """What to say about this frame: detections with ids, for the tracks that were matched in it.

    hits: matches in a row that a track needs; in the first `hits` frames it needs none.
    """

    module = "std.track"
    inputs = (TRACKS,)

    hits: NonNegativeInt = 1

    def infer(self, tracks: Struct) -> Struct:
        """Tracks to detections [B, cap] with `ids`, in the order of the slots."""
        fields = {name: tracks.get(name) for name in ("boxes", "scores", "labels", "valid", "ids")}
        return Struct("detections", tuple((n, t) for n, t in fields.items() if t is not None))

    def torch(self, tracks: Type) -> Function:  # type: ignore[override]
        """A selection of slots."""
        return Function(f"{FUNCTIONAL}.tracks:report", {"hits": self.hits})


def width_of(padded: Struct) -> Dim:
    """The capacity of padded tracks or detections."""
    valid = padded.get("valid")
    assert isinstance(valid, Tensor)
    return valid.shape[1]


def _check_matches(tracks: Struct, detections: Struct, matches: Struct) -> None:
    found = matches.get("detection"), matches.get("track")
    sizes = tuple(f.shape[1] for f in found if isinstance(f, Tensor))
    if sizes != (width_of(tracks), width_of(detections)):
        wanted = struct(
            "matches",
            detection=tensor("B", width_of(tracks), dtype="int64"),  # type: ignore[arg-type]
            track=tensor("B", width_of(detections), dtype="int64"),  # type: ignore[arg-type]
        )
        _other(matches, wanted, 2)


def _other(found: Struct, wanted: Struct, index: int) -> None:
    sizes = [[f.shape[1] for _, f in s.fields if isinstance(f, Tensor)] for s in (found, wanted)]
    texts = [f"{a} tracks and {b} detections" for a, b in sizes]
    raise Mismatch(
        f"these matches are of {texts[0]}, not of {texts[1]}",
        code="DET0303",
        inputs=((index, texts[0]), (0, f"{sizes[1][0]} tracks"), (1, f"{sizes[1][1]} detections")),
    )
