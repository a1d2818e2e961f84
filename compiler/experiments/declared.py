"""What `data`, `train` and `target` declarations share: binding, and the last look at their edits."""

from __future__ import annotations

from collections.abc import Sequence

from detc.compiler.elaboration.edits import Active, Edits, edit_path, unmatched
from detc.compiler.elaboration.elaborate import Elaborator
from detc.compiler.elaboration.params import Instance
from detc.compiler.experiments.fields import Body
from detc.compiler.expressions.thunk import Thunk
from detc.compiler.values import Construct, Poisoned
from detc.dsl.diagnostics import Report


def instance_body(
    construct: Construct,
    report: Report,
    edits: list[Active],
    records: tuple[str, ...],
    blocks: tuple[str, ...],
) -> Body:
    """Bind a declaration's params and read its fields."""
    ctx = Elaborator(report)
    via = (construct.origin.span, *construct.origin.via)
    instance = Instance(ctx, construct, "", via, Edits(list(edits)))
    return Body(instance, records, blocks)


def finish(body: Body, edits: list[Active], report: Report, fields: Sequence[str] = ()) -> None:
    """Evaluate what nobody asked for, then report edits that arrived nowhere.

    fields: what a declaration of this kind may hold.
    """
    for params in body.instance.params:
        for thunk in params.values():
            _works(thunk)
    broken = [name for name, thunk in body.fields.items() if not _works(thunk)]
    claims = {id(c.claim): c for c in [*edits, *body.ctx.claims, *body.instance.edits.items]}
    # what an error keeps from being built may hold what an edit names
    left = [c for c in claims.values() if edit_path(c.stmt).head not in broken]
    unmatched(left, list(body.ctx.paths), report, addable=fields)


def _works(thunk: Thunk) -> bool:
    try:
        thunk.get()
    except Poisoned:
        return False
    return True
