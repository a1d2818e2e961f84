"""`detc native`: the library of native ops."""

from __future__ import annotations

from typing import Annotated

import typer

from detc.cli.console import command

app = command(no_args_is_help=True, help="The library of native ops: what is built, and building it.")


@app.command()
def status() -> None:
    """Tell what is built, for which architectures, and from which sources. Builds nothing."""
    from detc.nativeops import cli_api

    print(cli_api.status())


@app.command()
def build(
    force: Annotated[bool, typer.Option("--force", help="Compile every source anew.")] = False,
    wheel: Annotated[
        bool, typer.Option("--wheel", help="For any x86-64 with AVX2, into the package and a wheel in dist/.")
    ] = False,
) -> None:
    """Build the libraries for torch and ONNX Runtime ahead of the first use.

    With nvcc on the PATH the torch library has CUDA kernels too, unless DETC_CUDA=0. Exits with 1 when a
    compiler fails, after its own words.
    """
    import sys

    from detc.nativeops import cli_api
    from detc.nativeops.toolchain import NativeBuildError

    try:
        print(cli_api.build(force=force, wheel=wheel))
    except NativeBuildError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from None
