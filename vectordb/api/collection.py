"""The collection as users hold it: the same class embedded and served."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import replace
from inspect import signature
from typing import Any

from vectordb.api import build, streams
from vectordb.arguments import call_key, flag, real, version
from vectordb.errors import InvalidArgument
from vectordb.filter import as_filter
from vectordb.metric import Metric
from vectordb.reports import Erasure
from vectordb.requests import Backend, EraseRequest, OptimizeRequest, SearchRequest, WriteMode
from vectordb.results import Plan, SearchResult
from vectordb.stats import CollectionStats
from vectordb.types import CollectionConfig, FilterMode, IndexSpec, QuantizationSpec, Record, WriteResult


class Collection:
    """Handle of one collection. Thread-safe; made by ``Database``, not by hand.

    ``config``, ``index`` and ``quantization`` are as of the handle's making or its last ``stats`` or ``reindex``:
    another client may have reindexed since.

    Everywhere: ``ids`` are strings, integers or UUIDs, one or many; ``where`` is a filter
    (``col("year") >= 2000`` or its JSON form); ``timeout`` is in seconds and overrides the connection's.
    """

    def __init__(self, backend: Backend, config: CollectionConfig, *, timeout: float | None = None) -> None:
        self._backend = backend
        self._timeout = timeout
        self.config = config

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

    def search(
        self,
        vector: Any,
        limit: int = 10,
        where: Any = None,
        filter_mode: str | FilterMode = FilterMode.AUTO,
        exact: bool = False,
        min_score: float | None = None,
        params: dict[str, Any] | None = None,
        timeout: float | None = None,
        allow_partial: bool = False,
        include: Any = ("metadata",),
        vector_name: str = "",
        text: str | None = None,
        fusion: Any = None,
        target_recall: float | None = None,
    ) -> SearchResult:
        """The nearest records of one vector, best first, equal scores by id; with ``text`` a hybrid search.

        Args:
            vector: ``dim`` numbers.
            limit: At most so many hits, 1 to 10,000.
            filter_mode: ``pre``, ``in``, ``post`` or ``auto``: when the filter is applied.
            exact: Compare with every record (that matches) instead of using an approximate index.
            min_score: Keep hits at least this good, in the metric's own direction. It bounds the vector's leg of a
                hybrid search.
            params: Parameters of the index for this query, e.g. ``{"ef": 200}``.
            timeout: Past it ``DeadlineExceeded``, or what was found so far with ``allow_partial``.
            include: Any of ``"metadata"``, ``"text"``, ``"vector"``.
            text: Words to search for too, as for :meth:`search_text`. Each leg finds its best 100 (or ``limit``, where
                that is more), and ``fusion`` joins them; the score is the fused one.
            fusion: ``"rrf"`` (by ranks, the default), ``{"rrf": {"k": 60}}``, or ``{"weights": [0.7, 0.3]}``: of the
                vector's and the text's scores, each scaled to 0..1 over its leg's candidates.
            target_recall: Mean share of the true nearest records to find, greater than 0; 1 is exact. In place of a
                width such as ``ef``: each index has been measured, and is searched as widely as this takes, exactly
                where it was not measured. The same as ``params={"target_recall": ...}``.
        """
        mode: Any = filter_mode
        within = self._limit(timeout)
        given = SearchRequest(
            None, limit, where, mode, exact, min_score, params, within, allow_partial, include, vector_name
        )
        given.fusion = fusion
        request = build.search_request(self.config, vector, given, single=True, text=text, target_recall=target_recall)
        return self._backend.search(self.config.name, request)[0]

    def search_text(
        self,
        text: str,
        limit: int = 10,
        where: Any = None,
        *,
        min_score: float | None = None,
        timeout: float | None = None,
        allow_partial: bool = False,
        include: Any = ("metadata",),
    ) -> SearchResult:
        """The records whose texts fit the words best, by BM25; equal scores by id.

        Args:
            text: Words, any of which is enough; also ``begin*``, ``"a phrase"``, ``fuzzy~`` and ``fuzzy~1`` (edits).
            min_score: Keep hits whose BM25 score is at least this.
            limit, where, timeout, allow_partial, include: As for :meth:`search`.
        """
        request = build.text_request(
            text,
            where,
            include,
            limit=limit,
            min_score=min_score,
            timeout=self._limit(timeout),
            allow_partial=allow_partial,
        )
        return self._backend.search(self.config.name, request)[0]

    def search_batch(self, vectors: Any, limit: int = 10, **options: Any) -> list[SearchResult]:
        """One result a vector, in one trip; ``options`` as for :meth:`search` (``text`` for all, or a list)."""
        return self._backend.search(self.name, self._search_request(vectors, limit, False, options))

    def explain(self, vector: Any, limit: int = 10, *, analyze: bool = False, **options: Any) -> Plan:
        """How :meth:`search` would run: each segment's way, why, and what the other ways were estimated to cost.

        With ``analyze`` it is run, and the plan holds the measured figures and an estimate of this answer's recall:
        ``plan.recall``, at least ``plan.recall_low`` with a confidence of 95 %, from comparing the query with the share
        ``plan.recall_sampled`` of the rows that may be answers, in random blocks. Within a quarter of a second all of
        up to three million rows of 384 dimensions are compared; then the recall is exact.
        """
        request = self._search_request(vector, limit, True, options)
        return self._backend.explain(self.name, request, flag(analyze, "analyze"))

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

    def _limit(self, timeout: float | None) -> float | None:
        return self._timeout if timeout is None else real(timeout, "timeout")

    def _write_options(
        self, if_version: int | None, idempotency_key: str | None, timeout: float | None
    ) -> dict[str, Any]:
        if_version = None if if_version is None else version(if_version)
        return {"if_version": if_version, "idempotency_key": call_key(idempotency_key), "timeout": self._limit(timeout)}

    def _write(self, mode: WriteMode, columns: tuple[Any, Any, Any, Any], **options: Any) -> WriteResult:
        return self._backend.write(self.name, build.write_request(self.config, mode, columns, **options))

    def _search_request(self, vectors: Any, limit: int, single: bool, options: dict[str, Any]) -> SearchRequest:
        for name in options:
            if name not in _SEARCH_OPTIONS:
                raise TypeError(f"a search has no argument {name!r}; its options are {', '.join(_SEARCH_OPTIONS)}")
        text, target = options.pop("text", None), options.pop("target_recall", None)
        given = SearchRequest(None, limit, **options)
        given.timeout = self._limit(given.timeout)
        return build.search_request(self.config, vectors, given, single=single, text=text, target_recall=target)


_SEARCH_OPTIONS = tuple(signature(Collection.search).parameters)[3:]
"""What searches take after the vector and the limit."""
