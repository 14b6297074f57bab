"""What all indexes share that are one faiss index over all rows of a segment: checks, padding, signs, saving."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vectordb.errors import DimensionMismatch, InvalidArgument
from vectordb.index import faiss_file
from vectordb.index.base import Capabilities, Neighbours, Params
from vectordb.index.codes import Codec
from vectordb.index.envelope import understood
from vectordb.index.faiss_file import Owner, Stored
from vectordb.index.native import faiss, single_threaded
from vectordb.index.scaling import nothing, widened
from vectordb.index.space import Space
from vectordb.metric import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Parts(NamedTuple):
    """A faiss index and what is known of it.

    Attributes:
        native: The index.
        codec: How it keeps rows.
        space: The space that it sees them in.
        errors: How badly what was learned described rows that it was not learned from.
        learned: How many rows there were when it was learned.
        path: The file that it is mapped from, or None if it is in memory.
    """

    native: Any
    codec: Codec
    space: Space
    errors: tuple[float, ...]
    learned: int
    path: Path | None = None


class Found(NamedTuple):
    """Of each query float32[q, k] of faiss's distances and int64[q, k] positions, padded with -1, and rows compared."""

    distances: NDArray[np.float32]
    rows: NDArray[np.int64]
    scored: int


class NativeIndex:
    """Searches one faiss index, from many threads at once; never changes. Kinds say how in :meth:`_find`.

    Args:
        kind: Name of the kind, for the file.
        parts: The faiss index.
        capabilities: What this very index can do.
    """

    def __init__(self, kind: str, parts: Parts, capabilities: Capabilities) -> None:
        self._parts = parts
        self._native, self._space = parts.native, parts.space
        self._owner = Owner(kind, (int(parts.native.ntotal), parts.space.dim), parts.space.metric)
        self._capabilities = capabilities

    @property
    def capabilities(self) -> Capabilities:
        """Those of the kind, with what suits this index's codes, rows and metric."""
        return self._capabilities

    @property
    def parts(self) -> Parts:
        """The faiss index and what is known of it; to be read only."""
        return self._parts

    @property
    def rows(self) -> int:
        """n."""
        return self._owner.shape[0]

    def search(
        self,
        queries: NDArray[np.float32],
        limit: int,
        *,
        allowed: NDArray[np.uint8] | None = None,
        params: Params | None = None,
    ) -> Neighbours:
        """See :meth:`vectordb.index.base.VectorIndex.search`. Distances rank rows and mean nothing else.

        Raises:
            DimensionMismatch: Queries of another dimension.
            InvalidArgument: ``allowed`` is too short, or this index cannot search with it.
        """
        single_threaded()
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        count, got = queries.shape
        rows, dim = self._owner.shape
        if got != dim:
            raise DimensionMismatch(f"this index has dim {dim}, got {got}", expected=dim, got=got)
        if allowed is not None:
            self._check(allowed)
        k = min(limit, rows)
        asked = self._space.queries(queries) if k and count else None
        if asked is None:
            return nothing(count, limit)
        found = self._find(asked, k, allowed, params or {})
        if self._space.by_product and not self._parts.codec.hashes:
            np.negative(found.distances, out=found.distances)
        # Missing rows stand at the end of each query, with a distance of no meaning.
        found.distances[found.rows < 0] = np.inf
        rows_found, distances = widened(found.rows, found.distances, limit)
        return Neighbours(rows_found, distances, found.scored)

    def save(self, path: Path) -> None:
        """See :meth:`vectordb.index.base.VectorIndex.save`; the format is in ``faiss_file``."""
        parts = self._parts
        space = parts.space
        facts = {
            "codec": list(parts.codec),
            "exponent": space.exponent,
            "reference": space.reference,
            "errors": list(parts.errors),
            "learned": parts.learned,
        }
        faiss_file.write(path, self._owner, Stored(parts.native, facts, np.empty(0, np.uint32)))

    def memory_bytes(self) -> int:
        """Codes, and what was learned; where mapped, what they take once they are all in memory."""
        raise NotImplementedError

    def _find(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.uint8] | None, params: Params) -> Found:
        """Searches queries as faiss sees them."""
        raise NotImplementedError

    def _check(self, allowed: NDArray[np.uint8]) -> None:
        if not self._capabilities.filtered:
            raise InvalidArgument(f"index kind {self._owner.kind!r} with these codes cannot search with a filter")
        if len(allowed) * 8 < self.rows:
            raise InvalidArgument(f"allowed has {len(allowed) * 8} bits, the index {self.rows} rows")

    def _native_search(self, queries: NDArray[np.float32], k: int, settings: Any) -> Found:
        distances = np.empty((len(queries), k), np.float32)
        rows = np.empty((len(queries), k), np.int64)
        # Straight to the C++ method: faiss's Python wrapper costs 5 us more.
        self._native.search_c(
            len(queries), faiss.swig_ptr(queries), k, faiss.swig_ptr(distances), faiss.swig_ptr(rows), settings
        )
        return Found(distances, rows, 0)


def restored(path: Path, stored: Stored, metric: Metric, *, inner: bool, mapped: bool) -> Parts:
    """What :meth:`NativeIndex.save` wrote."""
    facts = stored.facts
    with understood(path):
        codec, errors, learned = Codec(*facts["codec"]), tuple(facts["errors"]), int(facts["learned"])
        space = Space(metric, int(facts["dim"]), int(facts["exponent"]), codec.rotates, inner, facts["reference"])
    return Parts(stored.native, codec, space, errors, learned, path if mapped else None)


def in_memory(kind: str, parts: Parts) -> Any:
    """A copy of the faiss index that may be added to. A mapped one cannot grow, nor can a copy of it."""
    if parts.path is None:
        return faiss.clone_index(parts.native)
    owner = Owner(kind, (int(parts.native.ntotal), parts.space.dim), parts.space.metric)
    return faiss_file.read(parts.path, owner, mapped=False).native
