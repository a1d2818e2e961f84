"""`detc compile`: a model for deployment."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from detc.cli.console import Json, Run, Sets, command, count, print_json, show, usage

if TYPE_CHECKING:
    from detc.runtime.export import Compiled

app = command()

SUFFIXES = (".onnx", ".pt2", ".py", ".svg", ".txt")
Source = Annotated[
    str, typer.Argument(metavar="SPEC", help="A .det file, a checkpoint, or the folder of a training.")
]
Out = Annotated[Path, typer.Option("--out", "-o", help="A file that ends in .onnx, .pt2, .py, .svg or .txt.")]
Weights = Annotated[Path | None, typer.Option("--weights", "-w", help="A checkpoint or a training's folder.")]
Target = Annotated[str | None, typer.Option("--target", help="A `target` that the spec declares.")]
After = Annotated[str | None, typer.Option("--print-after", metavar="PASS", help="A pass, or `all`.")]


@app.command("compile")
def compile_(
    spec: Source,
    out: Out,
    weights: Weights = None,
    run: Run = None,
    target: Target = None,
    sets: Sets = [],  # noqa: B006 (typer copies it)
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Compare with torch first.")] = True,
    print_after: After = None,
    json: Json = False,
) -> None:
    """Compile a model; the suffix of -o says to what.

    An ONNX file takes raw pixels and gives boxes in them: resizing, normalisation and NMS are inside. It is
    written only if ONNX Runtime and torch agree on real and random images.
    """
    if out.suffix not in SUFFIXES:
        raise usage(f"-o ends in {', '.join(SUFFIXES)}, not in `{out.suffix or out.name}`")
    if print_after is not None:
        known_pass(print_after)
    from detc.runtime.api import compile as compile_file

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        result = compile_file(
            spec,
            out,
            weights=weights,
            run=run,
            target=target,
            sets=sets,
            verify=verify,
            after=None if print_after is None else printer(print_after),
            warn=None if json else show,
        )
    for text in dict.fromkeys(str(w.message) for w in said if w.category.__module__.startswith("detc.")):
        print(f"warning: {text}", file=sys.stderr)
    if json:
        print_json(facts(result))
    else:
        report(result)


def known_pass(name: str) -> None:
    """Refuse the name of a pass that there is not."""
    from detc.compiler import passes

    names = [p.__name__ for p in passes.OPTIMISE]
    if name not in (*names, "all"):
        raise usage(f"there is no pass `{name}`; in order: {', '.join(names)}")


def printer(wanted: str) -> Any:
    """What prints the graph after the pass `wanted`."""

    def after(name: str, graph: Any) -> None:
        if wanted in (name, "all"):
            from detc.compiler.text import graph_text

            print(f"# after {name}\n{graph_text(graph)}")

    return after


def facts(result: Compiled) -> dict[str, Any]:
    """The result as plain data."""
    verified = None if result.comparison is None else vars(result.comparison)
    return {"files": [str(f) for f in result.files], "verified": verified, "notes": result.notes}


def report(result: Compiled) -> None:
    """The result as text."""
    for note in result.notes:
        print(note)
    same = result.comparison
    if same is not None and same.detections:
        found = f"{count(same.detections, 'detection')} on {count(same.images, 'image')}"
        print(f"verified: {found} agree with torch, boxes to {same.box:.2g} px, scores to {same.score:.2g}")
    elif same is not None and same.values:
        print(
            f"verified: nothing is detected on {count(same.images, 'image')}; the {same.values} numbers that boxes "
            "are selected from agree with torch"
        )
    elif same is not None:
        print(
            f"warning: nothing is detected on {count(same.images, 'image')}, by this file and by torch: that says "
            "little of either; compile trained weights",
            file=sys.stderr,
        )
    for path in result.files:
        print(f"wrote {path} ({size(path.stat().st_size)})")


def size(count: int) -> str:
    """`46 kB`, `21.2 MB`."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"
