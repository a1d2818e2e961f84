"""The abstract syntax tree: frozen dataclasses, each with the span it was written at.

Equality ignores spans, so that `parse(format(tree)) == tree` can be asked for.
"""

from __future__ import annotations

from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields
from typing import Any, ClassVar, TypeVar, cast, dataclass_transform

from detc.dsl.source import Span

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def syntax(cls: type[T]) -> type[T]:
    """A frozen dataclass with keyword-only fields that inherits its methods from `Ast`.

    Sixty classes with methods made for each of them would take a tenth of the time of a check.
    """
    made: Any = dataclass(init=False, repr=False, eq=False)(cls)
    made.defaults = tuple((f.name, f.default, f.default_factory) for f in fields(made))
    made.compared = tuple(f.name for f in fields(made) if f.compare)
    return cast(type[T], made)


@syntax
class Ast:
    """Any piece of syntax."""

    span: Span = field(compare=False, repr=False)
    defaults: ClassVar[tuple[tuple[str, Any, Any], ...]]
    compared: ClassVar[tuple[str, ...]]

    def __init__(self, **values: Any) -> None:
        given = self.__dict__
        for name, default, factory in self.defaults:
            if name in values:
                given[name] = values.pop(name)
            elif default is not MISSING or factory is not MISSING:
                given[name] = default if factory is MISSING else factory()
            else:
                raise TypeError(f"{type(self).__name__} needs `{name}`")
        if values:
            raise TypeError(f"{type(self).__name__} has no {', '.join(values)}")

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.compared)

    def __hash__(self) -> int:
        return hash((type(self), *(getattr(self, name) for name in self.compared)))

    def __repr__(self) -> str:
        shown = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.repr)
        return f"{type(self).__name__}({shown})"

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")


# --- expressions -------------------------------------------------------------------------------


@syntax
class Literal(Ast):
    """An int, float, bool, string or none."""

    value: int | float | bool | str | None


@syntax
class QuantityLit(Ast):
    """`12ep`, `500it`, `16img`, `5%`: a number with a unit. `value` keeps int or float as written."""

    value: int | float
    unit: str


@syntax
class SizeLit(Ast):
    """`1333x800`: width x height, in pixels."""

    width: int
    height: int


@syntax
class Ref(Ast):
    name: str


@syntax
class Attr(Ast):
    value: Expr
    name: str


@syntax
class Index(Ast):
    value: Expr
    items: tuple[Expr, ...]


@syntax
class Arg(Ast):
    """A call argument; `name` is None for a positional one. `span` covers name and value."""

    name: str | None
    value: Expr


@syntax
class Call(Ast):
    func: Expr
    args: tuple[Arg, ...]


@syntax
class TupleExpr(Ast):
    """`(a, b)`; `(a)` is just `a` and never becomes a TupleExpr. Items may be named."""

    items: tuple[Arg, ...]


@syntax
class ListExpr(Ast):
    items: tuple[Expr, ...]


@syntax
class Comprehension(Ast):
    """`[body for name in iterable if condition]`."""

    body: Expr
    name: str
    iterable: Expr
    condition: Expr | None


@syntax
class RecordExpr(Ast):
    fields: tuple[Arg, ...]


@syntax
class Unary(Ast):
    """`op` is "-" or "not"."""

    op: str
    operand: Expr


@syntax
class Binary(Ast):
    """`op` is one of + - * / // % == != < <= > >= and or in per. Comparison chains are `and`ed pairs."""

    op: str
    left: Expr
    right: Expr


@syntax
class Conditional(Ast):
    """`then if condition else otherwise`."""

    condition: Expr
    then: Expr
    otherwise: Expr


@syntax
class RangeExpr(Ast):
    """`start .. stop step step`, half open. Either end may be None inside an index: `feats[1 ..]`."""

    start: Expr | None
    stop: Expr | None
    step: Expr | None


@syntax
class Chain(Ast):
    """`head -> hop -> hop`; every hop applies a node or op to what stands before it."""

    head: Expr
    hops: tuple[Expr, ...]


@syntax
class Using(Ast):
    """`mask using k`: apply `mask` with weights taken from the wire `k`. Only as a hop."""

    node: Expr
    weights: Expr


Expr = (
    Literal
    | QuantityLit
    | SizeLit
    | Ref
    | Attr
    | Index
    | Call
    | TupleExpr
    | ListExpr
    | Comprehension
    | RecordExpr
    | Unary
    | Binary
    | Conditional
    | RangeExpr
    | Chain
    | Using
)

# --- types -------------------------------------------------------------------------------------


@syntax
class TypeName(Ast):
    """`int`, `pyramid`, `tensor[B, 4]`, `tracks[cap = 256]`, with `optional` for a trailing `?`."""

    name: str
    args: tuple[Arg, ...] = ()
    optional: bool = False


@syntax
class TypeString(Ast):
    """One alternative of a string union."""

    value: str


@syntax
class TypeUnion(Ast):
    options: tuple[TypeName | TypeString, ...]


TypeExpr = TypeName | TypeString | TypeUnion

# --- statements --------------------------------------------------------------------------------


@syntax
class Target(Ast):
    """`name` or `name[i, j]` on the left of `=`."""

    name: str
    indices: tuple[Expr, ...] = ()


