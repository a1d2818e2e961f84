"""Hypothesis strategies for whole syntax trees, as the parser could have made them."""

from __future__ import annotations

from hypothesis import strategies as st

from detc.dsl import ast
from detc.dsl.source import BUILTIN

S = {"span": st.just(BUILTIN)}
# Words that the grammar treats specially somewhere are left out: what follows them decides what they are.
NAMES = st.sampled_from(
    ["a", "b", "feats", "conv2", "x_1", "Model", "train", "data", "model", "state", "frozen"]
)
PLAIN = st.sampled_from(["a", "b", "feats", "conv2", "x_1", "Model"])
WORDS = st.sampled_from(["a", "b", "input", "node", "set", "train", "loss"])
KEYS = st.sampled_from(["a", "kernel", "in", "at", "input", "loss", "train"])
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=8)
UNITS = st.sampled_from(["ep", "it", "img", "%", "px", "s", "ms", "GiB", "MiB"])
NATURALS = st.integers(0, 10**9)
FLOATS = st.floats(0, 1e20, allow_nan=False, allow_infinity=False)


def tuples(items: st.SearchStrategy, least: int = 0, most: int = 3) -> st.SearchStrategy:  # type: ignore[type-arg]
    return st.lists(items, min_size=least, max_size=most).map(tuple)


quantities = st.builds(
    ast.QuantityLit, value=NATURALS | st.floats(0, 1e6, allow_nan=False).map(abs), unit=UNITS, **S
)
leaves = st.one_of(
    st.builds(ast.Literal, value=NATURALS | FLOATS.map(abs) | TEXTS | st.booleans() | st.none(), **S),
    quantities,
    st.builds(ast.SizeLit, width=NATURALS, height=NATURALS, **S),
    st.builds(ast.Ref, name=NAMES, **S),
)
COMPARE = ("==", "!=", "<=", ">=", "<", ">")
BINARY = ("+", "-", "*", "/", "//", "%", "and", "or", "in", "per", *COMPARE)


def bigger(inner: st.SearchStrategy[ast.Expr]) -> st.SearchStrategy[ast.Expr]:
    args = tuples(st.builds(ast.Arg, name=st.none() | KEYS, value=inner, **S))
    fields = tuples(st.builds(ast.Arg, name=KEYS, value=inner, **S))
    ranges = st.builds(ast.RangeExpr, start=inner, stop=inner, step=st.none() | inner, **S)
    open_ranges = st.builds(
        ast.RangeExpr, start=st.none() | inner, stop=st.none() | inner, step=st.none(), **S
    )
    hops = inner | st.builds(ast.Using, node=inner, weights=inner, **S)
    return st.one_of(
        st.builds(ast.Attr, value=inner, name=WORDS, **S),
        st.builds(ast.Index, value=inner, items=tuples(inner | open_ranges, 1), **S),
        st.builds(ast.Call, func=inner, args=args, **S),
        # `(a)` is just `a`
        st.builds(ast.TupleExpr, items=args.filter(lambda x: len(x) != 1 or x[0].name is not None), **S),
        st.builds(ast.ListExpr, items=tuples(inner), **S),
        st.builds(
            ast.Comprehension, body=inner, name=NAMES, iterable=inner, condition=st.none() | inner, **S
        ),
        st.builds(ast.RecordExpr, fields=fields, **S),
        st.builds(ast.Unary, op=st.sampled_from(["-", "not"]), operand=inner, **S),
        st.builds(ast.Binary, op=st.sampled_from(BINARY), left=inner, right=inner, **S),
        st.builds(ast.Conditional, condition=inner, then=inner, otherwise=inner, **S),
        ranges,
        st.builds(ast.Chain, head=inner, hops=tuples(hops, 1), **S),
    )


