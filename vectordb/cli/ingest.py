"""``vectordb ingest``: files and folders into a knowledge base."""

from __future__ import annotations

from typing import Annotated

import typer

from vectordb.cli.knowledge import DEFAULT_NAME, ApiKey, Name, Target, opened


def command(
    target: Target,
    paths: Annotated[list[str], typer.Argument(help="Files and folders: txt, md, html, pdf, docx, csv, jsonl, ...")],
    kb: Name = DEFAULT_NAME,
    api_key: ApiKey = None,
) -> None:
    """Parses, chunks, embeds and stores documents. Run again, it writes only what changed and removes what vanished."""
    with opened(target, kb, api_key) as base:
        report = base.add(paths)
        typer.echo(str(report))
        for failure in report.failed:
            typer.secho(f"  {failure}", fg="yellow", err=True)
    if report.failed and not (report.added or report.updated or report.unchanged):
        raise typer.Exit(1)
