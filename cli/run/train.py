"""`detc run train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from detc.cli.console import Json, Run, Sets, Spec, checked, command, print_json, table
from detc.cli.run.options import Device

app = command()
INTERRUPTED = 130  # as shells have it: 128 and the number of SIGINT


@app.command()
def train(
    spec: Spec,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Default: runs/<spec>[-<run>].")] = None,
    run: Run = None,
    sets: Sets = [],  # noqa: B006
    resume: Annotated[bool, typer.Option("--resume", help="Go on from last.pt.")] = False,
    init: Annotated[str | None, typer.Option("--init", help="`random`, or a checkpoint.")] = None,
    weights_dir: Annotated[Path | None, typer.Option(help="Where downloaded weights of `from` lie.")] = None,
    device: Device = None,
    procs: Annotated[int, typer.Option("--procs", min=1, help="Processes of one training (DDP).")] = 1,
    compile: Annotated[bool, typer.Option("--compile", help="Use torch.compile.")] = False,
    max_iterations: Annotated[int | None, typer.Option(min=1, help="Stop early.")] = None,
    draw: Annotated[int, typer.Option(min=0, help="Images to draw.")] = 8,
    report: Annotated[bool, typer.Option("--report/--no-report")] = True,
    plain: Annotated[bool | None, typer.Option("--plain", help="No progress bar.")] = None,
    json: Json = False,
) -> None:
    """Train a run.

    Checkpoints, metrics, TensorBoard events, drawings and report.html go to the output folder. Ctrl-C stops
    after the present step, with exit code 130; --resume goes on from there.
    """
    resolved = checked(spec, sets, run, as_json=json).run(run)
    from detc.runtime.api import default_folder
    from detc.runtime.train.engine import train as train_run

    folder = out or default_folder(spec, run)
    result = train_run(
        resolved,
        out=folder,
        device=device,
        procs=procs,
        resume=resume,
        init=init,
        weights_dir=weights_dir,
        compile=compile,
        max_iterations=max_iterations,
        draw=draw,
        plain=plain,
        aside=json,
    )
    interrupted = result.stopped == "interrupted"
    written = None
    if report and not interrupted:
        from detc.runtime.run_report import write_run_report

        written = write_run_report(folder)
    if json:
        facts = {"out": folder, "best": result.best, "last": result.last, "report": written}
        found = {name: str(path) if path else None for name, path in facts.items()}
        numbers = {"metrics": result.metrics, "best_metrics": result.best_metrics}
        print_json({**found, **numbers, "stopped": result.stopped})
    elif not interrupted:
        table(
            [
                ("checkpoint", str(result.best or result.last)),
                ("metrics", str(folder / "metrics.jsonl")),
                *([("report", str(written))] if written else []),
            ]
        )
    if interrupted:
        raise typer.Exit(INTERRUPTED)
