"""``vectordb upgrade``: brings a folder of an older format to the one that this release reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The database folder; nobody may have it open.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
) -> None:
    """Does nothing to a folder of the present format; refuses one of a newer."""
    from vectordb.cli.info import require_folder
    from vectordb.engine.care.upgrade import upgrade

    require_folder(folder, "upgrade")
    done = upgrade(folder, dry_run=dry_run)
    if not done.steps:
        typer.echo(f"{folder}: format {done.found} is what this release reads and writes; nothing to do")
        return
    for step in done.steps:
        typer.echo(f"{'would be done' if dry_run else 'done'}: {step}")
    typer.echo(f"{folder}: format {done.found} {'would become' if dry_run else 'became'} {done.format}")
