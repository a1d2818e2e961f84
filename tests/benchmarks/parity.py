"""The torchvision flavours beside torchvision on five photos, at torchvision's own 800 x 1333.

    python tests/benchmarks/parity.py [--only "Mask R-CNN"]

Prints a Markdown table of the largest differences. Weights are random, made as `tests/models` makes them.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.models.torchvision_cases import CASES

SIZE = (800, 1333)


def main() -> None:
    """Compare all, or one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=CASES)
    chosen = parser.parse_args().only
    print("| model | detections | boxes, px | scores | soft masks |\n| --- | ---: | ---: | ---: | ---: |")
    for name in [chosen] if chosen else CASES:
        begin = time.perf_counter()
        seen = CASES[name].compare(SIZE, apart=True)
        mask = f"{seen.mask:.1e}" if seen.spread else "-"
        print(f"| {name} | {seen.count} | {seen.box:.1e} | {seen.score:.1e} | {mask} |", flush=True)
        print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
