"""What `data`, `train` and `target` declarations share: binding, and the last look at their edits."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from detc.compiler.edits import Active, Edits, unmatched
from detc.compiler.elaborate import Elaborator
from detc.compiler.fields import Body
from detc.compiler.params import Instance
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


def finish(body: Body, edits: list[Active], report: Report) -> None:
    """Evaluate what nobody asked for, then report edits that arrived nowhere."""
    for params in body.instance.params:
        for thunk in params.values():
            _quiet(thunk.get)
    for thunk in body.fields.values():
        _quiet(thunk.get)
    claims = {id(c.claim): c for c in [*edits, *body.ctx.claims, *body.instance.edits.items]}
    unmatched(list(claims.values()), list(body.ctx.paths), report)


def _quiet(get: Any) -> None:
    with suppress(Poisoned):
        get()
