"""`detc graph`: a model as text or as a drawing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detc.cli.console import Json, Run, Sets, Spec, checked, command, print_json, usage

if TYPE_CHECKING:
    from detc.compiler.check import CheckResult
    from detc.compiler.graph import Model

app = command()


@app.command()
def graph(
    spec: Spec,
    out: Annotated[Path | None, typer.Option("--out", "-o", help=".svg or .txt; default: print.")] = None,
    phase: Annotated[str, typer.Option("--phase", help="infer or train.")] = "infer",
    depth: Annotated[int, typer.Option("--depth", min=0, help="SVG: levels of components to open.")] = 1,
    model: Annotated[str | None, typer.Option("--model", help="A model outside of runs.")] = None,
    run: Run = None,
    sets: Sets = [],  # noqa: B006 (typer copies it)
    json: Json = False,
) -> None:
    """Draw the graph of a model: every op with its inputs, type and weights."""
    if phase not in ("infer", "train"):
        raise usage(f"--phase is infer or train, not `{phase}`")
    if out is not None and out.suffix not in (".svg", ".txt"):
        raise usage(f"a graph is written as .svg or .txt, not `{out.suffix}`")
    chosen = choose(checked(spec, sets, run, as_json=json), run, model)
    if json:
        from detc.compiler.text import graph_data

        print_json({"model": chosen.name, **graph_data(chosen.infer if phase == "infer" else chosen.train)})
        if out is None:
            return
    if out is not None and out.suffix == ".svg":
        from detc.compiler.svg import model_svg

        text = model_svg(chosen, phase=phase, depth=depth)
    else:
        from detc.compiler.text import graph_text

        text = graph_text(chosen.infer if phase == "infer" else chosen.train)
    if out is None:
        print(text, end="")
    else:
        out.write_text(text, encoding="utf-8")
        if not json:
            print(f"wrote {out}")


def choose(result: CheckResult, run: str | None, model: str | None) -> Model:
    """The model of the named run, the named model, or the only one there is."""
    if model is not None:
        if model not in result.models:
            known = ", ".join(result.models) or "none besides those of runs"
            raise usage(f"there is no model `{model}`; there are: {known}")
        return result.models[model]
    if run is None and not result.runs and result.models:
        if len(result.models) > 1:
            raise usage(f"this file has several models: choose one with --model ({', '.join(result.models)})")
        return next(iter(result.models.values()))
    return result.run(run).model
