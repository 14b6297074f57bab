"""Passages made longer by the chunks around them, for a reader who needs the context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vectordb_client.rag.store.generation import PLACE, Generation
from vectordb_client.rag.types import Passage


class Stretch(NamedTuple):
    """A verbatim stretch of a document: ``text == document.text[start:end]``."""

    start: int
    end: int
    text: str


def extended(generation: Generation, passages: Sequence[Passage], reach: int) -> list[Stretch]:
    """For each passage its span with up to ``reach`` chunks before and after it.

    No chunk is given twice: what lies between two passages goes to the better one, and a passage stays as it is where
    its neighbours are passages themselves.
    """
    numbers = [int(passage.chunk_id.rpartition("#")[2]) for passage in passages]
    around = {
        f"{passage.document_id}#{number + step}"
        for passage, number in zip(passages, numbers, strict=True)
        for step in range(-reach, reach + 1)
        if number + step >= 0
    }
    taken = {passage.chunk_id for passage in passages}
    found: dict[str, Stretch] = {}
    for record in generation.chunks.get(sorted(around - taken), include=("metadata", "text")):
        place = (record.metadata or {})[PLACE]
        found[record.id] = Stretch(place["start"], place["end"], record.text or "")
    stretches = []
    for passage, number in zip(passages, numbers, strict=True):
        whole = Stretch(passage.start, passage.end, passage.text)
        for direction in (-1, 1):
            for step in range(1, reach + 1):
                chunk_id = f"{passage.document_id}#{number + direction * step}"
                if chunk_id in taken or chunk_id not in found:
                    break
                joined = _joined(generation, passage.document_id, whole, found[chunk_id])
                if joined is None:
                    break
                whole = joined
                taken.add(chunk_id)
        stretches.append(whole)
    return stretches


def _joined(generation: Generation, document_id: str, one: Stretch, other: Stretch) -> Stretch | None:
    """Both and what lies between them, or ``None`` where they are not of one version of the document."""
    first, second = sorted((one, other))
    if second.start <= first.end:
        return Stretch(first.start, max(first.end, second.end), first.text + second.text[first.end - second.start :])
    # White space, mostly, that belongs to neither.
    document = generation.document(document_id)
    if document is None or any(document.text[s.start : s.end] != s.text for s in (first, second)):
        return None
    return Stretch(first.start, second.end, document.text[first.start : second.end])
