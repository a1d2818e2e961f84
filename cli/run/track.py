"""`detc run track`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from detc.cli.console import Json, Run, Sets, command, count, print_json, table
from detc.cli.run.options import Device, Model, Weights, track_rows

app = command()


@app.command()
def track(
    model: Model,
    video: Annotated[
        Path,
        typer.Argument(metavar="VIDEO|FOLDER", help="A video, a folder of frames or sequences."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder.")] = Path("tracks"),
    weights: Weights = None,
    run: Run = None,
    sets: Sets = [],  # noqa: B006
    detections: Annotated[
        Path | None,
        typer.Option("--detections", help="MOTChallenge file, for a model that takes detections."),
    ] = None,
    draw: Annotated[
        bool, typer.Option("--draw/--no-draw", help="Write videos with the tracks drawn.")
    ] = True,
    mot17: Annotated[bool, typer.Option("--mot17", help="Score by the rules of MOT16 and MOT17.")] = False,
    device: Device = None,
    json: Json = False,
) -> None:
    """Follow objects through a video: a MOTChallenge file and a drawn video.

    A folder with gt/gt.txt is scored: HOTA, MOTA, IDF1. A model that takes detections reads det/det.txt.
    """
    from rich.console import Console
    from rich.progress import Progress

    from detc.runtime.mot import score_tracks, track_to
    from detc.runtime.track import load_tracker
    from detc.runtime.video import open_videos

    videos = open_videos(video)
    tracker = load_tracker(model, weights=weights, run=run, sets=sets, device=device)
    followed = []
    with Progress(console=Console(stderr=True), transient=True) as bar:
        for one in videos:
            task = bar.add_task(one.name, total=len(one) or None)
            found = track_to(
                tracker,
                one,
                out,
                detections=detections,
                draw=draw,
                progress=lambda done, task=task: bar.update(task, completed=done),  # type: ignore[misc]
            )
            followed.append(found)
            if not json:
                seen = f"{count(found.frames, 'frame')}, {count(len(found.ids), 'track')}"
                bar.console.print(f"{one.name}: {seen}", highlight=False)
    numbers = score_tracks(followed, mot17=mot17)
    if json:
        facts = [
            {
                "video": f.video.name,
                "frames": f.frames,
                "tracks": len(f.ids),
                "boxes": f.boxes,
                "text": str(f.text),
                "picture": None if f.picture is None else str(f.picture),
            }
            for f in followed
        ]
        print_json({"videos": facts, "metrics": numbers})
        return
    for name, values in numbers.items():
        if len(numbers) == 1 or name == "combined" or len(numbers) <= 4:
            print(f"\n{name}")
            table(track_rows(values))
    print(f"\n{count(len(followed), 'video')} in {out}")
