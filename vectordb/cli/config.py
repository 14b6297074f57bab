"""``vectordb config show``: every setting of the server, its value, and where that came from."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from vectordb.server.config import SETTINGS, load

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="The server's settings.")


@app.callback()
def group() -> None:
    """The server's settings."""


@app.command()
def show(
    config: Annotated[str | None, typer.Option(help="TOML file of settings [env: VECTORDB_CONFIG].")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Prints each setting's value and origin: flag > environment > file > default."""
    settled = load(file=config)
    rows = [(s.name, settled.values[s.name], settled.origins[s.name]) for s in SETTINGS]
    own = {f"engine.{name}": value for name, value in settled.engine.items()}
    rows += [(name, value, settled.origins[name]) for name, value in own.items() if name in settled.origins]
    if as_json:
        typer.echo(
            json.dumps(
                {name: {"value": value, "origin": origin} for name, value, origin in rows}, indent=2, default=str
            )
        )
        return
    for name, value, origin in rows:
        typer.echo(f"{name} = {json.dumps(value, default=str)}  # {origin}")
