"""`detc doctor`: what a bug report needs, and what an installation lacks."""

from __future__ import annotations

from detc.cli.console import Json, command, print_json

app = command()


@app.command()
def doctor(json: Json = False) -> None:
    """Report on the environment: versions, devices, native library, caches.

    Exits with 1 if something that detc needs is missing.
    """
    import typer

    from detc.runtime.environment import problems, report

    facts = report()
    missing = problems(facts)
    if json:
        print_json({**facts, "problems": missing})
    else:
        for section, entries in facts.items():
            print(section)
            width = max((len(name) for name in entries), default=0)
            for name, value in entries.items():
                print(f"  {name:<{width}}  {value}")
        for problem in missing:
            print(f"problem: {problem}")
        if not missing:
            print("all is well")
    if missing:
        raise typer.Exit(1)
