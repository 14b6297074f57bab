"""One call of ``add``: compares the sources with the catalogue, and hands what differs to the writer."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from vectordb_client.rag.documents import FileSource, Sources, Unreadable, parse_file
from vectordb_client.rag.documents.formats import VERSION
from vectordb_client.rag.documents.sources import storable
from vectordb_client.rag.ingest import Item, Tally, Writer, plain, problem_with
from vectordb_client.rag.report import AddReport, Failure
from vectordb_client.rag.store.generation import FileEntry, Generation
from vectordb_client.rag.types import Document

if TYPE_CHECKING:
    from vectordb_client.rag.chunking.base import Chunker
    from vectordb_client.rag.embedding.base import Embedder


class Addition:
    """Carries one addition out. For one thread; made anew for each.

    Args:
        max_file_bytes: Larger files are reported, not read.
    """

    def __init__(
        self,
        generation: Generation,
        embedder: Embedder,
        chunker: Chunker,
        *,
        max_file_bytes: int,
        progress: bool,
    ) -> None:
        self._generation, self._embedder, self._chunker = generation, embedder, chunker
        self._max_file_bytes, self._progress = max_file_bytes, progress
        self._tally = Tally()
        self._seen: set[str] = set()
        self._known: dict[str, FileEntry] = {}
        self._path_of: dict[str, str] = {}

    def run(self, sources: Sources) -> AddReport:
        """Adds what differs and removes what vanished."""
        started = time.perf_counter()
        self._known = self._generation.files() if sources.files or sources.folders else {}
        self._path_of = {entry.id: path for path, entry in self._known.items()}
        sizes = {file.key: _size(file.path) for file in sources.files}
        documents = [plain(document) for document in sources.documents if self._acceptable(document)]
        total = sum(sizes.values()) + sum(len(document.text) for document in documents)
        with tqdm(total=total, unit="B", unit_scale=True, disable=not self._progress, desc="adding") as bar:
            writer = Writer(self._generation, self._embedder, self._chunker, self._tally, bar)
            for document in documents:
                writer.put(Item(document, weight=len(document.text)))
            for file in sources.files:
                items = list(self._items(file, sizes[file.key]))
                for item in items:
                    writer.put(item)
                if not items:
                    bar.update(sizes[file.key])
            writer.flush()
        self._tally.failed.extend(Failure(path, "does not exist") for path in sources.missing)
        for folder, why in sources.unreadable:
            self._fail(storable(str(folder)), f"cannot be opened: {why}; what is known of it is kept")
        self._remove_vanished(sources)
        return self._report(sources, time.perf_counter() - started)

    def _items(self, file: FileSource, size: int) -> Iterator[Item]:
        """The documents of a file that changed, after removing those that it no longer has."""
        if size > self._max_file_bytes:
            self._fail(file.id, f"has {size} bytes, more than max_file_bytes={self._max_file_bytes}")
            return
        try:
            if not file.path.is_file() and file.path.exists():
                # A pipe has an end only when somebody else says so, and a device none.
                self._fail(file.id, "is no regular file")
                return
            data = file.path.read_bytes()
        except OSError as error:
            self._fail(file.id, f"cannot be opened: {error.strerror}")
            return
        file_id = self._file_id(file)
        if file_id is None:
            return
        content = self._file_hash(data)
        if (known := self._known.get(file.key)) is not None and known.hash == content:
            ids = known.documents if known.documents is not None else self._generation.documents_of(file.key)
            self._tally.unchanged.extend(ids)
            self._seen.update(ids)
            return
        try:
            parsed = parse_file(file.path, file_id, data)
        except Unreadable as error:
            self._fail(file.id, str(error))
            return
        del data
        documents = [document for document in parsed if self._acceptable(document)]
        new = tuple(document.id for document in documents)
        if known is not None:
            # Incomplete first: should this be interrupted, the old content must not look complete.
            self._generation.announce([], [FileEntry(file.key, file_id, "")])
            self._remove(set(self._generation.documents_of(file.key)) - set(new))
        whole = FileEntry(file.key, file_id, content if len(documents) == len(parsed) else "", new)
        for place, document in enumerate(documents):
            last = whole if place == len(documents) - 1 else None
            yield Item(document, file.key, last, size / len(documents))

    def _file_id(self, file: FileSource) -> str | None:
        """The id that a file has already, or a new one; ``None`` where another file has it."""
        if (known := self._known.get(file.key)) is not None:
            return known.id
        file_id = file.id
        if len(file_id.encode()) > 400:
            file_id = f"{hashlib.sha256(file_id.encode()).hexdigest()[:16]}/{file.path.name}"[-300:]
        if (other := self._path_of.get(file_id)) is not None:
            if Path(other).exists():
                self._fail(file.id, f"has the same id as {other}; add a folder that holds both")
                return None
            # The folder was moved: its documents are the same.
            self._generation.move_file(other, file.key)
            moved = self._known.pop(other)
            self._known[file.key] = FileEntry(file.key, file_id, "", moved.documents)
        self._path_of[file_id] = file.key
        return file_id

    def _file_hash(self, data: bytes) -> str:
        digest = hashlib.blake2b(data, digest_size=16)
        digest.update(f"{VERSION} {self._chunker.name}".encode())
        return digest.hexdigest()

    def _acceptable(self, document: Document) -> bool:
        problem = problem_with(document)
        if problem is None and document.id in self._seen:
            problem = "is there twice; ids must be different"
        if problem is not None:
            self._fail(str(document.id), problem)
            return False
        self._seen.add(document.id)
        return True

    def _fail(self, source: str, reason: str) -> None:
        self._tally.failed.append(Failure(source, reason))

    def _remove(self, ids: set[str]) -> None:
        self._tally.removed.extend(self._generation.remove(sorted(ids)))

    def _remove_vanished(self, sources: Sources) -> None:
        """Removes the documents of files that were in the added folders and are there no more."""
        there = {file.key for file in sources.files}
        folders = _prefixes(sources.folders)
        closed = _prefixes([folder for folder, _ in sources.unreadable])
        gone = [p for p in self._known if p not in there and p.startswith(folders) and not p.startswith(closed)]
        for path in gone:
            self._remove(set(self._generation.documents_of(path)))
            self._generation.forget_file(path)

    def _report(self, sources: Sources, seconds: float) -> AddReport:
        tally: Any = self._tally
        return AddReport(
            **{name: tuple(getattr(tally, name)) for name in ("added", "updated", "unchanged", "removed", "failed")},
            skipped=tuple(sources.skipped),
            chunks=tally.chunks,
            embedded=tally.embedded,
            truncated=tally.truncated,
            seconds=seconds,
        )


def _prefixes(folders: Iterable[Path]) -> tuple[str, ...]:
    """What the keys of files in these folders begin with."""
    return tuple(f"{storable(str(folder)).rstrip('/')}/" for folder in folders)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
