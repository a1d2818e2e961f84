"""Nodes of a frame: a path, what to build there, and the edits that arrived."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from detc.compiler.elaboration.edits import Active, Edits, new_value, settle
from detc.compiler.elaboration.interfaces import conforms
from detc.compiler.elaboration.params import Instance
from detc.compiler.expressions.evaluate import Local, Scope, evaluate
from detc.compiler.ops.base import Op
from detc.compiler.values import Construct, PrimitiveRef, TemplateRef, Value, a_kind, show
from detc.dsl import ast
from detc.dsl.diagnostics import did_you_mean, error
from detc.dsl.source import Origin, Span

if TYPE_CHECKING:
    from detc.compiler.elaboration.frame import Frame


@dataclass(eq=False)
class NodeHandle:
    """A node: the set of weights at `path`."""

    path: str
    name: str
    construct: Construct
    edits: Edits
    origin: Origin
    frozen: bool = False
    anonymous: bool = False
    removed: Active | None = None
    follows: bool = False  # a shadow
    replaced_by: Origin | None = None  # the edit that put it there
    _instance: Instance | None = None
    _op: Op | None = None
    _inner: Frame | None = None

    label = "node"

    def __str__(self) -> str:
        return f"node `{self.path}`"

    @property
    def component(self) -> bool:
        """True for a component, False for an op."""
        return isinstance(self.construct.target, TemplateRef)

    def instance(self, frame: Frame) -> Instance:
        """The component instance, made when first needed."""
        if self._instance is None:
            via = (self.construct.origin.span, *self.construct.origin.via)
            self._instance = Instance(
                frame.ctx,
                self.construct,
                self.path,
                via,
                self.edits,
                frozen=self.frozen,
                anonymous=self.anonymous,
            )
        return self._instance

    def op(self, frame: Frame) -> Op:
        """The op with its parameters checked, made when first needed."""
        if self._op is None:
            from detc.compiler.elaboration.build_op import build_primitive

            made = build_primitive(self.construct, frame.ctx, self.path, self.edits)
            assert isinstance(made, Op)
            self._op = made
        return self._op

    def member(self, name: str, origin: Origin, frame: Frame) -> Value:
        """`head.decode`: a node declared inside a component; `conv.out`: a parameter of an op."""
        if not self.component:
            op = self.op(frame)
            if name in type(op).model_fields:
                return Value(getattr(op, name), origin)
            fields = list(type(op).model_fields)
            raise error(
                "DET0211",
                f"{type(op).name} has no `{name}`",
                origin,
                "it has: " + ", ".join(fields) + did_you_mean(name, fields),
            )
        from detc.compiler.elaboration.frame import Frame as NewFrame

        instance = self.instance(frame)
        if self._inner is None:
            self._inner = NewFrame(instance, frame, origin)
            self._inner.unrun = True
        if reach(self._inner, name):
            frame.ctx.touch(self.path, name)
            return Value(self._inner.nodes[name], origin)
        value = instance.param(name)
        if value is not None:
            return value
        nodes = [s.target.name for x in instance.chain for s in x.decl.body if isinstance(s, ast.NodeStmt)]
        known = [*nodes, *instance.param_names()]
        message = f"{instance.name} has no node or param `{name}`"
        offered = "it has: " + ", ".join(known) + did_you_mean(name, known)
        given = self.construct.origin
        if origin.span.source.library and not given.span.source.library:
            # the library asks it of what a user has put here
            raise error("DET0211", message, given, offered, secondary=[(origin, "read here")])
        raise error("DET0211", message, origin, offered)


def reach(inner: Frame, name: str) -> bool:
    """Declare the node `name` of a component that is not run itself, if it has one at its top.

    What the node's own arguments name (`node refine = Refine(head)`) is declared on the way.
    """
    from detc.compiler.elaboration.scope import BodyScope

    if name in inner.nodes:
        return True
    for depth, level in enumerate(inner.instance.chain):
        scope = BodyScope(inner, depth)
        found = [s for s in level.decl.body if isinstance(s, ast.NodeStmt) and s.target.name == name]
        if not found or name in inner.reaching:
            continue
        inner.reaching.add(name)
        if not inner.lets[depth]:
            inner.declare_lets(level.decl.body, scope)
        for node in found:
            inner.execute(node, scope)
        inner.reaching.discard(name)
        if name in inner.nodes:
            return True
    return False


@dataclass(eq=False)
class NodeArray:
    """`conv[k]`: nodes by index."""

    name: str
    items: dict[tuple[int, ...], NodeHandle] = field(default_factory=dict)
    label = "array of nodes"

    @property
    def origin(self) -> Origin | None:
        """Where the first of them is declared."""
        first = next(iter(self.items.values()), None)
        return first.origin if first is not None else None

    def __str__(self) -> str:
        return f"nodes `{self.name}[…]`"

    def item(self, index: tuple[int, ...], origin: Origin) -> Value:
        """The node with this index.

        Raises:
            DetError: DET0306 if there is none.
        """
        if index in self.items:
            return Value(self.items[index], origin)
        known = ", ".join(f"[{', '.join(map(str, k))}]" for k in sorted(self.items)[:8])
        shown = f"{self.name}[{', '.join(map(str, index))}]"
        raise error(
            "DET0306", f"there is no node `{shown}`", origin, f"declared up to here: {known or 'none'}"
        )


def make_handle(
    frame: Frame, stmt: ast.NodeStmt, name: str, index: tuple[int, ...], scope: Scope
) -> NodeHandle:
    """The node that a `node` statement declares, with slots filled and edits applied.

    Raises:
        DetError: if what stands on the right is nothing that can be built, or does not conform.
    """
    instance, ctx = frame.instance, frame.ctx
    own_name = name + (f"[{', '.join(map(str, index))}]" if index else "")
    path = f"{instance.path}.{own_name}" if instance.path else own_name
    ctx.know(path)
    own, below = instance.edits.into(name, index)
    given = instance.slots.get(name) if not index else None
    value = given.value if given is not None else evaluate(stmt.value, scope)
    construct = as_construct(value, path)
    edit = settle(own, path, ctx.report)
    removed = None
    if edit is not None:
        if isinstance(edit.stmt, ast.ReplaceStmt):
            old = {a.name or str(i): a.value for i, a in enumerate(construct.args)}
            old = ctx.visible_params(construct, path, below) | old
            new = new_value(edit, Local(edit.scope, "old", Value(old, construct.origin)))
            construct = as_construct(new, path)
            kept = [e for e in below.items if e.layer > edit.layer]
            for e in below.items:
                if e.layer < edit.layer:
                    e.claim.hits += 1
            below = Edits(kept)
        elif isinstance(edit.stmt, ast.RemoveStmt):
            removed = edit
        elif isinstance(edit.stmt, ast.SetStmt):
            replaced = new_value(edit)
            if not isinstance(replaced.data, Construct):
                raise error(
                    "DET0406",
                    f"`{path}` is a node, and `set` changes params",
                    edit.origin,
                    "name one of its params, or write `replace`",
                )
            raise error(
                "DET0406",
                f"`{path}` is a node: use `replace {path} = …`",
                edit.origin,
                "`set` changes params only",
            )
        elif isinstance(edit.stmt, ast.InsertStmt):
            message = f"`{path}` is a node, and `insert` adds steps to a pipeline"
            raise error("DET0406", message, edit.origin, "nodes have no order", help="apply a node in a wire")
    if stmt.type is not None:
        place = edit.origin if edit is not None else given.origin if given is not None else construct.origin
        conforms(construct, stmt.type, scope.module, name, place)
    weights = construct.weights or (
        evaluate(stmt.weights, scope) if stmt.weights is not None and given is None else None
    )
    changed = settle(below.of_field("weights"), f"{path}.weights", ctx.report)
    if changed is not None and isinstance(changed.stmt, ast.SetStmt):
        weights = new_value(changed)
        below = Edits([e for e in below.items if e not in below.of_field("weights")])
    ctx.know(f"{path}.weights")
    if weights is not None and weights.data is not None:
        if not isinstance(weights.data, str):
            raise error(
                "DET0301", f"`from` wants a str, not {a_kind(weights)}", weights.origin, show(weights)
            )
        ctx.source(path, weights.data, weights.origin)
    frozen = instance.frozen or stmt.role == "frozen"
    origin = Origin(stmt.target.span, scope.via)
    replaced_by = edit.origin if edit is not None and removed is None else None
    return NodeHandle(
        path, own_name, construct, below, origin, frozen, instance.anonymous, removed, replaced_by=replaced_by
    )


def as_construct(value: Value, path: str) -> Construct:
    """What a node statement builds.

    Raises:
        DetError: DET0312 if it is nothing that can be built.
    """
    data = value.data
    if isinstance(data, (PrimitiveRef, TemplateRef)):
        data = Construct(data, (), value.origin)
    buildable = isinstance(data, Construct) and (
        (isinstance(data.target, PrimitiveRef) and issubclass(data.target.cls, Op))
        or (
            isinstance(data.target, TemplateRef)
            and getattr(data.target.decl, "kind", "") in ("component", "model")
        )
    )
    if not buildable:
        raise error(
            "DET0312",
            f"the node `{path}` wants an op or a component, not {a_kind(value)}",
            value.origin,
            show(value),
        )
    assert isinstance(data, Construct)
    return data


def span_of(construct: Construct) -> Span:
    """Where a constructor is written."""
    return construct.origin.span
