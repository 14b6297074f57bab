"""``vectordb backup``: an online, consistent, incremental copy of a whole database."""

from __future__ import annotations

from typing import Annotated

import typer

from vectordb.cli.info import size


def command(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A database folder, or a server as HOST:PORT.")],
    destination: Annotated[
        str, typer.Argument(metavar="DEST", help="A folder or an fsspec URL; of a server, at or below its --backup-to.")
    ] = "",
    keep: Annotated[
        int | None, typer.Option(min=1, help="Afterwards remove all but the newest KEEP backups at DEST.")
    ] = None,
    api_key: Annotated[str | None, typer.Option(help="Key for a server.", envvar="VECTORDB_API_KEY")] = None,
) -> None:
    """Writes a backup while reads and writes go on. Only what DEST lacks is written."""
    from vectordb.backup.archive import prune
    from vectordb.backup.places import place_of
    from vectordb.cli.info import require_database
    from vectordb.errors import InvalidArgument
    from vectordb_client import connect
    from vectordb_client.targets import Kind, parse_target

    served = parse_target(target).kind is not Kind.FOLDER
    if keep is not None and served:
        raise InvalidArgument("--keep removes files: use it beside them, on a folder of backups", field="keep")
    if not served and not destination:
        raise InvalidArgument("name a destination for the backup: a folder or a URL", field="destination")
    require_database(target)
    with connect(target, api_key=api_key) as db:
        made = db.backup(destination)
    typer.echo(
        f"backup {made.id}: {len(made.collections)} collections, {made.files} files, {size(made.total_bytes)}, "
        f"{size(made.new_bytes)} of it new"
    )
    if keep is not None:
        for gone in prune(place_of(destination), keep):
            typer.echo(f"removed backup {gone}")