exprs: st.SearchStrategy[ast.Expr] = st.recursive(leaves, bigger, max_leaves=8)
small: st.SearchStrategy[ast.Expr] = st.recursive(leaves, bigger, max_leaves=3)
args = tuples(st.builds(ast.Arg, name=st.none() | KEYS, value=small, **S), 0, 2)
DOTTED = st.sampled_from(["Neck", "std.ops.Conv", "steps.Load"])
type_atoms = st.one_of(
    st.builds(ast.TypeName, name=DOTTED, args=args, optional=st.booleans(), **S),
    st.builds(ast.TypeString, value=TEXTS, **S),
)
types = type_atoms | st.builds(ast.TypeUnion, options=tuples(type_atoms, 2), **S)
targets = st.builds(ast.Target, name=NAMES, indices=tuples(small, 0, 2), **S)
segments = st.one_of(
    st.builds(ast.PathSegment, name=WORDS, **S),
    st.builds(ast.PathSegment, indices=tuples(small, 1, 2), **S),
    st.builds(ast.PathSegment, every=st.just(True), **S),
)
paths = st.builds(
    ast.Path, head=st.sampled_from(["a", "loss", "input", "data"]), segments=tuples(segments), **S
)
# Docs are lines; a line keeps neither blanks at its ends nor line breaks.
DOCS = st.lists(st.sampled_from(["", "Words here.", "# 1", "é"]), max_size=2).map("\n".join)
applied = st.builds(ast.Applied, name=DOTTED, args=args, name_span=st.just(BUILTIN), **S)
T = {"doc": DOCS, **S}
steps = st.builds(ast.StepStmt, name=PLAIN, value=small, **T)
simple = st.one_of(
    st.builds(ast.InPort, name=NAMES, type=types, **T),
    st.builds(ast.OutPort, name=NAMES, type=st.none() | types, value=st.none() | exprs, **T),
    st.builds(
        ast.NodeStmt, target=targets, type=st.none() | types, value=exprs, weights=st.none() | small,
        role=st.sampled_from(["", "frozen", "shadow"]), **T,
    ),
    st.builds(ast.StateStmt, name=PLAIN, type=types, value=exprs, **T),
    st.builds(ast.NextStmt, name=PLAIN, value=exprs, **T),
    st.builds(ast.LetStmt, name=NAMES, value=exprs, **T),
    st.builds(ast.WireStmt, targets=tuples(targets, 1), value=exprs, weights=st.none() | small, **T),
    steps,
    st.builds(ast.LossStmt, target=targets, args=args, value=exprs, **T),
    st.builds(ast.WhereStmt, condition=exprs, message=TEXTS, message_span=st.just(BUILTIN), **T),
    st.builds(ast.ExpectStmt, condition=exprs, **T),
    st.builds(ast.SetStmt, path=paths, value=exprs, **T),
    st.builds(ast.ReplaceStmt, path=paths, value=exprs, **T),
    st.builds(ast.RemoveStmt, path=paths, **T),
    st.builds(
        ast.InsertStmt, step=steps.map(lambda s: ast.StepStmt(name=s.name, value=s.value, span=s.span)),
        where=st.sampled_from(["before", "after"]), path=paths, **T,
    ),
    st.builds(ast.TieStmt, path=paths, other=paths, **T),
)  # fmt: skip


def nested(inner: st.SearchStrategy[ast.Stmt]) -> st.SearchStrategy[ast.Stmt]:
    body = tuples(inner)
    labels = st.one_of(
        st.tuples(st.none(), st.just(False)),
        st.tuples(NAMES, st.just(False)),
        st.tuples(TEXTS, st.just(True)),
        st.tuples(quantities, st.just(False)),
    )
    return st.one_of(
        labels.flatmap(
            lambda pair: st.builds(
                ast.SubBlock, kind=PLAIN | st.just("train"), label=st.just(pair[0]),
                label_quoted=st.just(pair[1]), base=st.none() | applied, body=body, **T,
            )
        ),
        st.builds(ast.RepeatStmt, name=NAMES, iterable=small, body=body, **T),
        st.builds(ast.WhenStmt, condition=small, body=body, otherwise=body, **T),
        st.builds(ast.AtStmt, time=small, body=body, **T),
    )  # fmt: skip


bodies = tuples(st.recursive(simple, nested, max_leaves=4), 0, 3)
params = tuples(st.builds(ast.Param, name=NAMES, type=types, default=st.none() | small, **T))
D = {"body": bodies, "name_span": st.just(BUILTIN), **T}
KINDS = st.sampled_from(["component", "model", "data", "train", "target"])
decls = st.one_of(
    st.builds(
        ast.Template, name=NAMES, kind=KINDS, params=params, role=st.none() | DOTTED,
        base=st.none() | applied, mixins=tuples(applied, 0, 2), **D,
    ),
    st.builds(ast.InterfaceDecl, name=NAMES, **D),
    st.builds(ast.PatchDecl, name=NAMES, kind=KINDS, params=params, **D),
    st.builds(ast.RunDecl, name=st.just("") | NAMES, **D),
    st.builds(ast.TestDecl, name=TEXTS, **D),
)  # fmt: skip
import_names = st.builds(ast.ImportName, name=PLAIN, alias=PLAIN, **S)
imports = st.one_of(
    st.builds(
        ast.Import, module=st.just("std.necks"), is_file=st.just(False), alias=st.none(),
        names=tuples(import_names), module_span=st.just(BUILTIN), **S,
    ),
    st.builds(
        ast.Import, module=TEXTS, is_file=st.just(True), alias=PLAIN, names=st.just(()),
        module_span=st.just(BUILTIN), **S,
    ),
)  # fmt: skip
files = st.builds(
    ast.File, edition=st.none() | st.just(1), imports=tuples(imports, 0, 2), decls=tuples(decls), **S
)
