"""Shadow nodes: `shadow node teacher = Average(student, decay = 0.999)`.

A shadow has the structure of the node that it follows, with every edit of that, and weights of its own, which a
rule moves after each optimiser step. It never learns, runs in evaluation mode, and is part of a deployed graph
only where inference uses it. The rule is a primitive (`compiler.spec.Follow`); its first argument is the node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from detc.compiler.elaboration.build_op import build_primitive
from detc.compiler.elaboration.edits import Edits, settle
from detc.compiler.elaboration.handles import NodeArray, NodeHandle
from detc.compiler.expressions.evaluate import Scope, evaluate
from detc.compiler.graph import Shadow
from detc.compiler.spec import Follow
from detc.compiler.values import Construct, PrimitiveRef, Value, a_kind, show
from detc.dsl import ast
from detc.dsl.diagnostics import WARNING, DetError, error
from detc.dsl.source import Origin

if TYPE_CHECKING:
    from detc.compiler.elaboration.elaborate import Elaborator
    from detc.compiler.elaboration.frame import Frame

EXAMPLE = "write: shadow node teacher = Average(student, decay = 0.999)"


def make_shadow(
    frame: Frame, stmt: ast.NodeStmt, name: str, index: tuple[int, ...], scope: Scope
) -> NodeHandle:
    """The node that a `shadow node` statement declares.

    Raises:
        DetError: DET0317 if the right side is no rule that follows a node of this component.
    """
    instance, ctx = frame.instance, frame.ctx
    own_name = name + (f"[{', '.join(map(str, index))}]" if index else "")
    path = f"{instance.path}.{own_name}" if instance.path else own_name
    origin = Origin(stmt.target.span, scope.via)
    ctx.know(path)
    own, below = instance.edits.into(name, index)
    edit = settle(own, path, ctx.report)
    if edit is not None and not isinstance(edit.stmt, ast.RemoveStmt):
        message = f"`{path}` is a shadow: set the fields of its rule, or edit the node that it follows"
        raise error("DET0406", message, edit.origin, "a shadow has no other structure")
    rule, source = _rule(frame, stmt, scope, path, below)
    ctx.shadow(Shadow(path, source.path, rule, origin))
    inner = Edits(list(source.edits.items))
    return NodeHandle(
        path,
        own_name,
        source.construct,
        inner,
        origin,
        frozen=True,
        anonymous=instance.anonymous,
        removed=edit,
        follows=True,
    )


def _rule(
    frame: Frame, stmt: ast.NodeStmt, scope: Scope, path: str, below: Edits
) -> tuple[Follow, NodeHandle]:
    value = evaluate(stmt.value, scope)
    data = value.data
    if isinstance(data, PrimitiveRef):
        data = Construct(data, (), value.origin)
    is_rule = (
        isinstance(data, Construct)
        and isinstance(data.target, PrimitiveRef)
        and issubclass(data.target.cls, Follow)
    )
    if not is_rule:
        shown = f"`{data.name}`" if isinstance(data, Construct) else f"{a_kind(value)}"
        raise error(
            "DET0317",
            f"a shadow wants a rule that follows a node, not {shown}",
            value.origin,
            show(value),
            help=EXAMPLE,
        )
    assert isinstance(data, Construct)
    args = list(data.args)
    given = next((a for a in args if a.name == "of" or a.name is None), None)
    if given is None:
        raise error(
            "DET0317",
            f"{data.name} needs the node that it follows",
            value.origin,
            "no node is given",
            help=EXAMPLE,
        )
    args.remove(given)
    source = _source(frame, given.value, data.name)
    made = build_primitive(Construct(data.target, tuple(args), data.origin), frame.ctx, path, below)
    assert isinstance(made, Follow)
    return made, source


def _source(frame: Frame, value: Value, rule: str) -> NodeHandle:
    node = value.data
    if isinstance(node, NodeArray):
        raise error(
            "DET0317", f"`{node.name}` is an array of nodes", value.origin, f"choose one: {node.name}[…]"
        )
    if not isinstance(node, NodeHandle):
        raise error("DET0317", f"{rule} follows a node, not {a_kind(value)}", value.origin, show(value))
    if node.frozen:
        raise error(
            "DET0317",
            f"`{node.path}` never learns, so there is nothing to follow",
            value.origin,
            "a frozen node",
        )
    inside = f"{frame.path}." if frame.path else ""
    if not node.path.startswith(inside):
        raise error(
            "DET0317",
            f"`{node.path}` is declared outside of {frame.instance.name}",
            value.origin,
            "a shadow stands beside the node that it follows",
        )
    return node


def check_shadows(ctx: Elaborator, infer: set[str]) -> None:
    """Report shadows whose weights have nothing to follow, and those that are not saved and yet needed.

    Args:
        infer: paths of all weights that the inference graph reads.
    """
    for shadow in ctx.shadows.values():
        prefix = shadow.path + "."
        own = [p for p in ctx.weights if p == shadow.path or p.startswith(prefix)]
        ctx.sources = {
            p: s for p, s in ctx.sources.items() if p != shadow.path and not p.startswith(prefix)
        }  # it begins as what it follows
        if not own:
            _report(ctx, shadow, f"the shadow `{shadow.path}` is never applied", "nothing reads it", WARNING)
            continue
        lost = next((p for p in own if shadow.source + p.removeprefix(shadow.path) not in ctx.weights), None)
        if lost is not None:
            twin = shadow.source + lost.removeprefix(shadow.path)
            _report(ctx, shadow, f"`{lost}` follows `{twin}`, which is never applied", "follows nothing")
        elif not shadow.rule.saved and any(p in infer for p in own):
            message = f"inference uses `{shadow.path}`, and `saved = false` leaves it out of checkpoints"
            _report(ctx, shadow, message, "this node would have no weights")


def _report(ctx: Elaborator, shadow: Shadow, message: str, label: str, severity: str = "error") -> None:
    ctx.report.add(*error("DET0317", message, shadow.origin, label, severity=severity).diagnostics)


def weights_used(graph: Any) -> set[str]:
    """Paths of the weights that a graph's outputs depend on."""
    from detc.compiler.graph import arg_wires

    alive: set[str] = set()
    todo = [w.node for w in graph.roots()]
    while todo:
        id = todo.pop()
        if id not in alive:
            alive.add(id)
            todo += [w.node for a in graph.node(id).args for w in arg_wires(a)]
    return {n.weights for id in alive if (n := graph.node(id)).weights is not None}


__all__ = ["DetError", "check_shadows", "make_shadow", "weights_used"]
