"""``vectordb export``: a collection as a Parquet file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def command(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A database folder, or a server as HOST:PORT.")],
    collection: Annotated[str, typer.Argument(metavar="COLLECTION")],
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The Parquet file to write.")],
    where: Annotated[str | None, typer.Option(help="Only records that match this filter, as JSON.")] = None,
    api_key: Annotated[str | None, typer.Option(help="Key for a server.", envvar="VECTORDB_API_KEY")] = None,
) -> None:
    """Writes ids, vectors, metadata and texts of one snapshot, and how the collection is made."""
    from vectordb.cli.info import require_database
    from vectordb.errors import InvalidFilter
    from vectordb_client import connect
    from vectordb_client.parquet import export_parquet

    require_database(target)
    try:
        condition = None if where is None else json.loads(where)
    except ValueError as error:
        raise InvalidFilter(f"--where is no JSON: {error}", field="where") from None
    with connect(target, api_key=api_key) as db:
        count = export_parquet(db.collection(collection), path, condition)
    typer.echo(f"{count} records of {collection} in {path}")
