"""One generation: the collection of chunks with their vectors, and beside it the catalogue of documents and files.

    NAME  or  NAME.g2, ...     one record a chunk: vector, text, the document's metadata, and under ``_chunk`` its place
    NAME.documents, ...        ``d:ID`` one record a document: text, metadata, and under ``_document`` what was written
                               ``p:N:ID`` the further parts of a long text
                               ``f:HASH`` one record a file: its content's hash once all of its documents are written

No call spans two collections, so the order of writes carries the consistency: a document is announced in the catalogue
(``_pending``, with the number of chunks that it may have), then its chunks are written, surplus ones deleted, and last
the announcement is taken back. What was interrupted is found pending and written again; writing twice changes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from vectordb.api import Collection, Database
from vectordb.encoding import utc
from vectordb.errors import CollectionNotFound
from vectordb.filter import as_filter, col
from vectordb_client.rag.batches import batched
from vectordb_client.rag.types import Chunk, Document, Section

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vectordb.filter import Filter

PLACE = "_chunk"
"""Key of a chunk's metadata that holds its document, number and span."""

_ENTRY, _PENDING, _PATH = "_document", "_pending", "_path"
_INSTANT = "$datetime"
RESERVED = (PLACE, _ENTRY, _PENDING, _PATH)
_PAGE = 1000
_PART = 4_000_000
"""Characters of a text in one record of the catalogue: the engine takes 16 MiB."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the catalogue knows of a document without reading its text.

    Attributes:
        hash: Of text, metadata, sections and chunker: equal where nothing needs to be written.
        chunks: How many it has.
        extent: How many there may be while ``pending``, surplus ones of an older version included.
        parts: In how many records the text may lie, likewise.
        path: The file that it came from, or ``None``.
        metadata: The document's own.
    """

    id: str
    hash: str
    chunks: int
    extent: int
    parts: int = 1
    path: str | None = None
    pending: bool = False
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What the catalogue knows of a file.

    Attributes:
        path: Absolute.
        id: The id of its document, or what the ids of its rows begin with.
        hash: Of its bytes and of what else decides about its chunks; empty until all of its documents are written.
        documents: Their ids; ``None`` where there are too many to be kept here.
    """

    path: str
    id: str
    hash: str
    documents: tuple[str, ...] | None = ()


class Generation:
    """Reads and writes one generation. Thread-safe; writes must come from one thread at a time.

    Args:
        dim: To create its collections where they are missing; ``None`` to open what is there.
        config: Further options of the collection of chunks, such as its index.

    Raises:
        CollectionNotFound: Without ``dim``, and they are missing.
    """

    def __init__(
        self, db: Database, name: str, number: int, dim: int | None = None, config: Mapping[str, Any] | None = None
    ) -> None:
        self._db = db
        self.number = number
        self.chunks, self._catalogue = self._open(collection_names(name, number), dim, config or {})

    def _open(
        self, names: tuple[str, str], dim: int | None, config: Mapping[str, Any]
    ) -> tuple[Collection, Collection]:
        try:
            return self._db.collection(names[0]), self._db.collection(names[1])
        except CollectionNotFound:
            if dim is None:
                raise
        catalogue = self._db.create_collection(names[1], dim=1, exist_ok=True)
        return self._db.create_collection(names[0], **{"dim": dim, "exist_ok": True, **config}), catalogue

    @property
    def version(self) -> int:
        """Changes with every addition and removal."""
        return self._catalogue.stats().version

    # Documents

    def entries(self, ids: Sequence[str]) -> dict[str, Entry]:
        """What is known of these documents, by id."""
        found: dict[str, Entry] = {}
        for page in batched(ids, _PAGE):
            records = self._catalogue.get([f"d:{one}" for one in page], include=("metadata",))
            found.update((record.id[2:], _entry(record.id[2:], record.metadata or {})) for record in records)
        return found

    def all_entries(self, where: Any = None) -> Iterator[Entry]:
        """All documents, or those whose metadata match."""
        condition: Filter = col(f"{_ENTRY}.hash").exists()
        if (further := as_filter(where)) is not None:
            condition = condition & further
        for record in self._catalogue.scan(condition, include=("metadata",)):
            yield _entry(record.id[2:], record.metadata or {})

    def documents_of(self, path: str) -> list[str]:
        """Ids of the documents that came from this file."""
        found = self._catalogue.scan((col(_PATH) == path) & col(f"{_ENTRY}.hash").exists(), include=())
        return [record.id[2:] for record in found]

    def document(self, document_id: str) -> Document | None:
        """A document as it was added."""
        return next(iter(self.read([document_id])), None)

    def read(self, ids: Sequence[str]) -> list[Document]:
        """Documents as they were added; missing ones are left out."""
        found = []
        for record in self._catalogue.get([f"d:{one}" for one in ids]):
            document_id, metadata = record.id[2:], record.metadata or {}
            stored = record.text or ""
            if (parts := metadata[_ENTRY]["parts"]) > 1:
                rest = self._catalogue.get(_part_ids(document_id, 1, parts), include=("text",))
                stored += "".join(part.text or "" for part in rest)
            found.append(_document(document_id, metadata, stored))
        return found

    def announce(self, documents: Sequence[tuple[Document, Entry]], files: Iterable[FileEntry]) -> None:
        """Writes documents into the catalogue as pending, and files as incomplete: one call, all or nothing."""
        ids, texts, metadata = [], [], []
        for document, entry in documents:
            # Sections may be many, more than metadata may be: they follow the text.
            stored = document.text + sections_to_json(document.sections)
            parts = [stored[start : start + _PART] for start in range(0, len(stored), _PART)]
            place = {
                "hash": entry.hash,
                "chunks": entry.chunks,
                "extent": entry.extent,
                "length": len(document.text),
                "parts": len(parts),
                "parts_extent": max(len(parts), entry.parts),
            }
            ids += [f"d:{document.id}", *_part_ids(document.id, 1, len(parts))]
            texts += parts
            metadata.append({**document.metadata, _ENTRY: place, _PENDING: True} | _with_path(entry.path))
            metadata += [{}] * (len(parts) - 1)
        for file in files:
            ids.append(_file_id(file.path))
            texts.append("[]")
            metadata.append(_file_metadata(file, ""))
        if ids:
            self._catalogue.upsert(ids, metadata=metadata, texts=texts)

    def complete(self, entries: Sequence[Entry], files: Sequence[FileEntry]) -> None:
        """Takes the announcement of documents back, and notes files as complete.

        Args:
            entries: As they were announced: their ``parts`` are those of the version before.
        """
        if long := [f"d:{entry.id}" for entry in entries if entry.parts > 1]:
            places = [(record.id[2:], (record.metadata or {})[_ENTRY]) for record in self._catalogue.get(long)]
            surplus = [one for key, at in places for one in _part_ids(key, at["parts"], at["parts_extent"])]
            if surplus:
                self._catalogue.delete(surplus)
        if entries:
            self._catalogue.update_metadata(ids=[f"d:{entry.id}" for entry in entries], unset=[_PENDING])
        if files:
            self._catalogue.upsert(
                [_file_id(file.path) for file in files],
                metadata=[_file_metadata(file, file.hash) for file in files],
                texts=[_file_text(file) for file in files],
            )

    def remove(self, ids: Sequence[str]) -> list[str]:
        """Removes documents with their chunks; returns the ids that were there.

        Their files are incomplete from then on, so that adding them again does not take them for unchanged.
        """
        entries = self.entries(ids)
        for page in batched(entries.values(), _PAGE):
            if paths := {entry.path for entry in page if entry.path is not None}:
                self.reopen(paths)
            # Without this, what is interrupted here would look complete.
            self._catalogue.update_metadata(ids=[f"d:{entry.id}" for entry in page], set={_PENDING: True})
            for chunk_ids in batched((f"{e.id}#{n}" for e in page for n in range(max(e.chunks, e.extent))), 10_000):
                self.chunks.delete(list(chunk_ids))
            self._catalogue.delete([one for e in page for one in (f"d:{e.id}", *_part_ids(e.id, 1, e.parts))])
        return list(entries)

    # Files

    def files(self) -> dict[str, FileEntry]:
        """All files that documents came from, by path."""
        found = self._catalogue.scan(col("_file.id").exists())
        entries = (
            FileEntry(m[_PATH], m["_file"]["id"], m["_file"]["hash"], _file_documents(record.text))
            for record in found
            if (m := record.metadata or {})
        )
        return {entry.path: entry for entry in entries}

    def reopen(self, paths: Iterable[str]) -> None:
        """Notes files as incomplete: they are read when they are added again, whether they changed or not."""
        known = self._catalogue.get([_file_id(path) for path in sorted(paths)], include=("metadata",))
        files = [FileEntry(m[_PATH], m["_file"]["id"], "") for record in known if (m := record.metadata or {})]
        self.announce([], files)

    def forget_file(self, path: str) -> None:
        """Drops what is known of a file; its documents stay."""
        self._catalogue.delete([_file_id(path)])

    def move_file(self, old: str, new: str) -> None:
        """The documents of one file are said to come from another."""
        self._catalogue.update_metadata(where=col(_PATH) == old, set={_PATH: new})
        self._catalogue.delete([_file_id(old)])

    # Chunks

    def vectors(self, entry: Entry) -> dict[str, NDArray[np.float32]]:
        """The vectors that a document's chunks have now, by their text."""
        found: dict[str, NDArray[np.float32]] = {}
        for page in batched((f"{entry.id}#{n}" for n in range(max(entry.chunks, entry.extent))), _PAGE):
            for record in self.chunks.get(list(page), include=("text", "vector")):
                if record.text is not None and record.vector is not None:
                    found[record.text] = record.vector
        return found

    def write(self, chunks: Sequence[Chunk], vectors: NDArray[np.float32]) -> None:
        """Writes chunks with their vectors, float32[n, dim]."""
        self.chunks.upsert(
            [chunk.id for chunk in chunks],
            vectors,
            metadata=[{**chunk.metadata, PLACE: _place(chunk)} for chunk in chunks],
            texts=[chunk.text for chunk in chunks],
        )

    def drop_surplus(self, entries: Iterable[Entry]) -> None:
        """Deletes the chunks of older, longer versions."""
        for ids in batched((f"{e.id}#{n}" for e in entries for n in range(e.chunks, e.extent)), 10_000):
            self.chunks.delete(list(ids))


