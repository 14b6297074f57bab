"""``vectordb repair``: makes a damaged database sound again, and says exactly what is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vectordb.reports import RepairReport


def command(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="A database folder. Of a server (HOST:PORT) damaged segments and indexes are made anew while it runs.",
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Go on although records are lost.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.", envvar="VECTORDB_JSON")] = False,
    api_key: Annotated[str | None, typer.Option(help="Key for a server.", envvar="VECTORDB_API_KEY")] = None,
) -> None:
    """Moves what cannot be read into DIR/quarantine, makes caches anew, keeps every record that can be read.

    Exits 0 where nothing is wrong (any more), 1 else. Where records are lost nothing is done without --yes.
    """
    report = repair(target, dry_run=dry_run, yes=yes, api_key=api_key)
    if as_json:
        typer.echo(json.dumps(report.as_json(), indent=2))
    else:
        show(report)
    refused = report.dry_run and not dry_run
    if refused:
        typer.secho("nothing was changed: data is lost; repeat it with --yes to go on without it", fg="red", err=True)
    if not report.ok:
        raise typer.Exit(1)


def repair(target: str, *, dry_run: bool, yes: bool, api_key: str | None = None) -> RepairReport:
    """The report on a closed folder, or on a running database."""
    from vectordb_client import connect
    from vectordb_client.targets import Kind, parse_target

    if parse_target(target).kind is Kind.FOLDER:
        from vectordb.engine.care.repair import repair_folder

        return repair_folder(Path(target), dry_run=dry_run, accept_loss=yes)
    with connect(target, api_key=api_key) as db:
        return db.repair(dry_run)


def show(report: RepairReport) -> None:
    """Prints a report for people."""
    would = "would be " if report.dry_run else ""
    for what in report.rebuilt:
        typer.echo(f"{would}rebuilt: {what}")
    for what in report.quarantined:
        typer.echo(f"{would}moved aside: {what}")
    for lost in report.lost:
        typer.secho(f"lost: {lost}", fg="red")
        for id_ in lost.ids:
            typer.echo(f"  {id_}")
    for problem in report.problems:
        typer.echo(f"{'' if report.dry_run else 'still '}wrong: {problem}")
    if report.ok:
        typer.echo(f"{report.path}: every checksum and every cross-check holds")
