"""``vectordb chat``: questions and answers in the terminal, sentence by sentence, with their sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from vectordb.cli.knowledge import DEFAULT_NAME, ApiKey, MinScore, Model, Name, Target, answering, sources, unkept
from vectordb.errors import VectorDBError

if TYPE_CHECKING:
    from vectordb_client.rag import Answer, KnowledgeBase

_HELP = "A question, or: /good or /bad [COMMENT] about the last answer, /why for its trace, /quit"


def command(
    target: Target,
    kb: Name = DEFAULT_NAME,
    llm: Model = "small",
    min_score: MinScore = None,
    api_key: ApiKey = None,
) -> None:
    """Answers questions until /quit or the end of the input. Each question stands alone."""
    with answering(target, kb, api_key, llm) as base:
        typer.secho(_HELP, dim=True)
        last: Answer | None = None
        while (line := _line()) is not None and line != "/quit":
            if line.startswith("/"):
                _told(base, line, last)
            elif line:
                last = _answered(base, line, min_score) or last


def _line() -> str | None:
    try:
        return input("> ").strip()
    except EOFError:
        return None


def _answered(base: KnowledgeBase, question: str, min_score: float | None) -> Answer | None:
    """Shows an answer as it is written, and returns it."""
    answer = None
    try:
        for event in base.ask_stream(question, min_score=min_score):
            typer.echo(event.text, nl=False)
            if event.answer is not None:
                answer = event.answer
    except VectorDBError as error:
        if not hasattr(error, "answer"):
            typer.secho(f"\n{type(error).__name__}: {error.message}", fg="red")
            return None
        typer.echo()
        answer = unkept(error)
    if answer is None or answer.refused:
        typer.secho("" if answer is None else answer.text, fg="yellow")
        return answer
    typer.echo()
    for line in sources(answer):
        typer.secho(f"  {line}", dim=True)
    if not answer.grounded:
        typer.secho("  not everything here is supported by the sources", fg="yellow")
    return answer


def _told(base: KnowledgeBase, line: str, last: Answer | None) -> None:
    """Carries out a command about the last answer."""
    name, _, comment = line.partition(" ")
    if name not in ("/good", "/bad", "/why"):
        typer.echo(_HELP)
    elif last is None:
        typer.echo("there is no answer yet")
    elif name == "/why":
        for stage in last.trace.stages:
            typer.echo(f"  {stage.name:10} {stage.took_ms:9.1f} ms")
    else:
        try:
            base.feedback(last.id, 1 if name == "/good" else -1, comment.strip())
        except VectorDBError as error:  # such as about an answer that could not be kept
            typer.secho(f"{type(error).__name__}: {error.message}", fg="red")
        else:
            typer.echo("thank you")
