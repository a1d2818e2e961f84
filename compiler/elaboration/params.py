"""Binding the arguments of a constructor to the params of a declaration and its bases.

Values are lazy: a param is evaluated when something asks for it, after all edits (late binding). A cycle among
them is an error that prints the cycle.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from detc.compiler.elaboration.edits import Active, Edits, Segment, activate, new_value, settle
from detc.compiler.expressions.evaluate import Inputs, evaluate, iterate, origin_of, truth
from detc.compiler.expressions.modules import Module
from detc.compiler.expressions.template import Patch, about, levels, phase_of_names, slots, walk
from detc.compiler.expressions.thunk import Thunk
from detc.compiler.expressions.typecheck import check_value, suggest_argument
from detc.compiler.values import BoundArg, Construct, Poisoned, TemplateRef, Value
from detc.dsl import ast
from detc.dsl.diagnostics import DetError, Edit, closest, did_you_mean, error
from detc.dsl.source import Origin, Span

if TYPE_CHECKING:
    from detc.compiler.elaboration.elaborate import Elaborator


T = TypeVar("T")


class ParamScope:
    """The scope of params, edits and data/train fields: params of one level and its bases, no wires."""

    def __init__(
        self, owner: Instance, level: int, extra: dict[str, Thunk] | None = None, module: Module | None = None
    ) -> None:
        self.owner, self.level, self.extra = owner, level, extra if extra is not None else {}
        self.module = module or owner.chain[level].module
        self.via = owner.via

    def find(self, name: str, span: Span) -> Value | None:
        """A local (patch param, loop variable), a param of this level or of a base."""
        if name in self.extra:
            return self.extra[name].get()
        return self.owner.param(name, self.level)

    def missing(self, name: str, span: Span) -> DetError:
        """The name is not a param here."""
        known = [*self.extra, *self.owner.param_names(self.level), *self.module.visible()]
        inside = any(name in phase_of_names(level.decl.body) for level in self.owner.chain[self.level :])
        if inside and about(self.owner.chain[0].decl)[0]:
            message = f"`{name}` is defined in the body, and an edit can read only params"
            help = "edits are made before the body runs: write a number, or give the param where the node is declared"
            return error("DET0201", message, Origin(span, self.via), "no param of this name", help=help)
        label = "not defined in this declaration" + did_you_mean(name, known)
        near = closest(name, known)
        return error(
            "DET0201",
            f"unknown name `{name}`",
            Origin(span, self.via),
            label,
            fix=Edit(span, near) if near else None,
        )

    def apply(self, callee: Value, inputs: Inputs, span: Span) -> Value:
        """No wires here."""
        raise error(
            "DET0313",
            "wires cannot be used here: a compile-time value is wanted",
            Origin(span, self.via),
            "applied here",
        )

    def member(self, value: Value, name: str, span: Span) -> Value | None:
        """Attributes of data objects."""
        return self.owner.ctx.member(value, name)


class Instance:
    """A constructor bound to its declaration: params by level, slots, edits for what lies below."""

    def __init__(
        self,
        ctx: Elaborator,
        construct: Construct,
        path: str,
        via: tuple[Span, ...],
        edits: Edits,
        *,
        frozen: bool = False,
        anonymous: bool = False,
    ) -> None:
        assert isinstance(construct.target, TemplateRef)
        self.ctx, self.construct, self.path = ctx, construct, path
        self.via = via
        self.frozen, self.anonymous = frozen, anonymous
        self.chain = levels(construct.target)
        self.params: list[dict[str, Thunk]] = [{} for _ in self.chain]
        self.slots: dict[str, BoundArg] = {}
        self.edits = Edits(list(edits.items))
        self._bind()
        self.edits.items[:0] = self._own_edits()

    @property
    def name(self) -> str:
        """The declaration's name."""
        return self.chain[0].decl.name

    # --- params ---

    def param_names(self, level: int = 0) -> list[str]:
        """Params visible from `level` inwards."""
        return list(dict.fromkeys(n for params in self.params[level:] for n in params))

    def param(self, name: str, level: int = 0) -> Value | None:
        """The value of a param as seen from `level`, or None if there is no such param."""
        for params in self.params[level:]:
            if name in params:
                return params[name].get()
        return None

    def check_params(self) -> None:
        """Evaluate what nothing has asked for: it may be wrong all the same, or be what an edit names."""
        for params in self.params:
            for thunk in params.values():
                if not thunk.asked:
                    with suppress(Poisoned):
                        thunk.get()

    def _bind(self) -> None:
        args = list(self.construct.args)
        slot_names = slots(self.chain)
        open_params: list[tuple[int, ast.Param]] = []
        carried: dict[str, tuple[Callable[[], BoundArg], ast.Decl]] = {}  # for a base further in
        filled: dict[str, Callable[[], BoundArg]] = {}  # slots, which may read params of levels further out
        for depth, level in enumerate(self.chain):
            given = self._base_args(depth)
            for p in level.decl.params:
                if p.name in given:
                    self._define(depth, p, given.pop(p.name))
                elif p.name in carried:
                    self._define(depth, p, carried.pop(p.name)[0])
                else:
                    open_params.append((depth, p))
            for name, arg in given.items():
                if name in slot_names:
                    filled.setdefault(name, arg)
                else:
                    carried.setdefault(name, (arg, level.decl))
        for name, (arg, decl) in carried.items():
            own = [p.name for level in self.chain for p in level.decl.params]
            self._unknown(name, arg(), decl, [*dict.fromkeys(own), *slot_names])
        names = list(dict.fromkeys(p.name for _, p in open_params))
        for a in args:
            if a.name is not None and a.name not in names and a.name not in slot_names:
                self._unknown(a.name, a, self.chain[0].decl, [*names, *slot_names])
        named = self._by_name(args, names)
        taken: set[str] = set()
        for depth, p in open_params:
            bound = named.get(p.name) if p.name not in taken else None
            taken.add(p.name)
            self._define(depth, p, partial(_itself, bound) if bound is not None else None)
        for name, a in named.items():
            if name in slot_names and name not in names:
                self.slots[name] = a
        for name, arg in filled.items():
            if name not in self.slots:
                self.slots[name] = arg()

    def _by_name(self, args: list[BoundArg], names: list[str]) -> dict[str, BoundArg]:
        """Arguments by the param that they are for: by position, then by name, each param once."""
        named: dict[str, BoundArg] = {}
        order = iter(names)
        for a in args:
            name = a.name if a.name is not None else next((n for n in order if n not in named), None)
            if name is None:
                raise error(
                    "DET0212",
                    f"{self.name} takes {len(names)} arguments, and {len(args)} are given",
                    a.origin,
                    "one too many",
                    secondary=[(self.chain[0].decl.name_span, "declared here")],
                )
            if name in named:
                raise _twice(name, a.origin, named[name].origin)
            named[name] = a
        return named

    def _base_args(self, depth: int) -> dict[str, Callable[[], BoundArg]]:
        """Arguments that the next level out gives to the level at `depth` in its `extends`."""
        applied = self.chain[depth].applied
        if applied is None:
            return {}
        scope = ParamScope(self, depth - 1)
        names = iter([p.name for p in self.chain[depth].decl.params])
        found: dict[str, Callable[[], BoundArg]] = {}
        places: dict[str, Span] = {}
        for a in applied.args:
            name = a.name or next(names, None)
            if name is None:
                message = (
                    f"{self.chain[depth].decl.name} takes {len(self.chain[depth].decl.params)} arguments"
                )
                raise error("DET0212", message, Origin(a.span, self.via), "one too many")
            if name in places:
                raise _twice(name, Origin(a.value.span, self.via), Origin(places[name], self.via))
            places[name] = a.value.span

            def make(a: ast.Arg = a) -> BoundArg:
                return BoundArg(a.name, evaluate(a.value, scope), origin_of(a.value, scope))

            found[name] = make
        return found

    def _unknown(self, name: str, arg: BoundArg, decl: ast.Decl, known: list[str]) -> None:
        span = arg.origin.span
        near = closest(name, known)
        before = span.source.text[: span.start].rstrip().removesuffix("=").rstrip()
        fix = None
        if near and before.endswith(name):
            fix = Edit(Span(span.source, len(before) - len(name), len(before)), near)
        self.ctx.report.add(
            *error(
                "DET0207",
                f"{decl.name} has no argument `{name}`",
                arg.origin,
                suggest_argument(name, known),
                secondary=[(decl.name_span, "declared here")],
                fix=fix,
            ).diagnostics
        )

    def _define(self, depth: int, p: ast.Param, arg: Callable[[], BoundArg] | None) -> None:
        level = self.chain[depth]
        if p.name in self.params[depth]:
            raise error("DET0205", f"the param `{p.name}` is declared twice", p.span, "declared again here")

        def compute() -> Value:
            if arg is not None:
                value = arg().value
            elif p.default is not None:
                value = evaluate(p.default, ParamScope(self, depth))
            else:
                value = None
            edit = settle(self.edits.of_field(p.name), _join(self.path, p.name), self.ctx.report)
            if edit is not None:
                value = self._edited(edit, value, p.name)
            if value is None:
                raise error(
                    "DET0208",
                    f"{self.name} needs the argument `{p.name}`",
                    self.construct.origin,
                    f"`{p.name}` is missing here",
                    secondary=[(p.span, "declared here, without a default")],
                )
            what = f"`{p.name}` of {self.name}"
            checked = check_value(value, p.type, what, level.module, p.span)
            self.ctx.decide(_join(self.path, p.name), checked)
            return checked

        self.params[depth][p.name] = Thunk(_join(self.path, p.name), compute, p.span, self.ctx.report)
        self.ctx.know(_join(self.path, p.name))

    def _edited(self, edit: Active, old: Value | None, name: str) -> Value:
        if not isinstance(edit.stmt, ast.SetStmt):
            raise error(
                "DET0406", f"`{name}` is a param: only `set` changes it", edit.origin, "write `set … = …`"
            )
        new = new_value(edit)
        return Value(new.data, new.origin, old)

    # --- edits ---

    def _own_edits(self) -> list[Active]:
        found: list[Active] = []
        for depth, level in enumerate(self.chain):
            layer = self.ctx.next_layer()
            for patch in level.patches:
                scope = self._patch_scope(patch, depth)
                found += self._collect(patch.decl.body, scope, layer, patch.decl.name)
            if not about(level.decl)[0]:
                continue
            edits = list(self._collect(level.decl.body, ParamScope(self, depth), layer, "<body>"))
            # a tie changes nothing of a base
            ours = [e for e in edits if not isinstance(e.stmt, ast.TieStmt)]
            if ours and level.decl.base is None and not level.patches and level.decl.kind != "run":
                for bad in ours:
                    what = "the value where it is declared"
                    found_error = error(
                        "DET0405",
                        f"`{bad.claim.kind}` edits a base, and {level.decl.name} extends nothing",
                        bad.origin,
                        "not inside a declaration that extends another",
                        help=f"write {what}, or derive: {level.decl.kind} X extends Y {{ … }}",
                    )
                    self.ctx.report.add(*found_error.diagnostics)
                edits = [e for e in edits if e not in ours]
            found += edits
        self.ctx.claims += found
        return found

    def _patch_scope(self, patch: Patch, depth: int) -> ParamScope:
        outer = ParamScope(self, depth)
        extra: dict[str, Thunk] = {}
        scope = ParamScope(self, depth, extra, patch.module)
        scope.via = (patch.applied.name_span, *self.via)  # the `with` that brought it
        names = [p.name for p in patch.decl.params]
        given: dict[str, ast.Arg] = {}
        for i, a in enumerate(patch.applied.args):
            name = a.name or (names[i] if i < len(names) else None)
            if name is None or name not in names:
                raise error(
                    "DET0207",
                    f"{patch.decl.name} has no such argument",
                    a.span,
                    suggest_argument(a.name or "", names),
                )
            given[name] = a
        for p in patch.decl.params:

            def compute(p: ast.Param = p) -> Value:
                if p.name in given:
                    value = evaluate(given[p.name].value, outer)
                elif p.default is not None:
                    value = evaluate(p.default, scope)
                else:
                    message = f"{patch.decl.name} needs the argument `{p.name}`"
                    raise error("DET0208", message, patch.applied.span, f"`{p.name}` is missing here")
                return check_value(value, p.type, f"`{p.name}` of {patch.decl.name}", patch.module, p.span)

            extra[p.name] = Thunk(p.name, compute, p.span, self.ctx.report)
        return scope

    def _collect(
        self, body: tuple[ast.Stmt, ...], scope: ParamScope, layer: int, source: str
    ) -> list[Active]:
        """The edits of a body, with `when` and `repeat` around them expanded."""
        found: list[Active] = []
        for stmt in body:
            if isinstance(stmt, ast.EDITS):
                found.append(activate(stmt, scope, layer, source))
            elif isinstance(stmt, ast.SubBlock) and stmt.kind == "pipeline":
                if stmt.base is None:
                    prefix = (Segment("pipeline"), Segment(str(stmt.label)))
                    found += [
                        activate(s, scope, layer, source, prefix)
                        for s in stmt.body
                        if isinstance(s, ast.EDITS)
                    ]
            elif not any(isinstance(s, ast.EDITS) for s in walk((stmt,))):
                continue
            elif isinstance(stmt, ast.WhenStmt):
                chosen = (
                    stmt.body
                    if truth(evaluate(stmt.condition, scope), origin_of(stmt.condition, scope))
                    else stmt.otherwise
                )
                found += self._collect(chosen, scope, layer, source)
            elif isinstance(stmt, ast.RepeatStmt):
                for item in iterate(evaluate(stmt.iterable, scope), origin_of(stmt.iterable, scope)):
                    constant = Thunk(stmt.name, partial(_itself, item), stmt.span, self.ctx.report)
                    inner = ParamScope(self, scope.level, {**scope.extra, stmt.name: constant}, scope.module)
                    found += self._collect(stmt.body, inner, layer, source)
            elif isinstance(stmt, ast.SubBlock):
                found += self._collect(stmt.body, scope, layer, source)
        return found


def _twice(name: str, again: Origin, first: Origin) -> DetError:
    given = [(first, "first given here")]
    return error("DET0207", f"`{name}` is given twice", again, "given again", secondary=given)


def _itself(value: T) -> T:
    return value


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
