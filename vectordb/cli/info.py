"""``vectordb info``: what a folder or a running server holds."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from vectordb import arguments
from vectordb.errors import InvalidArgument, NotFound, os_errors_told

_COLUMNS = (
    "collection", "rows", "deleted", "dim", "metric", "index", "indexed", "tail", "segments", "memory", "disk", "state",
)  # fmt: skip


def command(
    target: Annotated[str, typer.Argument(help="A database folder, or a server as HOST:PORT.")],
    api_key: Annotated[str | None, typer.Option(help="Key for a server.", envvar="VECTORDB_API_KEY")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.", envvar="VECTORDB_JSON")] = False,
) -> None:
    """Prints the versions, the collections, their sizes and what the optimizer does."""
    facts = describe(target, api_key)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    typer.echo(
        f"vectordb {facts['version']}, format {facts['format_version']}, {facts['path']}, "
        f"durability {facts['durability']}"
    )
    if facts["read_only_reason"]:
        typer.secho(f"read-only: {facts['read_only_reason']}", fg="red")
    limit = "no limit" if facts["memory_limit"] is None else f"a limit of {size(facts['memory_limit'])}"
    kinds = ", ".join(f"{kind} {size(count)}" for kind, count in facts["memory"].items())
    typer.echo(f"memory under {limit}: {kinds}")
    rows = [_row(collection) for collection in facts["collections"]]
    if not rows:
        typer.echo("no collections")
        return
    for line in table([_COLUMNS, *rows]):
        typer.echo(line)


def describe(target: str, api_key: str | None = None) -> dict[str, Any]:
    """The facts about a database as JSON-like values.

    Raises:
        NotFound: ``target`` is a folder without a database in it; it is not made.
    """
    from vectordb_client import connect

    require_database(target)
    with connect(target, api_key=api_key) as db:
        info = db.info()
        collections = []
        for name in info.collections:
            collection = db.collection(name)
            stats = collection.stats()
            collections.append(
                {
                    "name": name,
                    "dim": collection.dim,
                    "metric": collection.metric.value,
                    "index": {"kind": collection.index.kind, **collection.index.params},
                    "rows": stats.rows,
                    "deleted": stats.deleted,
                    "indexed_rows": stats.indexed_rows,
                    "tail_rows": stats.tail_rows,
                    "version": stats.version,
                    "memory_bytes": stats.memory_bytes,
                    "memory": dict(stats.memory),
                    "disk_bytes": stats.disk_bytes,
                    "segments": [{key: segment[key] for key in segment.keys()} for segment in stats.segments],  # noqa: SIM118
                    "optimizer": {
                        "state": stats.optimizer.state,
                        "progress": stats.optimizer.progress,
                        "error": stats.optimizer.error,
                    },
                }
            )
    return {
        "version": info.version,
        "format_version": info.format_version,
        "path": info.path,
        "durability": info.durability.value,
        "read_only_reason": info.read_only_reason,
        "memory": dict(info.memory),
        "memory_limit": info.memory_limit,
        "collections": collections,
    }


def require_database(target: str) -> None:
    """So that no command makes a database by a slip of the finger.

    Raises:
        NotFound: ``target`` is a folder without a database in it. FailedPrecondition: This user may not look into it.
    """
    from vectordb_client.targets import Kind, parse_target

    if parse_target(target).kind is not Kind.FOLDER:
        return
    folder = arguments.folder(target)
    with os_errors_told(f"folder {folder} cannot be opened", path=str(folder)):
        found = (folder / "FORMAT").is_file()
    if not found:
        raise NotFound(f"there is no database in the folder {target!r}", path=target)


def require_folder(given: Path, command: str) -> None:
    """So that a server's address is not taken for a folder that is empty, with which all is well.

    Raises:
        InvalidArgument: ``given`` is a server.
    """
    from vectordb_client.targets import Kind, parse_target

    if not os.path.exists(arguments.folder(given)) and parse_target(str(given)).kind is Kind.SERVER:
        raise InvalidArgument(
            f"{str(given)!r} is a server, and {command} is about a folder of this machine; of a server there are info, "
            f"verify and repair (a folder of this name has to be there)",
            field="folder",
        )


def size(count: float) -> str:
    """A number of bytes for people: ``1.5 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as aligned lines, the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _row(collection: dict[str, Any]) -> tuple[str, ...]:
    optimizer = collection["optimizer"]
    state = optimizer["state"]
    if state not in ("idle", "failed"):
        state = f"{state} {optimizer['progress']:.0%}"
    return (
        collection["name"],
        f"{collection['rows']:,}",
        f"{collection['deleted']:,}",
        str(collection["dim"]),
        collection["metric"],
        collection["index"]["kind"],
        f"{collection['indexed_rows']:,}",
        f"{collection['tail_rows']:,}",
        str(len(collection["segments"])),
        size(collection["memory_bytes"]),
        size(collection["disk_bytes"]),
        state,
    )
