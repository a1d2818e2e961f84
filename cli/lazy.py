"""Groups of commands whose files are imported only when they are asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup


def lazy_group(package: str, commands: tuple[str, ...], **options: Any) -> typer.Typer:
    """An application whose command `x` is the application `app` of `package.x`."""

    class Group(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            return list(commands)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            if cmd_name not in commands:
                return None
            return typer.main.get_command(import_module(f"{package}.{cmd_name}").app)

    help_names = {"help_option_names": ["-h", "--help"]}
    return typer.Typer(
        cls=Group, no_args_is_help=True, add_completion=False, context_settings=help_names, **options
    )
