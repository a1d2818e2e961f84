"""`detc data`: make the sample set, count a data set, look at what a pipeline makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detc.cli.console import Json, Run, Sets, Spec, chosen_run, command, count, print_json, table, usage

if TYPE_CHECKING:
    from detc.compiler.spec import DataSpec
    from detc.runtime.data.inspect import SplitReport

app = command(no_args_is_help=True)


@app.callback()
def data() -> None:
    """Make, count and look at data."""


@app.command()
def synth(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Folder to make it in.")] = Path("data/synth"),
    images: Annotated[int, typer.Option(min=1, help="Training images.")] = 600,
    val: Annotated[int, typer.Option(min=0, help="Images of the held-back split.")] = 100,
    seed: Annotated[int, typer.Option(help="Another seed makes another set.")] = 0,
    smallest: Annotated[int, typer.Option(min=32, help="Shortest side in pixels.")] = 160,
    largest: Annotated[int, typer.Option(min=32, help="Longest side in pixels.")] = 256,
    clips: Annotated[int, typer.Option(min=0, help="So many clips of moving shapes, not images.")] = 0,
    frames: Annotated[int, typer.Option(min=2, help="Frames of a clip.")] = 30,
    panoptic: Annotated[
        bool, typer.Option("--panoptic", help="Grounds of sand, water and grass, and panoptic maps.")
    ] = False,
) -> None:
    """Make the built-in sample set: shapes on textured backgrounds, COCO format, with masks.

    With --clips, short clips of moving shapes instead, in MOTChallenge's format, --val of them held back.

    Does nothing if it is there already with the same settings.
    """
    from rich.progress import Progress

    from detc.runtime.data.synth import generate

    if smallest > largest:
        raise usage(f"--smallest {smallest} exceeds --largest {largest}")
    if clips:
        _clips(root, clips, val, frames, seed)
        return
    with Progress(transient=True) as bar:
        task = bar.add_task("drawing", total=images + val)
        generate(
            root, images, seed, val=val, smallest=smallest, largest=largest, panoptic=panoptic,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    print(f"{root}: {count(images, 'training image')}, {count(val, 'held-back image')}")


def _clips(root: Path, clips: int, val: int, frames: int, seed: int) -> None:
    from rich.progress import Progress

    from detc.runtime.data.synth_clips import generate_clips

    with Progress(transient=True) as bar:
        task = bar.add_task("drawing", total=clips + val)
        generate_clips(
            root, clips, seed, val=val, frames=frames,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    print(f"{root}: {count(clips, 'training clip')}, {count(val, 'held-back clip')} of {frames} frames")


@app.command()
def report(
    spec: Spec,
    run: Run = None,
    sets: Sets = [],  # noqa: B006 (typer copies it)
    verify: Annotated[bool, typer.Option("--verify", help="Decode every image, too.")] = False,
    json: Json = False,
) -> None:
    """Count images and boxes of a spec's data, and say what is dropped and why."""
    from detc.runtime.data.inspect import describe

    spec_data = _data(spec, sets, run, json)
    splits = [s for s in ("train", "val", "test") if s in spec_data.source.splits()]
    reports = [describe(spec_data, s, train=s == "train", verify=verify) for s in splits]
    if json:
        print_json([r.to_dict() for r in reports])
        return
    for one in reports:
        _print(one)


def _print(one: SplitReport) -> None:
    print(f"{one.split}: {count(one.images, 'image')}, {sum(one.boxes.values())} boxes")
    rows = [(name, str(n)) for name, n in sorted(one.boxes.items(), key=lambda item: -item[1])[:20]]
    if one.empty:
        rows.append(("without objects", count(one.empty, "image")))
    if one.crowds or one.difficult:
        rows.append(("not trained on", f"{one.crowds} crowds, {one.difficult} difficult"))
    if one.sides:
        rows.append(("box side, px", "5 % {}, 25 % {}, median {}, 75 % {}, 95 % {}".format(*one.sides)))
    rows.append(("image sizes", ", ".join(f"{s} ({n})" for s, n in one.sizes)))
    table(rows)
    for line in [*one.dropped, *(f"{p.file}: {p.reason}" for p in one.problems)]:
        print(f"  ! {line}")


@app.command()
def browse(
    spec: Spec,
    out: Annotated[Path, typer.Option("-o", "--out", help="The picture to write.")] = Path("browse.png"),
    run: Run = None,
    sets: Sets = [],  # noqa: B006 (typer copies it)
    split: Annotated[str, typer.Option(help="Which split.")] = "train",
    pipeline: Annotated[str | None, typer.Option(help="Which pipeline; the one in use by default.")] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="How many images.")] = 12,
    seed: Annotated[int, typer.Option(help="Chooses images and random steps.")] = 0,
) -> None:
    """Draw what a pipeline makes of some images, with their boxes and masks, on one sheet."""
    from detc.runtime.data.inspect import pictures
    from detc.runtime.draw import grid

    drawn = pictures(_data(spec, sets, run, False), split, n, pipeline=pipeline, seed=seed)
    captions, images = [c for c, _ in drawn], [i for _, i in drawn]
    out.parent.mkdir(parents=True, exist_ok=True)
    grid(images, captions).save(out)
    print(f"{out}: {count(len(images), 'image')}")


def _data(spec: str, sets: list[str], run: str | None, json: bool) -> DataSpec:
    from detc.dsl.diagnostics import error

    resolved = chosen_run(spec, sets, run, as_json=json)
    if resolved.data is None:
        raise error("DET0601", f"the run of {spec} names no data", help="write `data = …` in its run block")
    return resolved.data
