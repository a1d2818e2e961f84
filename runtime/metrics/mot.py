"""All tracking metrics together: HOTA, CLEAR MOT and IDF1 of MOTChallenge files or of paired tracks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from detc.runtime.metrics.clear import clear, clear_counts
from detc.runtime.metrics.hota import hota, hota_counts
from detc.runtime.metrics.identity import identity, identity_counts
from detc.runtime.metrics.tracks import Tracks

COMBINED = "combined"


def track_metrics(sequences: Mapping[str, Tracks]) -> dict[str, dict[str, float]]:
    """Numbers of each sequence, and of all together under "combined".

    Counts add up over sequences; ratios are those of the sums, as the benchmarks do it.
    """
    parts = {name: (hota_counts(t), clear_counts(t), identity_counts(t)) for name, t in sequences.items()}
    out = {name: _merged([part]) for name, part in parts.items()}
    if len(parts) > 1:
        out[COMBINED] = _merged(list(parts.values()))
    return out


def _merged(parts: Sequence[tuple]) -> dict[str, float]:  # type: ignore[type-arg]
    hotas, clears, identities = zip(*parts, strict=True)
    return {**hota(hotas), **clear(clears), **identity(identities)}