def collection_names(name: str, number: int) -> tuple[str, str]:
    """Of the chunks and of the catalogue."""
    chunks = name if number == 1 else f"{name}.g{number}"
    return chunks, f"{chunks}.documents"


def drop_collections(db: Database, names: Iterable[str]) -> None:
    """Deletes collections, those that are gone already passed over."""
    for name in names:
        try:
            db.delete_collection(name)
        except CollectionNotFound:
            continue


def sections_to_json(sections: Iterable[Section], *, sort_keys: bool = False) -> str:
    """The sections of a document as JSON text, datetimes as filters write them."""
    return json.dumps(
        [[section.start, dict(section.metadata)] for section in sections], sort_keys=sort_keys, default=_told
    )


def _told(value: Any) -> dict[str, str]:
    return {_INSTANT: utc(value).isoformat()}


def _instants(value: dict[str, Any]) -> Any:
    return datetime.fromisoformat(value[_INSTANT]) if value.keys() == {_INSTANT} else value


def _place(chunk: Chunk) -> dict[str, Any]:
    return {"document": chunk.document_id, "number": chunk.number, "start": chunk.start, "end": chunk.end}


def _with_path(path: str | None) -> dict[str, Any]:
    return {} if path is None else {_PATH: path}


def _file_id(path: str) -> str:
    # Paths are longer than ids may be.
    return f"f:{hashlib.sha256(path.encode()).hexdigest()}"


