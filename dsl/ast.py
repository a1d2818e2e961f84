"""The abstract syntax tree: frozen dataclasses, each with the span it was written at.

Equality ignores spans, so that `parse(format(tree)) == tree` can be asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from detc.dsl.source import Span


@dataclass(frozen=True, kw_only=True)
class Ast:
    """Any piece of syntax."""

    span: Span = field(compare=False, repr=False)


# --- expressions -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Literal(Ast):
    """An int, float, bool, string or none."""

    value: int | float | bool | str | None


@dataclass(frozen=True, kw_only=True)
class QuantityLit(Ast):
    """`12ep`, `500it`, `16img`, `5%`: a number with a unit. `value` keeps int or float as written."""

    value: int | float
    unit: str


@dataclass(frozen=True, kw_only=True)
class SizeLit(Ast):
    """`1333x800`: width x height, in pixels."""

    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Ref(Ast):
    name: str


@dataclass(frozen=True, kw_only=True)
class Attr(Ast):
    value: Expr
    name: str


@dataclass(frozen=True, kw_only=True)
class Index(Ast):
    value: Expr
    items: tuple[Expr, ...]


@dataclass(frozen=True, kw_only=True)
class Arg(Ast):
    """A call argument; `name` is None for a positional one. `span` covers name and value."""

    name: str | None
    value: Expr


@dataclass(frozen=True, kw_only=True)
class Call(Ast):
    func: Expr
    args: tuple[Arg, ...]


@dataclass(frozen=True, kw_only=True)
class TupleExpr(Ast):
    """`(a, b)`; `(a)` is just `a` and never becomes a TupleExpr. Items may be named."""

    items: tuple[Arg, ...]


@dataclass(frozen=True, kw_only=True)
class ListExpr(Ast):
    items: tuple[Expr, ...]


@dataclass(frozen=True, kw_only=True)
class Comprehension(Ast):
    """`[body for name in iterable if condition]`."""

    body: Expr
    name: str
    iterable: Expr
    condition: Expr | None


@dataclass(frozen=True, kw_only=True)
class RecordExpr(Ast):
    fields: tuple[Arg, ...]


@dataclass(frozen=True, kw_only=True)
class Unary(Ast):
    """`op` is "-" or "not"."""

    op: str
    operand: Expr


@dataclass(frozen=True, kw_only=True)
class Binary(Ast):
    """`op` is one of + - * / // % == != < <= > >= and or in per. Comparison chains are `and`ed pairs."""

    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True, kw_only=True)
class Conditional(Ast):
    """`then if condition else otherwise`."""

    condition: Expr
    then: Expr
    otherwise: Expr


@dataclass(frozen=True, kw_only=True)
class RangeExpr(Ast):
    """`start .. stop step step`, half open. Either end may be None inside an index: `feats[1 ..]`."""

    start: Expr | None
    stop: Expr | None
    step: Expr | None


@dataclass(frozen=True, kw_only=True)
class Chain(Ast):
    """`head -> hop -> hop`; every hop applies a node or op to what stands before it."""

    head: Expr
    hops: tuple[Expr, ...]


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
class TypeName(Ast):
    """`int`, `pyramid`, `tensor[B, 4]`, `tracks[cap = 256]`, with `optional` for a trailing `?`."""

    name: str
    args: tuple[Arg, ...] = ()
    optional: bool = False


@dataclass(frozen=True, kw_only=True)
class TypeString(Ast):
    """One alternative of a string union."""

    value: str


@dataclass(frozen=True, kw_only=True)
class TypeUnion(Ast):
    options: tuple[TypeName | TypeString, ...]


TypeExpr = TypeName | TypeString | TypeUnion

