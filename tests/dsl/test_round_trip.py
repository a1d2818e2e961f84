"""Printing a tree and parsing the print gives the tree back."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from detc.dsl import ast
from detc.dsl.format import format_expr, format_file, format_path, format_text
from detc.dsl.parser import parse, parse_expression, parse_path
from detc.dsl.source import Source

from .trees import exprs, files, paths

# The strategies are large, and Hypothesis finds their repr too long.
pytestmark = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")
CALM = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@CALM
@given(exprs)
def test_expressions(expr: ast.Expr) -> None:
    text = format_expr(expr)
    assert parse_expression(text, "t") == expr


@CALM
@given(paths)
def test_paths(path: ast.Path) -> None:
    assert parse_path(format_path(path), "t") == path


@CALM
@given(files)
def test_files(file: ast.File) -> None:
    text = format_file(file)
    again, found = parse(Source("t", text))
    assert found == []
    assert again == file
    assert format_text(text) == text
