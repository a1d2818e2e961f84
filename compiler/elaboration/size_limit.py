"""No model is larger than any machine could hold: a slip of the pen in a width is said before torch fails at it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from detc.compiler.graph import Weight
from detc.dsl.diagnostics import Report, error

if TYPE_CHECKING:
    from detc.compiler.elaboration.elaborate import Elaborator

MOST_WEIGHTS = 10**12  # numbers: 4 TB in float32, a hundred times the largest detectors there are


def check_size(ctx: Elaborator, report: Report) -> None:
    """Report (DET0311) a model of more than `MOST_WEIGHTS` weights, at the node that has the most of them."""
    sizes = {path: _count(w) for path, w in ctx.weights.items()}
    whole = sum(sizes.values())
    if whole <= MOST_WEIGHTS:
        return
    path = max(sizes, key=sizes.__getitem__)
    weight = ctx.weights[path]
    written = [o for o in ctx.origins_of(weight.op).values() if not o.span.source.library]
    edited = [o.because for o in ctx.origins_of(weight.op).values() if o.because is not None]
    message = f"the model would have {whole:.1e} weights, and at most {MOST_WEIGHTS:.0e} are possible"
    place = next(iter([*written, *edited]), weight.origin)
    label = f"`{path}` alone has {sizes[path]:.1e}"
    report.add(*error("DET0311", message, place, label).diagnostics)


def _count(weight: Weight) -> int:
    """How many numbers a node holds; 0 if only torch knows."""
    shapes = weight.op.parameter_shapes(*weight.types) or {}
    return sum(math.prod(shape) for shape in shapes.values())
