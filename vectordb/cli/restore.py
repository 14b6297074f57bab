"""``vectordb restore``: a database folder from a backup."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vectordb.cli.info import size


def command(
    source: Annotated[str, typer.Argument(metavar="BACKUPS", help="Where the backups lie: a folder or an fsspec URL.")],
    folder: Annotated[Path | None, typer.Argument(metavar="DIR", help="The new folder; missing or empty.")] = None,
    backup: Annotated[str | None, typer.Option(help="Which backup; the newest without it.")] = None,
    show: Annotated[bool, typer.Option("--list", help="Only list the backups.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Only read the backup and check every byte of it.")] = False,
) -> None:
    """Restores a backup, every file checked against its checksum; the folder appears whole or not at all."""
    from tqdm import tqdm

    from vectordb.backup import archive
    from vectordb.backup.places import place_of
    from vectordb.engine.care.backup import restore
    from vectordb.errors import Corruption, InvalidArgument

    place = place_of(source)
    if show:
        for listing in archive.listings(place):
            names = ", ".join(f"{name} at version {version}" for name, version in listing.collections.items())
            typer.echo(f"{listing.id}  {size(listing.total_bytes):>10}  {names or 'no collections'}")
        return
    listing = archive.load(place, backup)
    if check:
        if problems := archive.check(place, listing):
            raise Corruption(f"backup {listing.id!r} is damaged: {'; '.join(problems)}", backup=listing.id)
        typer.echo(f"backup {listing.id}: every checksum holds")
        return
    if folder is None:
        raise InvalidArgument("name the folder to restore into", field="folder")
    with tqdm(total=listing.total_bytes, unit="B", unit_scale=True, disable=None, leave=False) as bar:
        restore(source, folder, listing.id, bar.update)
    typer.echo(f"restored backup {listing.id} into {folder}")
