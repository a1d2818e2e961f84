"""`detc explain`: the page of a diagnostic code."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from detc.cli.console import Json, command, print_json

app = command()


@app.command()
def explain(
    code: Annotated[str | None, typer.Argument(metavar="CODE", help="For example DET0302, or 302.")] = None,
    json: Json = False,
) -> None:
    """Explain a diagnostic code, with a failing and a mended example; without a code, list them all."""
    from detc.dsl.explain import normalise, page, titles

    if code is None:
        if json:
            print_json(titles())
        else:
            for known, title in titles().items():
                print(f"{known}  {title}")
        return
    text = page(code)
    if json:
        print_json({"code": normalise(code), "page": text})
    elif sys.stdout.isatty():
        from rich.console import Console
        from rich.markdown import Markdown

        Console().print(Markdown(text))
    else:
        print(text.rstrip())
