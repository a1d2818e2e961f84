"""The passes, in order. To add one: write `passes/<what>.py`, list it here, add a test under `tests/passes`."""

from __future__ import annotations

from detc.compiler.passes.first_frame import first_frame
from detc.compiler.passes.fold_norm import fold_norm
from detc.compiler.passes.manager import Context, Pass, PassError, run, verify
from detc.compiler.passes.merge_equal import merge_equal
from detc.compiler.passes.prune_dead import prune_dead

BUILD: tuple[Pass, ...] = (prune_dead,)
TRAIN: tuple[Pass, ...] = (prune_dead, merge_equal)
STILL: tuple[Pass, ...] = (first_frame,)  # before the others, for single images
OPTIMISE: tuple[Pass, ...] = (prune_dead, merge_equal, fold_norm, prune_dead)

__all__ = ["BUILD", "OPTIMISE", "STILL", "TRAIN", "Context", "Pass", "PassError", "run", "verify"]
