"""The collection as users hold it: the same class embedded and served."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import replace
from typing import Any

from vectordb.api import build, streams
from vectordb.api.searching import Searching
from vectordb.arguments import call_key, flag, version
from vectordb.errors import InvalidArgument
from vectordb.filter import as_filter
from vectordb.metric import Metric
from vectordb.reports import Erasure
from vectordb.requests import EraseRequest, OptimizeRequest, WriteMode
from vectordb.stats import CollectionStats
from vectordb.types import IndexSpec, QuantizationSpec, Record, WriteResult


class Collection(Searching):
    """Handle of one collection. Thread-safe; made by ``Database``, not by hand.

    ``config``, ``index`` and ``quantization`` are as of the handle's making or its last ``stats`` or ``reindex``:
    another client may have reindexed since.

    Everywhere: ``ids`` are strings, integers or UUIDs, one or many; ``where`` is a filter
    (``col("year") >= 2000`` or its JSON form); ``timeout`` is in seconds and overrides the connection's.
    """

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def dim(self) -> int:
        return self.config.dim

    @property
    def metric(self) -> Metric:
        return self.config.metric

    @property
    def index(self) -> IndexSpec:
        return self.config.index

    @property
    def quantization(self) -> QuantizationSpec | None:
        return self.config.quantization

    def __repr__(self) -> str:
        c = self.config
        return f"<Collection {c.name!r}: dim {c.dim}, {c.metric.value}, index {c.index.kind}>"

    # Writing

    def upsert(
        self,
        ids: Any = None,
        vectors: Any = None,
        metadata: Any = None,
        texts: Any = None,
        *,
        if_version: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        vector_name: str = "",
    ) -> WriteResult:
        """Writes records, replacing whole those whose id exists: all or nothing, durable on return.

        Args:
            ids: Ids, or ``None`` to have UUIDs generated, or the records themselves (``Record``s or dicts with
                ``id, vector, metadata, text``; then nothing else is given).
            vectors: float32[n, dim] or anything that numpy turns into it; ``None`` in a place for a record without.
            metadata: One dict a record.
            texts: One string a record.
            if_version: Write only if every id now has this version (0: does not exist).
            idempotency_key: Names this call. Repeated as it was within 10 minutes, it is answered as then and not done
                again, also after a restart; give the ids, since generated ones are new each time.

        Raises:
            InvalidArgument, DimensionMismatch, InvalidVector: A row is bad; nothing was written.
            FailedPrecondition: ``if_version`` does not hold, or another call had the ``idempotency_key``.
            ResourceExhausted: More than ``max_write_bytes``.
        """
        options = self._write_options(if_version, idempotency_key, timeout)
        return self._write(WriteMode.UPSERT, (ids, vectors, metadata, texts), vector_name=vector_name, **options)

    def insert(
        self,
        ids: Any = None,
        vectors: Any = None,
        metadata: Any = None,
        texts: Any = None,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        vector_name: str = "",
    ) -> WriteResult:
        """As :meth:`upsert`, but an existing id is an error.

        Raises:
            AlreadyExists: Names the ids that are there; nothing was written.
        """
        options = self._write_options(None, idempotency_key, timeout)
        return self._write(WriteMode.INSERT, (ids, vectors, metadata, texts), vector_name=vector_name, **options)

    def update(
        self,
        ids: Any = None,
        vectors: Any = None,
        metadata: Any = None,
        texts: Any = None,
        *,
        if_version: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        vector_name: str = "",
    ) -> WriteResult:
        """As :meth:`upsert`, but a missing id is an error. It REPLACES the whole record: vector, text and metadata that
        are not given are gone. To change metadata alone, use :meth:`update_metadata`.

        Raises:
            NotFound: Names the ids that are missing; nothing was written.
        """
        options = self._write_options(if_version, idempotency_key, timeout)
        return self._write(WriteMode.UPDATE, (ids, vectors, metadata, texts), vector_name=vector_name, **options)

    def bulk_upsert(self, records: Iterable[Any], batch_size: int = 1000, progress: bool = True) -> WriteResult:
        """Upserts any number of records in batches of ``batch_size``, each all or nothing, with a progress bar.

        Args:
            records: ``Record``s or dicts, e.g. from a generator, of which only a few batches at a time are held; or a
                pandas or arrow table with columns ``id, vector, metadata, text``.

        Returns:
            The rows of all batches and the last version. After an error, whose ``row`` counts from the first record of
            all, or one of the iterator's own, all whole batches before it are written.
        """
        return streams.bulk_upsert(self._backend, self.config, records, batch_size, progress)

    def update_metadata(
        self,
        ids: Any = None,
        where: Any = None,
        set: Mapping[str, Any] | None = None,
        unset: Any = None,
        *,
        if_version: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> int:
        """Sets and removes metadata fields without touching vectors; ids and ``where`` together: their intersection.

        Returns:
            Number of records changed. Ids that do not exist are passed over.

        Raises:
            InvalidArgument: Neither ``ids`` nor ``where``, or neither ``set`` nor ``unset``.
        """
        options = self._write_options(if_version, idempotency_key, timeout)
        request = build.update_metadata_request(ids, where, set, unset, **options)
        return self._backend.update_metadata(self.name, request)

    def delete(
        self,
        ids: Any = None,
        where: Any = None,
        *,
        if_version: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        erase: bool = False,
    ) -> int:
        """Deletes by ids, by filter, or by their intersection.

        Args:
            erase: Return only when no file of the folder has a byte of them any more, as :meth:`optimize` with
                ``erase`` does; then the number is an :class:`vectordb.Erasure`, a receipt. ``timeout`` bounds that.

        Returns:
            Number of records deleted.

        Raises:
            InvalidArgument: Neither ``ids`` nor ``where``; to delete everything use ``delete_collection``.
        """
        options = self._write_options(if_version, idempotency_key, timeout)
        request = build.delete_request(ids, where, **options)
        if flag(erase, "erase"):
            return self._backend.erase(self.name, EraseRequest(request, timeout))
        return self._backend.delete(self.name, request)

    # Reading

    def get(self, ids: Any, include: Any = ("metadata", "text"), *, timeout: float | None = None) -> list[Record]:
        """Records by id, in the asked order; missing ids are left out."""
        return self._backend.get(self.name, build.get_request(ids, include, self._limit(timeout)))

    def count(self, where: Any = None, *, timeout: float | None = None) -> int:
        """Exact number of records, all or those that match."""
        return self._backend.count(self.name, as_filter(where), self._limit(timeout))

    def scan(
        self,
        where: Any = None,
        order_by: str | None = None,
        page_size: int = 1000,
        include: Any = ("metadata", "text"),
    ) -> Generator[Record, None, None]:
        """All matching records over one snapshot: later writes do not show.

        Args:
            order_by: ``"year"`` or ``"-year"`` (descending); records without the field last, ties by id. Without it
                in order of arrival.

        Raises:
            FailedPrecondition: Served, and nothing was read for 60 s: the scan was released.
        """
        request = build.scan_request(where, order_by, page_size, include)
        return streams.records_of(self._backend.scan(self.name, request))

    # Care

    def optimize(self, wait: bool = True, *, erase: bool = False, timeout: float | None = None) -> Erasure | None:
        """Seals the tail, builds missing indexes and merges segments; returns when done, or at once without ``wait``.

        Searches and writes go on meanwhile.

        Args:
            erase: Instead, make everything that is deleted or replaced by now leave every file: segments with such rows
                are rewritten and their indexes built anew, storage is compacted. Returns a receipt. What still holds
                them, an open scan say, is waited for.
            timeout: Seconds to wait, after which the work goes on without the caller; ``None`` for no limit.

        Raises:
            InvalidArgument: ``erase`` without ``wait``. DeadlineExceeded: Not done in time; says what holds an erasure.
        """
        if not flag(erase, "erase"):
            self._backend.optimize(self.name, OptimizeRequest(flag(wait, "wait"), timeout))
            return None
        if not wait:
            raise InvalidArgument("erase gives a receipt of what is done: it needs wait=True", field="wait")
        return self._backend.erase(self.name, EraseRequest(None, timeout))

    def stats(self) -> CollectionStats:
        """Rows, sizes, segments and what goes on in the background."""
        found = self._backend.stats(self.name)
        self._note(found)
        return found

    def reindex(self, index: Any = None, quantization: Any = None, wait: bool = True) -> None:
        """Gives the collection another index and/or quantization while searches and writes go on.

        The new indexes are built beside the serving ones and take their place in one step. It survives a restart, and
        ``stats().optimizer`` tells its progress. Another call with another form takes the place of a running one.

        Args:
            index: As for ``create_collection``; ``None`` leaves it as it is.
            quantization: Likewise; ``"none"`` takes it away.
            wait: Return when it is done, or at once.

        Raises:
            InvalidArgument: The index cannot do that; nothing was changed.
            FailedPrecondition: While this call waited it was cancelled, or another ``reindex`` took its place.
            VectorDBError: Why a build failed. The old form goes on serving.
        """
        self.config = self._backend.reindex(self.name, build.reindex_request(index, quantization, wait))

    def cancel_reindex(self) -> bool:
        """Takes a running reindex back, and what it has built; whether there was one."""
        return self._backend.cancel_reindex(self.name)

    # Helpers

    def _note(self, stats: CollectionStats) -> None:
        if (stats.index, stats.quantization) != (self.index, self.quantization):
            self.config = replace(self.config, index=stats.index, quantization=stats.quantization)

    def _write_options(
        self, if_version: int | None, idempotency_key: str | None, timeout: float | None
    ) -> dict[str, Any]:
        if_version = None if if_version is None else version(if_version)
        return {"if_version": if_version, "idempotency_key": call_key(idempotency_key), "timeout": self._limit(timeout)}

    def _write(self, mode: WriteMode, columns: tuple[Any, Any, Any, Any], **options: Any) -> WriteResult:
        return self._backend.write(self.name, build.write_request(self.config, mode, columns, **options))
