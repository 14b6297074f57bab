"""What must hold of a knowledge base after whatever happened to it."""

from __future__ import annotations

from typing import Any

from vectordb_client import Database
from vectordb_client.rag import KnowledgeBase


def versions(db: Database, name: str = "kb") -> dict[str, int]:
    """The version of every collection of a knowledge base: equal where nothing was written."""
    return {one: db[one].stats().version for one in db.list_collections() if one.split(".")[0] == name}


def contents(db: Database, name: str = "kb") -> dict[str, tuple[str | None, Any]]:
    """All chunks: id to text and place."""
    return {record.id: (record.text, (record.metadata or {})["_chunk"]) for record in db[name].scan()}


def check_whole(kb: KnowledgeBase) -> None:
    """The catalogue and the chunks say the same, and every chunk is verbatim in its document."""
    chunks = contents(kb.db, kb.name)
    expected = {f"{entry.id}#{n}" for entry in kb.documents() for n in range(entry.chunks)}
    assert set(chunks) == expected
    assert not [entry.id for entry in kb.documents() if entry.pending]
    by_document: dict[str, list[tuple[str | None, Any]]] = {}
    for text, place in chunks.values():
        by_document.setdefault(place["document"], []).append((text, place))
    for document_id, pieces in by_document.items():
        document = kb.document(document_id)
        assert document is not None
        for text, place in pieces:
            assert document.text[place["start"] : place["end"]] == text
