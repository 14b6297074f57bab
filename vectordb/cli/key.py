"""``vectordb key new``: a random API key, and the lines for the server's key file."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="API keys of a server.")


@app.callback()
def group() -> None:
    """API keys of a server."""


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the key, for logs.")],
    role: Annotated[str, typer.Option(help="read, write or admin.")] = "read",
    collection: Annotated[list[str] | None, typer.Option(help="A collection or pattern; may be repeated.")] = None,
) -> None:
    """Prints a new key on standard error, and on standard output what to add to the file of --api-keys."""
    import json

    from vectordb.server.keys import new_key

    key, digest = new_key()
    typer.echo(f"key (shown once, kept nowhere): {key}", err=True)
    lines = [f"name = {json.dumps(name)}", f'sha256 = "{digest}"', f"role = {json.dumps(role)}"]
    if collection:
        lines.append(f"collections = {json.dumps(collection)}")
    typer.echo("\n".join(["[[key]]", *lines, ""]))
