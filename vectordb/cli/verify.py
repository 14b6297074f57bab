"""``vectordb verify``: every checksum and every cross-check of a database, closed or in use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vectordb.errors import DirectoryLocked, VectorDBError
from vectordb.requests import SAMPLE_SEARCHES

if TYPE_CHECKING:
    from vectordb.reports import VerifyReport


def command(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="A database folder, or a server as HOST:PORT. Nothing is changed.")
    ],
    searches: Annotated[
        int, typer.Option(min=0, max=1000, help="Searches of each collection to compare with exact ones.")
    ] = SAMPLE_SEARCHES,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.", envvar="VECTORDB_JSON")] = False,
    api_key: Annotated[str | None, typer.Option(help="Key for a server.", envvar="VECTORDB_API_KEY")] = None,
) -> None:
    """Exits 0 where everything holds, 1 with a list of what does not."""
    from vectordb.reports import Problem, VerifyReport

    try:
        report = check(target, searches, api_key)
    except VectorDBError as error:
        report = VerifyReport(target, (Problem("storage", f"{type(error).__name__}: {error.message}"),))
    if as_json:
        typer.echo(json.dumps(report.as_json(), indent=2))
    else:
        show(report)
    if not report.ok:
        raise typer.Exit(1)


def check(target: str, searches: int, api_key: str | None = None) -> VerifyReport:
    """The report on a folder, through its owner where another process has it open, or on a server."""
    from vectordb_client import connect
    from vectordb_client.targets import Kind, parse_target

    if parse_target(target).kind is Kind.FOLDER:
        from vectordb.engine.care.verify import verify

        try:
            return verify(Path(target), searches)
        except DirectoryLocked as locked:
            if locked.fields.get("door") is None:
                raise
    with connect(target, api_key=api_key) as db:
        return db.verify(searches)


def show(report: VerifyReport) -> None:
    """Prints a report for people."""
    for problem in report.problems:
        typer.echo(str(problem))
    for note in report.notes:
        typer.echo(f"note: {note}")
    if report.problems:
        count = len(report.problems)
        typer.secho(f"{count} problem{'s' if count > 1 else ''} in {report.path}", fg="red", err=True)
        return
    for checked in report.collections:
        recall = "" if checked.recall is None else f", recall of {checked.searches} searches {checked.recall:.3f}"
        typer.echo(f"{checked.name}: {checked.records:,} records, {checked.segments} segments{recall}")
    typer.echo(f"{report.path}: every checksum and every cross-check holds")
