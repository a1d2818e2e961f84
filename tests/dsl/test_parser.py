"""The grammar and the parser on good text."""

from __future__ import annotations

import subprocess
import sys

import pytest

from detc.dsl import ast, tables
from detc.dsl.diagnostics import DetError
from detc.dsl.parser import parse, parse_expression, parse_path, parse_setting
from detc.dsl.source import Source

from .texts import SAMPLE, det_files


def tree(text: str) -> ast.File:
    file, found = parse(Source("t.det", text))
    assert found == []
    return file


def body(text: str) -> tuple[ast.Stmt, ...]:
    return tree("component A {\n" + text + "\n}").decls[0].body


def test_grammar_has_no_conflicts() -> None:
    assert tables.build(strict=True).parse("det 1", start="start").data == "start"


def test_sample() -> None:
    file = tree(SAMPLE)
    assert file.edition == 1
    assert [i.module for i in file.imports] == ["std.ops", "std.data", "./parts.det"]
    assert file.imports[0].names[1] == ast.ImportName(name="UpsampleLike", alias="Up", span=file.span)
    assert file.imports[1].alias == "data" and file.imports[2].is_file
    assert [d.name for d in file.decls] == ["Neck", "FPN", "M", "R", "t", "P", "l", "", "extra levels"]
    fpn = file.decls[1]
    assert isinstance(fpn, ast.Template)
    assert fpn.doc == "A pyramid neck.\nTwo lines of docs." and fpn.role == "Neck"
    assert fpn.params[0].doc == "Channels of every output level."
    assert fpn.params[3].type == ast.TypeName(name="Activation", optional=True, span=file.span)
    model = file.decls[2]
    assert isinstance(model, ast.Template) and model.base is not None
    assert [m.name for m in model.mixins] == ["GN", "Other"]


@pytest.mark.parametrize("path", det_files(), ids=lambda p: p.stem)
def test_shipped_files_parse(path) -> None:  # type: ignore[no-untyped-def]
    tree(path.read_text(encoding="utf-8"))


def test_spans_are_exact() -> None:
    file = tree(SAMPLE)

    def walk(node: object) -> None:
        if isinstance(node, ast.Ast):
            assert node.span.text.strip() == node.span.text or isinstance(node, ast.File)
            for value in vars(node).values():
                walk(value)
            if isinstance(node, ast.Ref):
                assert node.span.text == node.name
            if isinstance(node, ast.Binary):
                assert node.span.start == node.left.span.start or node.span.text.startswith("(")
        elif isinstance(node, tuple):
            for item in node:
                walk(item)

    walk(file)
    loss = body("loss cls[0](weight = 1.0) = (a, b) -> L1(beta = 2)")[0]
    assert isinstance(loss, ast.LossStmt) and isinstance(loss.value, ast.Chain)
    assert loss.value.span.text == "(a, b) -> L1(beta = 2)"
    assert loss.value.head.span.text == "(a, b)"
    assert loss.args[0].span.text == "weight = 1.0"
    assert loss.target.span.text == "cls[0]"


def test_comparison_chains_are_pairs() -> None:
    value = parse_expression("0 < a <= 5", "x")
    assert value == parse_expression("0 < a and a <= 5", "x")


def test_precedence() -> None:
    value = parse_expression("a + b * c -> f -> g(1)", "x")
    assert isinstance(value, ast.Chain) and len(value.hops) == 2
    assert isinstance(value.head, ast.Binary) and value.head.op == "+"
    assert parse_expression("-a.b[0]", "x") == parse_expression("-((a.b)[0])", "x")
    assert parse_expression("0.02 per 16img * 2", "x") == parse_expression("(0.02 per 16img) * 2", "x")
    assert parse_expression("a or b and not c == d", "x") == parse_expression(
        "a or (b and (not (c == d)))", "x"
    )
    assert parse_expression("a - b - c", "x") == parse_expression("(a - b) - c", "x")


def test_open_ranges_only_in_an_index() -> None:
    value = parse_expression("feats[1 ..]", "x")
    assert isinstance(value, ast.Index)
    assert value.items[0] == ast.RangeExpr(
        start=ast.Literal(value=1, span=value.span), stop=None, step=None, span=value.span
    )
    assert isinstance(parse_expression("feats[.. n - 1, ..]", "x"), ast.Index)
    with pytest.raises(DetError):
        parse_expression("1 ..", "x")


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("12ep", 12, "ep"),
        ("5%", 5, "%"),
        ("0.1%", 0.1, "%"),
        ("16img", 16, "img"),
        ("2GiB", 2, "GiB"),
        ("3s", 3, "s"),
    ],
)
def test_quantities(text: str, value: float, unit: str) -> None:
    found = parse_expression(text, "x")
    assert isinstance(found, ast.QuantityLit)
    assert (found.value, found.unit, type(found.value)) == (value, unit, type(value))


