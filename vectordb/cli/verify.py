"""``vectordb verify``: every checksum and every cross-check of a folder that no one else has open."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vectordb.errors import VectorDBError


def command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The database folder. Nothing in it is changed.")],
) -> None:
    """Exits 0 where everything holds, 1 with a list of what does not."""
    from vectordb.engine.verify import verify_folder

    try:
        problems = verify_folder(folder)
    except VectorDBError as error:
        problems = [f"{type(error).__name__}: {error.message}"]
    if problems:
        for problem in problems:
            typer.echo(problem)
        typer.secho(f"{len(problems)} problem{'s' if len(problems) > 1 else ''} in {folder}", fg="red", err=True)
        raise typer.Exit(1)
    typer.echo(f"{folder}: every checksum and every cross-check holds")
