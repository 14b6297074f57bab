"""``vectordb ask``: one question to a knowledge base."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from vectordb.cli.knowledge import DEFAULT_NAME, ApiKey, MinScore, Model, Name, Target, answering, sources, unkept
from vectordb.errors import VectorDBError


def command(
    target: Target,
    question: Annotated[str, typer.Argument(help="The question.")],
    kb: Name = DEFAULT_NAME,
    llm: Model = "small",
    min_score: MinScore = None,
    rounds: Annotated[int, typer.Option(help="Rounds of retrieval.", min=1, max=10, envvar="VECTORDB_ROUNDS")] = 1,
    where: Annotated[str | None, typer.Option(help="A filter on metadata, as JSON.", envvar="VECTORDB_WHERE")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer with its trace as JSON.")] = False,
    api_key: ApiKey = None,
) -> None:
    """Answers a question from the documents that were ingested, with its sources, or refuses. Exits 3 on a refusal."""
    from vectordb.filter import Filter

    condition = None if where is None else Filter.from_json(where)
    with answering(target, kb, api_key, llm) as base:
        try:
            answer = base.ask(question, min_score=min_score, max_rounds=rounds, where=condition)
        except VectorDBError as error:
            answer = unkept(error)
    if as_json:
        from vectordb_client.rag.feedback import as_dict

        typer.echo(json.dumps(as_dict(answer), indent=2, ensure_ascii=False, default=str))
    else:
        typer.echo(answer.text)
        for line in sources(answer):
            typer.echo(f"  {line}")
        if not answer.refused and not answer.grounded:
            typer.secho("  not everything here is supported by the sources", fg="yellow")
    if answer.refused:
        raise typer.Exit(3)