def _file_metadata(file: FileEntry, content: str) -> dict[str, Any]:
    return {_PATH: file.path, "_file": {"id": file.id, "hash": content}}


def _file_text(file: FileEntry) -> str:
    text = json.dumps(file.documents)
    return text if len(text) <= _PART else "null"


def _file_documents(text: str | None) -> tuple[str, ...] | None:
    stored = json.loads(text or "[]")
    return None if stored is None else tuple(stored)


def _part_ids(document_id: str, first: int, end: int) -> list[str]:
    return [f"p:{number}:{document_id}" for number in range(first, end)]


def _entry(document_id: str, metadata: Mapping[str, Any]) -> Entry:
    place, pending = metadata[_ENTRY], bool(metadata.get(_PENDING))
    return Entry(
        id=document_id,
        hash=place["hash"],
        chunks=place["chunks"],
        extent=place["extent"] if pending else place["chunks"],
        parts=place["parts_extent"] if pending else place["parts"],
        path=metadata.get(_PATH),
        pending=pending,
        metadata={key: value for key, value in metadata.items() if key not in RESERVED},
    )


def _document(document_id: str, metadata: Mapping[str, Any], stored: str) -> Document:
    length = metadata[_ENTRY]["length"]
    sections = tuple(Section(start, found) for start, found in json.loads(stored[length:], object_hook=_instants))
    own = {key: value for key, value in metadata.items() if key not in RESERVED}
    return Document(document_id, stored[:length], own, sections)
