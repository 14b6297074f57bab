"""Adding: files and documents to chunks with vectors, in batches that an interruption cannot tear apart.

See :mod:`vectordb_client.rag.store.generation` for the order of writes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vectordb.encoding import decode_metadata, encode_metadata, metadata_to_json
from vectordb.errors import InvalidArgument
from vectordb.ids import MAX_ID_BYTES
from vectordb.limits import DEFAULTS
from vectordb.validate import check_metadata
from vectordb_client.rag.batches import batched
from vectordb_client.rag.embedding.tokens import tokens_of
from vectordb_client.rag.embedding.vectors import embedded_documents
from vectordb_client.rag.report import Failure
from vectordb_client.rag.store.generation import RESERVED, Entry, FileEntry, Generation, sections_to_json
from vectordb_client.rag.types import Chunk, Document, Section

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb_client.rag.chunking.base import Chunker
    from vectordb_client.rag.embedding.base import Embedder

_BATCH_DOCUMENTS = 256
_BATCH_CHARACTERS = 1 << 22
_BATCH_CHUNKS = 256
"""Chunks that are embedded and written at a time."""
_MAX_CHUNK = DEFAULTS.max_text_bytes
_MAX_DOCUMENT_ID = MAX_ID_BYTES - 12
"""The ids of chunks and of further records of a document are longer than its own."""


@dataclass(frozen=True, slots=True)
class Item:
    """A document on its way in.

    Attributes:
        file: Its file, with the documents that it has, on the last document of a file that was read without failures.
        weight: Its share of the progress bar.
    """

    document: Document
    path: str | None = None
    file: FileEntry | None = None
    weight: float = 0.0


@dataclass(slots=True)
class Tally:
    """What happened so far; becomes an ``AddReport``."""

    added: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    chunks: int = 0
    embedded: int = 0
    truncated: int = 0


@dataclass(frozen=True, slots=True)
class _Work:
    """A document that differs from what is stored."""

    item: Item
    entry: Entry
    chunks: list[Chunk]
    known: Entry | None


class Writer:
    """Writes documents into one generation. For one thread.

    Args:
        bar: Told how much of the items' weights is done; a ``tqdm``.
    """

    def __init__(self, generation: Generation, embedder: Embedder, chunker: Chunker, tally: Tally, bar: Any) -> None:
        self._generation, self._embedder, self._chunker = generation, embedder, chunker
        self._tokens = tokens_of(embedder)
        self._tally, self._bar = tally, bar
        self._waiting: list[Item] = []
        self._failed: set[str] = set()
        self._characters = 0

    def put(self, item: Item) -> None:
        """Takes a document; it is written with others, at the latest by :meth:`flush`."""
        self._waiting.append(item)
        self._characters += len(item.document.text)
        if len(self._waiting) >= _BATCH_DOCUMENTS or self._characters >= _BATCH_CHARACTERS:
            self.flush()

    def flush(self) -> None:
        """Writes what waits. When it returns, all documents put so far are complete."""
        items, self._waiting, self._characters = self._waiting, [], 0
        known = self._generation.entries([item.document.id for item in items])
        work = [found for item in items if (found := self._prepare(item, known.get(item.document.id))) is not None]
        # A file of which a document failed is read again the next time, and its failure told again.
        files = [
            replace(item.file, hash="") if item.file.path in self._failed else item.file
            for item in items
            if item.file is not None
        ]
        # A document that takes the place of a file's is not what the file says: the file is to be read again.
        before = [(w.known.path, w.item.path) for w in work if w.known is not None]
        if replaced := {old for old, new in before if old is not None and old != new}:
            self._generation.reopen(replaced)
        if work:
            self._generation.announce(
                [(w.item.document, w.entry) for w in work], [FileEntry(f.path, f.id, "") for f in files]
            )
            for slice_ in batched(self._rows(work), _BATCH_CHUNKS):
                self._write(slice_)
            self._generation.drop_surplus(w.entry for w in work)
        if work or files:
            self._generation.complete([w.entry for w in work], files)
        for w in work:
            (self._tally.added if w.known is None else self._tally.updated).append(w.entry.id)

    def _prepare(self, item: Item, known: Entry | None) -> _Work | None:
        """The chunks of a document that is to be written, or ``None`` where there is nothing to do."""
        document = item.document
        content = content_hash(document, self._chunker)
        if known is not None and known.hash == content and not known.pending:
            self._tally.unchanged.append(document.id)
            self._bar.update(item.weight)
            return None
        try:
            chunks = self._chunker.chunk(document, self._tokens)
        except InvalidArgument as error:
            self._fail(item, f"cannot be chunked: {error.message}")
            return None
        # Characters have at most four bytes: few chunks are encoded to be counted.
        size = max((len(chunk.text.encode()) for chunk in chunks if len(chunk.text) > _MAX_CHUNK // 4), default=0)
        if size > _MAX_CHUNK:
            self._fail(item, f"has a chunk of {size} bytes, at most {_MAX_CHUNK} are allowed; split it")
            return None
        extent = max(len(chunks), known.extent if known else 0)
        parts = known.parts if known else 1
        return _Work(item, Entry(document.id, content, len(chunks), extent, parts, item.path), chunks, known)

    def _fail(self, item: Item, reason: str) -> None:
        self._tally.failed.append(Failure(item.document.id, reason))
        if item.path is not None:
            self._failed.add(item.path)

    def _rows(self, work: Sequence[_Work]) -> Iterator[tuple[Chunk, NDArray[np.float32] | None, float]]:
        """All chunks with the vector that their text has already, and their share of the progress."""
        for w in work:
            vectors = self._generation.vectors(w.known) if w.known is not None else {}
            share = w.item.weight / max(1, len(w.chunks))
            yield from ((chunk, vectors.get(chunk.text), share) for chunk in w.chunks)

    def _write(self, rows: Sequence[tuple[Chunk, NDArray[np.float32] | None, float]]) -> None:
        new = [place for place, (_, vector, _) in enumerate(rows) if vector is None]
        texts = [rows[place][0].text for place in new]
        vectors = np.empty((len(rows), self._embedder.dim), dtype=np.float32)
        if new:
            vectors[new] = embedded_documents(self._embedder, texts)
        for place, (_, vector, _) in enumerate(rows):
            if vector is not None:
                vectors[place] = vector
        self._generation.write([chunk for chunk, _, _ in rows], vectors)
        self._tally.chunks += len(rows)
        self._tally.embedded += len(new)
        limit = self._tokens.max_tokens
        if limit is not None and getattr(self._chunker, "truncates", False):
            self._tally.truncated += sum(len(self._tokens.token_spans(chunk.text)) > limit for chunk, _, _ in rows)
        self._bar.update(sum(share for _, _, share in rows))


def content_hash(document: Document, chunker: Chunker) -> str:
    """Of all that decides about a document's chunks."""
    parts = [
        document.text,
        metadata_to_json({key: document.metadata[key] for key in sorted(document.metadata)}),
        sections_to_json(document.sections, sort_keys=True),
        chunker.name,
    ]
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def problem_with(document: Document) -> str | None:
    """Why a document cannot be stored, or ``None``. Found before anything is written, so that no batch fails."""
    if not isinstance(document.id, str) or not document.id or not isinstance(document.text, str):
        return "needs an id and a text, both strings, the id not empty"
    try:
        size = len(document.id.encode())
        document.text.encode()
    except UnicodeEncodeError as error:
        return f"holds a lone surrogate at {error.start}, which is no text in UTF-8"
    if size > _MAX_DOCUMENT_ID:
        return f"has an id of {size} bytes, at most {_MAX_DOCUMENT_ID} are allowed"
    metadata: Any = document.metadata
    sections: Any = document.sections
    if not isinstance(metadata, Mapping):
        return f"has {type(metadata).__name__} as metadata; give a dict"
    if not isinstance(sections, tuple | list) or not all(_is_section(one) for one in sections):
        return "has something else than Section(start, metadata) as sections"
    if taken := [key for key in metadata if key in RESERVED]:
        return f"uses the reserved metadata key {taken[0]!r}; rename it"
    if not document.text.strip():
        return "has no text"
    try:
        check_metadata(_plain(metadata))
        for section in sections:
            check_metadata(_plain({**metadata, **section.metadata}))
    except InvalidArgument as error:
        return f"cannot be stored: {error.message}"
    return None


def plain(document: Document) -> Document:
    """The document with its metadata as the database will store them, for one that :func:`problem_with` accepts."""
    sections = tuple(replace(section, metadata=_plain(section.metadata)) for section in document.sections)
    return replace(document, metadata=_plain(document.metadata), sections=sections)


def _plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """As upsert takes them: numpy scalars become numbers, tuples lists, UUIDs and dates their text."""
    try:
        return decode_metadata(encode_metadata(dict(metadata)))
    except TypeError:
        return dict(metadata)  # with a value that the check names


def _is_section(section: Any) -> bool:
    return isinstance(section, Section) and isinstance(section.start, int) and isinstance(section.metadata, Mapping)