def test_percent_and_modulo() -> None:
    assert isinstance(parse_expression("5 % 3", "x"), ast.Binary)
    assert isinstance(parse_expression("5%3", "x"), ast.Binary)
    assert parse_expression("1333x800", "x") == ast.SizeLit(
        width=1333, height=800, span=parse_expression("1", "x").span
    )


def test_words_of_declarations_are_names_in_blocks() -> None:
    """After a `}` the lexer cannot tell a statement from a declaration."""
    found = body("infer { a = b }\ntrain { c = d }\nx { }\ndata = y\nz { }\ntest: Step()")
    assert [type(s).__name__ for s in found] == [
        "SubBlock", "SubBlock", "SubBlock", "WireStmt", "SubBlock", "StepStmt"
    ]  # fmt: skip
    assert parse_expression("model.data.train[run].set.input", "x")


def test_keywords_do_not_glue() -> None:
    for text in (
        "componentA { }",
        "det1",
        "component A { frozen nodex = B() }",
        "component A { let x = 3y = 4 }",
    ):
        assert parse(Source("t", text))[1] != []


def test_reserved_words_start_no_expression() -> None:
    _, found = parse(Source("t", "component A {\n  let a =\n  let b = 3\n}"))
    assert len(found) == 1 and "after `=`" in found[0].message
    assert str(found[0].primary) == "t:2:10"


def test_docs_attach_by_place() -> None:
    text = "## gone\n\nx = a ## trailing is a comment\n# plain\n## doc\n# between\nlet y = 3"
    found = body(text)
    assert [s.doc for s in found] == ["gone", "doc"]
    assert tree("component A { }\n## dangling\n").decls[0].doc == ""


def test_strings() -> None:
    value = parse_expression(r'"a\n\t\"\\ {name}"', "x")
    assert isinstance(value, ast.Literal) and value.value == 'a\n\t"\\ {name}'
    with pytest.raises(DetError, match="unknown escape"):
        parse_expression(r'"\q"', "x")


def test_paths_and_settings() -> None:
    path = parse_path("loss.cls[*].head[2, 3]", "--set")
    assert path.head == "loss"
    assert [(s.name, len(s.indices), s.every) for s in path.segments] == [
        ("cls", 0, False), (None, 0, True), ("head", 0, False), (None, 2, False)
    ]  # fmt: skip
    path, value = parse_setting("data.root=../shared/data/coco64", "--set")
    assert isinstance(value, ast.Literal) and value.value == "../shared/data/coco64"
    assert value.span.text == "../shared/data/coco64"
    assert isinstance(parse_setting("a.b=12ep", "--set")[1], ast.QuantityLit)
    assert isinstance(parse_setting("a.b=epochs / 2", "--set")[1], ast.Binary)
    for bad in ("a.b", "a..b=3", "a=", "a=1 2"):
        with pytest.raises(DetError):
            parse_setting(bad, "--set")


def test_edition() -> None:
    assert tree("").edition is None
    _, found = parse(Source("t", "det 2\n"))
    assert [d.code for d in found] == ["DET0105"]
    assert found[0].primary is not None and found[0].primary.text == "2"


def test_too_deep_is_a_diagnostic() -> None:
    for text in ("(" * 5000 + "1" + ")" * 5000, "a" + ".b" * 5000, "- " * 5000 + "1", "1" + " + 1" * 5000):
        _, found = parse(Source("t", "component A { let x = " + text + " }"))
        assert [d.code for d in found] == ["DET0101"]
    _, found = parse(Source("t", "component A {" + "x {" * 3000 + "}" * 3000 + "}"))
    assert "levels deep" in found[0].message


def test_table_cache(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("DETC_CACHE_DIR", str(tmp_path / "cache"))
    path = tables.cache_file()
    assert path is not None and not path.exists()
    tables.parser.__wrapped__()
    assert path.exists()
    path.write_bytes(b"damaged")
    rebuilt = tables.parser.__wrapped__()
    assert rebuilt.parse("det 1", start="start").data == "start"
    monkeypatch.setenv("DETC_CACHE_DIR", "/proc/nowhere")
    assert tables.parser.__wrapped__().parse("", start="start").data == "start"


def test_cold_import_is_cheap() -> None:
    code = "import sys, detc.dsl.parser; print(sorted({'lark', 'torch', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