@syntax
class PathSegment(Ast):
    """One step of a path after its first name: `.name`, `[i, j]`, or `[*]`."""

    name: str | None = None
    indices: tuple[Expr, ...] = ()
    every: bool = False


@syntax
class Path(Ast):
    """`backbone.stage[2, 3].block[*].conv2`."""

    head: str
    segments: tuple[PathSegment, ...] = ()


@syntax
class Stmt(Ast):
    """Any statement; `doc` holds the `##` lines before it, joined by newlines."""

    doc: str = ""


@syntax
class InPort(Stmt):
    name: str
    type: TypeExpr


@syntax
class OutPort(Stmt):
    name: str
    type: TypeExpr | None
    value: Expr | None


@syntax
class NodeStmt(Stmt):
    """`node`, `frozen node` and `shadow node`; `role` is "", "frozen" or "shadow"."""

    target: Target
    type: TypeExpr | None
    value: Expr
    weights: Expr | None
    role: str = ""


@syntax
class StateStmt(Stmt):
    name: str
    type: TypeExpr
    value: Expr


@syntax
class NextStmt(Stmt):
    name: str
    value: Expr


@syntax
class LetStmt(Stmt):
    name: str
    value: Expr


@syntax
class WireStmt(Stmt):
    """`a, b[0] = expr from weights`: a wire in a graph body, a field in a data/train/target/run body."""

    targets: tuple[Target, ...]
    value: Expr
    weights: Expr | None = None


@syntax
class StepStmt(Stmt):
    """`name: Step(args)` in a pipeline, a schedule or a hooks block."""

    name: str
    value: Expr


@syntax
class SubBlock(Stmt):
    """`pipeline train extends x { … }`, `lr { … }`, `train { … }`; legality is the schema's business."""

    kind: str
    label: str | QuantityLit | None
    label_quoted: bool
    base: Applied | None
    body: tuple[Stmt, ...]


@syntax
class LossStmt(Stmt):
    target: Target
    args: tuple[Arg, ...]
    value: Expr


@syntax
class WhereStmt(Stmt):
    condition: Expr
    message: str
    message_span: Span = field(compare=False, repr=False)


@syntax
class RepeatStmt(Stmt):
    name: str
    iterable: Expr
    body: tuple[Stmt, ...]


@syntax
class WhenStmt(Stmt):
    """`otherwise` holds the statements of `else`; an `else when` is one nested WhenStmt."""

    condition: Expr
    body: tuple[Stmt, ...]
    otherwise: tuple[Stmt, ...] = ()


@syntax
class AtStmt(Stmt):
    """`at epochs - 20ep { set … }` in a schedule."""

    time: Expr
    body: tuple[Stmt, ...]


@syntax
class ExpectStmt(Stmt):
    condition: Expr


@syntax
class SetStmt(Stmt):
    path: Path
    value: Expr


@syntax
class ReplaceStmt(Stmt):
    path: Path
    value: Expr


@syntax
class RemoveStmt(Stmt):
    path: Path


@syntax
class InsertStmt(Stmt):
    """`where` is "before" or "after"."""

    step: StepStmt
    where: str
    path: Path


@syntax
class TieStmt(Stmt):
    path: Path
    other: Path


EDITS = (SetStmt, ReplaceStmt, RemoveStmt, InsertStmt, TieStmt)

# --- declarations ------------------------------------------------------------------------------


@syntax
class Param(Ast):
    name: str
    type: TypeExpr
    default: Expr | None
    doc: str = ""


@syntax
class Applied(Ast):
    """`mod.Name(args)` in `extends` and `with`."""

    name: str
    args: tuple[Arg, ...]
    name_span: Span = field(compare=False, repr=False)


@syntax
class Decl(Ast):
    """Any declaration; `name_span` covers its name."""

    name: str
    body: tuple[Stmt, ...]
    name_span: Span = field(compare=False, repr=False)
    doc: str = ""


@syntax
class Template(Decl):
    """`component`, `model`, `data`, `train` or `target`, as `kind` says."""

    kind: str
    params: tuple[Param, ...] = ()
    role: str | None = None
    base: Applied | None = None
    mixins: tuple[Applied, ...] = ()


@syntax
class InterfaceDecl(Decl):
    pass


@syntax
class PatchDecl(Decl):
    kind: str
    params: tuple[Param, ...] = ()


@syntax
class RunDecl(Decl):
    """`run` has the name "" when it is written without one."""


@syntax
class TestDecl(Decl):
    """`name` is the quoted title."""

    __test__ = False


@syntax
class Import(Ast):
    """`module` is dotted (`std.necks`) or, with `is_file`, a relative path.

    With `alias` the whole module is bound; else `names` lists (name, local name, span).
    """

    module: str
    is_file: bool
    alias: str | None
    names: tuple[ImportName, ...]
    module_span: Span = field(compare=False, repr=False)


@syntax
class ImportName(Ast):
    name: str
    alias: str


@syntax
class File(Ast):
    """One parsed file. `edition` is None without a `det N` header."""

    edition: int | None
    imports: tuple[Import, ...]
    decls: tuple[Decl, ...]
