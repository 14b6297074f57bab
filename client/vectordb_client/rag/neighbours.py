"""Passages made longer by the chunks around them, for a reader who needs the context."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import NamedTuple

from vectordb_client.rag.store.generation import PLACE, Generation
from vectordb_client.rag.types import Passage

_WINDOW = 16


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
    taken = {passage.chunk_id for passage in passages}
    found = _around(generation, list(zip(passages, numbers, strict=True)), taken, reach)
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


def _around(
    generation: Generation, places: Sequence[tuple[Passage, int]], taken: Set[str], reach: int
) -> dict[str, Stretch]:
    """The chunks around passages (each with its number) by their ids, up to the next passage or the document's end.

    Asked for in windows that grow: ``reach`` may be far more than a document has, to have all of it.
    """
    found: dict[str, Stretch] = {}
    ways = [(passage.document_id, number, direction) for passage, number in places for direction in (-1, 1)]
    done, window = 0, _WINDOW
    while ways and done < reach:
        steps = range(done + 1, min(reach, done + window) + 1)
        near = [(document, number + way * step) for document, number, way in ways for step in steps]
        asked = {f"{document}#{number}" for document, number in near if number >= 0} - taken - found.keys()
        for record in generation.chunks.get(sorted(asked), include=("metadata", "text")):
            place = (record.metadata or {})[PLACE]
            found[record.id] = Stretch(place["start"], place["end"], record.text or "")
        done, window = steps[-1], 2 * window
        ways = [way for way in ways if f"{way[0]}#{way[1] + way[2] * done}" in found]
    return found


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
