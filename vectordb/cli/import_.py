"""``vectordb import``: a Parquet file into a collection."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A database folder, or a server as HOST:PORT.")],
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="The Parquet file to read.", exists=True, dir_okay=False)
    ],
    collection: Annotated[
        str | None, typer.Option(help="The collection; that of the exported file by default.")
    ] = None,
    id_column: Annotated[str | None, typer.Option(help="Of a file that was not exported here.")] = None,
    vector_column: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    text_column: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    api_key: Annotated[str | None, typer.Option(help="Key for a server.", envvar="VECTORDB_API_KEY")] = None,
) -> None:
    """Upserts the file's records; the collection is created as the file says where it does not exist."""
    from vectordb.cli.info import require_database
    from vectordb_client import connect
    from vectordb_client.parquet import Columns, exported_config, import_parquet

    named = {"id": id_column, "vector": vector_column, "text": text_column}
    given = {name: column for name, column in named.items() if column is not None}
    # Before a database is made for it: a file that was not exported here makes no collection, and so no database.
    if exported_config(path) is None or given:
        require_database(target)
    with connect(target, api_key=api_key) as db:
        made = import_parquet(db, path, collection, Columns(**given) if given else None)
        typer.echo(f"{made.count()} records in {made.name}")
