"""What ``ingest``, ``ask`` and ``chat`` share: opening a knowledge base and choosing its language model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vectordb.errors import NotFound, VectorDBError

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
def opened(target: str, name: str, api_key: str | None) -> Iterator[KnowledgeBase]:
    """The knowledge base ``name``, to put documents into it: what is not there is made."""
    from vectordb_client import connect
    from vectordb_client.rag import KnowledgeBase

    with connect(target, api_key=api_key) as db:
        yield KnowledgeBase(db, name)


@contextmanager
def answering(target: str, name: str, api_key: str | None, model: str) -> Iterator[KnowledgeBase]:
    """The knowledge base ``name``, which has to be there, with the language model that ``model`` names.

    Raises:
        NotFound: There is no such folder, or no such knowledge base in it; nothing is made.
        FailedPrecondition: The model's packages are not installed.
    """
    from vectordb.cli.info import require_database
    from vectordb_client import connect
    from vectordb_client.rag import KnowledgeBase
    from vectordb_client.rag.asking import AnswerConfig
    from vectordb_client.rag.store.state import StateStore

    require_database(target)
    with connect(target, api_key=api_key) as db:
        if StateStore(db, name).read() is None:
            raise NotFound(
                f"there is no knowledge base {name!r} at {target!r}; name it with --kb, or fill it: "
                f"vectordb ingest {target} PATHS --kb {name}",
                knowledge_base=name,
            )
        chosen = choose(model)
        yield KnowledgeBase(db, name, llm=chosen.llm, answering=AnswerConfig(options=chosen.options))


def unkept(error: VectorDBError) -> Answer:
    """The answer that could not be kept, as with a key that only reads; says so. Any other error is raised again."""
    answer: Answer | None = getattr(error, "answer", None)
    if answer is None:
        raise error
    typer.secho(f"not kept: {error.__cause__}", fg="yellow", err=True)
    return answer


def sources(answer: Answer) -> list[str]:
    """The citations of an answer as lines."""
    lines = []
    for citation in answer.citations:
        shown = " ".join(citation.text.split())
        shown = shown if len(shown) <= 100 else f"{shown[:97]}..."
        lines.append(f"[{citation.marker}] {citation.document_id}, characters {citation.start}-{citation.end}: {shown}")
    return lines
