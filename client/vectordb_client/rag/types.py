"""What goes through the answering layer: documents, chunks, passages, citations, answers. Plain data, nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vectordb_client.rag.trace import Trace


@dataclass(frozen=True, slots=True)
class Section:
    """What holds from a place in a document's text on, until the next section: a page, a heading.

    Attributes:
        start: First character of the section in the document's text.
        metadata: Added to the metadata of every chunk that begins in it, such as ``page`` or ``heading``.
    """

    start: int
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Document:
    """One text as its author wrote it.

    Attributes:
        id: Stable name: for a file its path below the folder that was added, else what the caller gives.
        text: The whole text; spans of chunks and citations count its characters (code points).
        metadata: Kept with every chunk: ``source`` and what the caller adds.
        sections: Pages or headings, in ascending order of their start.
    """

    id: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    sections: tuple[Section, ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stretch of one document that is embedded and stored as one record.

    Attributes:
        document_id: The document that it is a part of.
        number: Its place among the document's chunks, from 0.
        start, end: Its span in the document's text, in characters: ``text == document.text[start:end]``.
        metadata: The document's, and its section's (such as ``page`` and ``heading``).
    """

    document_id: str
    number: int
    start: int
    end: int
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The record's id."""
        return f"{self.document_id}#{self.number}"


@dataclass(frozen=True, slots=True)
class Passage:
    """A retrieved chunk.

    Attributes:
        score: The collection's score of the best query that found it (cosine similarity), whatever ordered the list.
        rank: Its place in the answer, from 1.
        rerank_score: What the reranker said, or ``None``.
    """

    document_id: str
    chunk_id: str
    text: str
    score: float
    start: int
    end: int
    rank: int
    metadata: Mapping[str, Any] = field(default_factory=dict)
    rerank_score: float | None = None


@dataclass(frozen=True, slots=True)
class Citation:
    """One accepted ``[n]`` of an answer's text.

    Attributes:
        marker: n, the number in the text.
        document_id, chunk_id: What it points to.
        start, end: The chunk's span in the document, in characters.
        text: That span, verbatim.
    """

    marker: int
    document_id: str
    chunk_id: str
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What ``ask`` returns.

    Attributes:
        id: Names the answer in feedback, export and replay.
        text: The answer, with its ``[n]`` markers; the refusal's wording where ``refused``.
        grounded: Every claim-bearing sentence is cited and supported by what it cites.
        refusal_reason: ``"no_passages"``, ``"below_min_score"``, a guard's name, ..., or ``None``.
        trace: What happened, stage by stage.
    """

    id: str
    question: str
    text: str
    citations: tuple[Citation, ...]
    passages: tuple[Passage, ...]
    grounded: bool
    refused: bool
    refusal_reason: str | None
    trace: Trace
