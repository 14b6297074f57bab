"""``vectordb doctor``: what this machine and a folder offer a database, and what to mend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The database folder, or where it will be.")] = Path(
        "./data"
    ),
    config: Annotated[
        str | None, typer.Option(help="The server's TOML file: who can read its secrets [env: VECTORDB_CONFIG].")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Checks releases, processor, memory, limits, permissions, free space and the disk's sync; exits 1 on a failure."""
    from vectordb.cli.checkup import State, examine, secrets
    from vectordb.cli.info import require_folder

    require_folder(folder, "doctor")
    findings = [*examine(folder), *secrets(config)]
    if as_json:
        typer.echo(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            colour = {State.OK: "green", State.WARN: "yellow", State.FAIL: "red"}[finding.state]
            typer.echo(f"{typer.style(f'{finding.state:4}', fg=colour)}  {finding.name:{width}}  {finding.found}")
            if finding.advice:
                typer.echo(f"      {'':{width}}  -> {finding.advice}")
    if any(finding.state is State.FAIL for finding in findings):
        raise typer.Exit(1)
