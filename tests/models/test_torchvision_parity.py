"""The torchvision flavours give torchvision's own detections with torchvision's (random) weights.

`tests/benchmarks/parity.py` does the same at full size.
"""

from __future__ import annotations

import pytest

from tests.models.torchvision_cases import CASES


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_same_detections(name: str) -> None:
    seen = CASES[name].compare((320, 533))
    assert seen.count > 100
    assert seen.box < 0.05 and seen.score < 1e-4, seen
    if name == "Mask R-CNN":
        assert seen.spread > 0.3, "masks that say nothing prove nothing"
        assert seen.mask < 1e-4, seen