# --- statements --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Target(Ast):
    """`name` or `name[i, j]` on the left of `=`."""

    name: str
    indices: tuple[Expr, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PathSegment(Ast):
    """One step of a path after its first name: `.name`, `[i, j]`, or `[*]`."""

    name: str | None = None
    indices: tuple[Expr, ...] = ()
    every: bool = False


@dataclass(frozen=True, kw_only=True)
class Path(Ast):
    """`backbone.stage[2, 3].block[*].conv2`."""

    head: str
    segments: tuple[PathSegment, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Stmt(Ast):
    """Any statement; `doc` holds the `##` lines before it, joined by newlines."""

    doc: str = ""


@dataclass(frozen=True, kw_only=True)
class InPort(Stmt):
    name: str
    type: TypeExpr


@dataclass(frozen=True, kw_only=True)
class OutPort(Stmt):
    name: str
    type: TypeExpr | None
    value: Expr | None


@dataclass(frozen=True, kw_only=True)
class NodeStmt(Stmt):
    """`node`, `frozen node` and `shadow node`; `role` is "", "frozen" or "shadow"."""

    target: Target
    type: TypeExpr | None
    value: Expr
    weights: Expr | None
    role: str = ""


@dataclass(frozen=True, kw_only=True)
class StateStmt(Stmt):
    name: str
    type: TypeExpr
    value: Expr


@dataclass(frozen=True, kw_only=True)
class NextStmt(Stmt):
    name: str
    value: Expr


@dataclass(frozen=True, kw_only=True)
class LetStmt(Stmt):
    name: str
    value: Expr


@dataclass(frozen=True, kw_only=True)
class WireStmt(Stmt):
    """`a, b[0] = expr from weights`: a wire in a graph body, a field in a data/train/target/run body."""

    targets: tuple[Target, ...]
    value: Expr
    weights: Expr | None = None


@dataclass(frozen=True, kw_only=True)
class StepStmt(Stmt):
    """`name: Step(args)` in a pipeline, a schedule or a hooks block."""

    name: str
    value: Expr


@dataclass(frozen=True, kw_only=True)
class SubBlock(Stmt):
    """`pipeline train extends x { … }`, `lr { … }`, `train { … }`; legality is the schema's business."""

    kind: str
    label: str | QuantityLit | None
    label_quoted: bool
    base: Applied | None
    body: tuple[Stmt, ...]


@dataclass(frozen=True, kw_only=True)
class LossStmt(Stmt):
    target: Target
    args: tuple[Arg, ...]
    value: Expr


@dataclass(frozen=True, kw_only=True)
class WhereStmt(Stmt):
    condition: Expr
    message: str
    message_span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, kw_only=True)
class RepeatStmt(Stmt):
    name: str
    iterable: Expr
    body: tuple[Stmt, ...]


@dataclass(frozen=True, kw_only=True)
class WhenStmt(Stmt):
    """`otherwise` holds the statements of `else`; an `else when` is one nested WhenStmt."""

    condition: Expr
    body: tuple[Stmt, ...]
    otherwise: tuple[Stmt, ...] = ()


@dataclass(frozen=True, kw_only=True)
class AtStmt(Stmt):
    """`at epochs - 20ep { set … }` in a schedule."""

    time: Expr
    body: tuple[Stmt, ...]


@dataclass(frozen=True, kw_only=True)
class ExpectStmt(Stmt):
    condition: Expr


@dataclass(frozen=True, kw_only=True)
class SetStmt(Stmt):
    path: Path
    value: Expr


@dataclass(frozen=True, kw_only=True)
class ReplaceStmt(Stmt):
    path: Path
    value: Expr


@dataclass(frozen=True, kw_only=True)
class RemoveStmt(Stmt):
    path: Path


@dataclass(frozen=True, kw_only=True)
class InsertStmt(Stmt):
    """`where` is "before" or "after"."""

    step: StepStmt
    where: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class TieStmt(Stmt):
    path: Path
    other: Path


EDITS = (SetStmt, ReplaceStmt, RemoveStmt, InsertStmt, TieStmt)

# --- declarations ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Param(Ast):
    name: str
    type: TypeExpr
    default: Expr | None
    doc: str = ""


@dataclass(frozen=True, kw_only=True)
class Applied(Ast):
    """`mod.Name(args)` in `extends` and `with`."""

    name: str
    args: tuple[Arg, ...]
    name_span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, kw_only=True)
class Decl(Ast):
    """Any declaration; `name_span` covers its name."""

    name: str
    body: tuple[Stmt, ...]
    name_span: Span = field(compare=False, repr=False)
    doc: str = ""


@dataclass(frozen=True, kw_only=True)
class Template(Decl):
    """`component`, `model`, `data`, `train` or `target`, as `kind` says."""

    kind: str
    params: tuple[Param, ...] = ()
    role: str | None = None
    base: Applied | None = None
    mixins: tuple[Applied, ...] = ()


@dataclass(frozen=True, kw_only=True)
class InterfaceDecl(Decl):
    pass


@dataclass(frozen=True, kw_only=True)
class PatchDecl(Decl):
    kind: str
    params: tuple[Param, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RunDecl(Decl):
    """`run` has the name "" when it is written without one."""


@dataclass(frozen=True, kw_only=True)
class TestDecl(Decl):
    """`name` is the quoted title."""

    __test__ = False


@dataclass(frozen=True, kw_only=True)
class Import(Ast):
    """`module` is dotted (`std.necks`) or, with `is_file`, a relative path.

    With `alias` the whole module is bound; else `names` lists (name, local name, span).
    """

    module: str
    is_file: bool
    alias: str | None
    names: tuple[ImportName, ...]
    module_span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, kw_only=True)
class ImportName(Ast):
    name: str
    alias: str


@dataclass(frozen=True, kw_only=True)
class File(Ast):
    """One parsed file. `edition` is None without a `det N` header."""

    edition: int | None
    imports: tuple[Import, ...]
    decls: tuple[Decl, ...]
