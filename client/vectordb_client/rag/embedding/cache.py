"""Vectors that were computed once: a cache in front of any embedder, in memory or in a file."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from vectordb.errors import Closed, FailedPrecondition
from vectordb_client.rag.batches import batched
from vectordb_client.rag.embedding.tokens import tokens_of
from vectordb_client.rag.embedding.vectors import embedded_within, promised, vectors_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb_client.rag.embedding.base import Embedder

_KEYS = 500


class CachedEmbedder:
    """An embedder that remembers, by the hash of model, purpose and text. Thread-safe.

    Its file is closed by ``close``, at the end of a ``with``, or once nobody has the embedder any more.

    Re-adding documents reuses vectors without this; it helps where texts come again after they were removed, in other
    knowledge bases, or as questions.

    Args:
        embedder: What computes.
        path: A SQLite file that several processes may share; by default memory.
        max_rows: The least recently used vectors beyond so many are forgotten.

    Raises:
        FailedPrecondition: The file cannot be opened or is none of SQLite's; by calls, too, where it fails.
        Closed: By calls after ``close``.
    """

    def __init__(
        self, embedder: Embedder, path: str | os.PathLike[str] = ":memory:", *, max_rows: int = 1_000_000
    ) -> None:
        self._embedder, self._max_rows = embedder, max_rows
        self._tokens = tokens_of(embedder)
        self.min_score: float | None = getattr(embedder, "min_score", None)
        self._lock = threading.Lock()
        self._path = os.fspath(path)
        self.hits = 0
        self.misses = 0
        with self._failing():
            self._db = sqlite3.connect(path, check_same_thread=False, timeout=30.0, isolation_level=None)
            # From Python 3.13 on a connection that is only forgotten is a ResourceWarning.
            weakref.finalize(self, self._db.close)
            self._prepare()

    def _prepare(self) -> None:
        # A cache may lose its last moments in a power cut, not its integrity.
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL, used INTEGER NOT NULL)"
            " WITHOUT ROWID"
        )
        self._db.execute("CREATE INDEX IF NOT EXISTS by_use ON vectors (used)")
        self._use = self._db.execute("SELECT coalesce(max(used), 0) FROM vectors").fetchone()[0]

    @property
    def name(self) -> str:
        return self._embedder.name

    @property
    def revision(self) -> str:
        return self._embedder.revision

    @property
    def dim(self) -> int:
        return self._embedder.dim

    @property
    def max_tokens(self) -> int | None:
        return self._tokens.max_tokens

    def token_spans(self, text: str) -> NDArray[np.int64]:
        return self._tokens.token_spans(text)

    def embed_documents(self, texts: Sequence[str], timeout: float | None = None) -> NDArray[np.float32]:
        """Vectors of texts that are searched: float32[n, dim]; ``timeout`` is for the embedder that takes one."""
        return self._embed("document", lambda new: embedded_within(self._embedder.embed_documents, new, timeout), texts)

    def embed_queries(self, texts: Sequence[str], timeout: float | None = None) -> NDArray[np.float32]:
        """Vectors of texts to search with: float32[n, dim]; likewise."""
        return self._embed("query", lambda new: embedded_within(self._embedder.embed_queries, new, timeout), texts)

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> CachedEmbedder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _embed(
        self, purpose: str, embed: Callable[[Sequence[str]], NDArray[np.float32]], texts: Sequence[str]
    ) -> NDArray[np.float32]:
        keys = [self._key(purpose, text) for text in texts]
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        known = self._look_up(keys)
        # A text that comes twice is computed once.
        missing = {key: row for row, key in enumerate(keys) if key not in known}
        if missing:
            rows = list(missing.values())
            found = promised(self, vectors_of(embed([texts[row] for row in rows]), len(rows), self.name))
            computed = {keys[row]: vector.tobytes() for row, vector in zip(rows, found, strict=True)}
            # What is no vector today may be one tomorrow: it must not be remembered.
            sound = np.flatnonzero(np.isfinite(found).all(axis=1))
            self._store({keys[rows[place]]: computed[keys[rows[place]]] for place in sound})
            known |= computed
        for row, key in enumerate(keys):
            vectors[row] = np.frombuffer(known[key], dtype=np.float32)
        with self._lock:
            self.misses += len(missing)
            self.hits += len(texts) - len(missing)
        return vectors

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.ProgrammingError as error:
            raise Closed(f"the cache of vectors {self._path} is closed; make another CachedEmbedder") from error
        except sqlite3.Error as error:
            raise FailedPrecondition(
                f"the cache of vectors {self._path} cannot be used: {error}; give another path, or remove the file",
                path=self._path,
            ) from error

    def _key(self, purpose: str, text: str) -> bytes:
        parts = f"{self.name}\0{self.revision}\0{self.dim}\0{purpose}\0{text}"
        return hashlib.blake2b(parts.encode("utf-8", "surrogatepass"), digest_size=16).digest()

    def _look_up(self, keys: list[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        with self._lock, self._failing():
            self._use += 1
            for page in batched(dict.fromkeys(keys), _KEYS):
                marks = ",".join("?" * len(page))
                rows = self._db.execute(f"SELECT key, vector FROM vectors WHERE key IN ({marks})", page).fetchall()
                found.update(rows)
                self._db.execute(f"UPDATE vectors SET used = ? WHERE key IN ({marks})", [self._use, *page])
        return found

    def _store(self, computed: dict[bytes, bytes]) -> None:
        # As a context manager the connection commits, or takes back what an error left undone.
        with self._lock, self._failing(), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)",
                [(key, vector, self._use) for key, vector in computed.items()],
            )
            excess = self._db.execute("SELECT count(*) FROM vectors").fetchone()[0] - self._max_rows
            if excess > 0:
                self._db.execute(
                    "DELETE FROM vectors WHERE key IN (SELECT key FROM vectors ORDER BY used LIMIT ?)", [excess]
                )
