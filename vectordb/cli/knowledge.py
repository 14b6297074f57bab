"""What ``ingest``, ``ask`` and ``chat`` share: opening a knowledge base and choosing its language model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from vectordb_client.rag import Answer, KnowledgeBase
    from vectordb_client.rag.llm import LLM

Target = Annotated[str, typer.Argument(help="A database folder, or a server as HOST:PORT.")]
Name = Annotated[str, typer.Option("--kb", help="Name of the knowledge base.", envvar="VECTORDB_KB")]
ApiKey = Annotated[str | None, typer.Option(help="Key for a server.", envvar="VECTORDB_API_KEY")]
Model = Annotated[
    str,
    typer.Option(
        "--llm",
        help="MODEL@URL of an OpenAI-compatible endpoint (key in OPENAI_API_KEY), the path of a GGUF file, or 'small'.",
        envvar="VECTORDB_LLM",
    ),
]
MinScore = Annotated[
    float | None,
    typer.Option(help="Refuse below this similarity; by default the knowledge base's.", envvar="VECTORDB_MIN_SCORE"),
]
DEFAULT_NAME = "documents"


@dataclass(frozen=True, slots=True)
class Chosen:
    """A language model, and the options that suit it."""

    llm: LLM
    options: dict[str, Any]


def choose(model: str) -> Chosen:
    """The language model that ``--llm`` names.

    Raises:
        FailedPrecondition: Its packages are not installed. NotFound: There is no such file.
    """
    from vectordb_client.rag.llm import LlamaCpp, OpenAICompatible
    from vectordb_client.rag.templates import SMALL

    name, _, url = model.partition("@")
    if url:
        return Chosen(OpenAICompatible(name, base_url=url), {})
    if model == "small":
        return Chosen(LlamaCpp(), {"template": SMALL, "limit": 3, "max_tokens": 64})
    return Chosen(LlamaCpp(model, context_tokens=4096), {})


@contextmanager
def opened(target: str, name: str, api_key: str | None, model: str | None = None) -> Iterator[KnowledgeBase]:
    """The knowledge base ``name``, with a language model where ``model`` names one."""
    from vectordb_client import connect
    from vectordb_client.rag import KnowledgeBase
    from vectordb_client.rag.asking import AnswerConfig

    chosen = None if model is None else choose(model)
    answering = AnswerConfig(options={} if chosen is None else chosen.options)
    with connect(target, api_key=api_key) as db:
        yield KnowledgeBase(db, name, llm=None if chosen is None else chosen.llm, answering=answering)


def sources(answer: Answer) -> list[str]:
    """The citations of an answer as lines."""
    lines = []
    for citation in answer.citations:
        shown = " ".join(citation.text.split())
        shown = shown if len(shown) <= 100 else f"{shown[:97]}..."
        lines.append(f"[{citation.marker}] {citation.document_id}, characters {citation.start}-{citation.end}: {shown}")
    return lines
