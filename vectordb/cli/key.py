"""``vectordb key new``: a random API key, and the lines for the server's key file."""

from __future__ import annotations

import json
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
    policy: Annotated[
        str | None, typer.Option("--filter", help="JSON filter that rows must match to be read or written.")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="From when on it is refused, such as 2027-01-31.")] = None,
) -> None:
    """Prints a new key on standard error, and on standard output what to add to the file of --api-keys."""
    from pathlib import Path

    from vectordb.server.keys import new_key, parse_keys

    key, digest = new_key()
    lines = [f"name = {_toml(name)}", f'sha256 = "{digest}"', f"role = {_toml(role)}"]
    if collection:
        lines.append(f"collections = [{', '.join(map(_toml, collection))}]")
    if policy is not None:
        lines.append(f"filter = {_toml(policy)}")
    if expires is not None:
        _check_day(expires)
        lines.append(f"expires = {expires}")
    text = "\n".join(["[[key]]", *lines, ""])
    # What a server would refuse is refused here, and no key is shown for it.
    parse_keys(text, Path("this key"))
    typer.echo(f"key (shown once, kept nowhere): {key}", err=True)
    typer.echo(text)


def _check_day(expires: str) -> None:
    """What is no date of TOML would be a fault of a file that the user never saw."""
    from datetime import datetime

    from vectordb.errors import InvalidArgument

    try:
        datetime.fromisoformat(expires)
    except ValueError:
        raise InvalidArgument(
            f"expires is a date or a time, such as 2027-01-31, got {expires!r}", field="expires"
        ) from None


def _toml(text: str) -> str:
    """A basic string of TOML, which is JSON's but for surrogate pairs and DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
