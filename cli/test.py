"""`detc test`: the test blocks of fragments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from detc.cli.console import Json, command, count, print_json, show
from detc.cli.fmt import det_files

app = command()


@app.command()
def test(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help=".det files or folders.")],
    json: Json = False,
) -> None:
    """Run the test blocks of .det files: shapes are inferred, nothing is computed.

    Exits with 1 if a test fails.
    """
    from detc.compiler.experiments.spec_tests import TestResult, run_tests
    from detc.dsl.diagnostics import DetError, Diagnostic

    results: list[TestResult] = []
    broken: list[Diagnostic] = []  # of files that cannot be read: the tests of the others run all the same
    for path in det_files(paths):
        try:
            results += run_tests(path)
        except DetError as problem:
            broken += problem.diagnostics
    failed = [result for result in results if not result.passed]
    if json:
        from detc.dsl.render import to_json

        tests: list[dict[str, object]] = [{"diagnostics": [to_json(d) for d in broken]}] if broken else []
        print_json(
            tests
            + [
                {
                    "file": r.file,
                    "title": r.title,
                    "passed": r.passed,
                    "expectations": r.expectations,
                    "problems": [to_json(d) for d in r.problems],
                }
                for r in results
            ]
        )
    else:
        for result in results:
            print(f"{'ok  ' if result.passed else 'FAIL'}  {result.file}: {result.title}")
        show([*broken, *(d for result in failed for d in result.problems)])
        print(f"{count(len(results), 'test')}, {len(failed)} failed")
    if failed or broken:
        raise typer.Exit(1)
