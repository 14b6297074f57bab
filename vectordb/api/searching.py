"""The searches of a collection, embedded and served."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from inspect import signature
from typing import Any

import numpy as np

from vectordb.api import build, streams
from vectordb.arguments import flag, real
from vectordb.errors import InvalidArgument
from vectordb.requests import Backend, SearchRequest
from vectordb.results import Plan, SearchResult
from vectordb.types import CollectionConfig, FilterMode


class Searching:
    """What finds records by vector and by text; :class:`vectordb.Collection` has the rest. Thread-safe."""

    def __init__(self, backend: Backend, config: CollectionConfig, *, timeout: float | None = None) -> None:
        self._backend = backend
        self._timeout = timeout
        self.config = config

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
        return self._backend.search(self.config.name, self._search_request(vectors, limit, False, options))

    def search_stream(
        self, vectors: Iterable[Any], limit: int = 10, *, batch_size: int = 100, **options: Any
    ) -> Generator[SearchResult, None, None]:
        """One result a vector, in their order, of any number of vectors, e.g. from a generator, a file or a column.

        They are searched in batches, some of which are under way while the results of one are used: at least as fast
        as :meth:`search_batch`, and only a few batches are held at a time. Close it when it is left early.

        Args:
            batch_size: So many vectors are searched at a time; some batches are read ahead.
            options: As for :meth:`search`; ``timeout`` is each batch's, and ``text`` is one for all.

        Raises:
            VectorDBError: As for :meth:`search_batch`, after the results of all batches before; ``row`` counts from the
                first vector of all. An error of the iterator's own likewise.
        """
        like, size = self._stream_request(limit, batch_size, options)
        source = streams.vectors_in(vectors)
        requests = streams.search_requests(self.config, like, source, size)
        return streams.searched(self._backend, self.config.name, requests)

    def explain(self, vector: Any, limit: int = 10, *, analyze: bool = False, **options: Any) -> Plan:
        """How :meth:`search` would run: each segment's way, why, and what the other ways were estimated to cost.

        With ``analyze`` it is run, and the plan holds the measured figures and an estimate of this answer's recall:
        ``plan.recall``, at least ``plan.recall_low`` with a confidence of 95 %, from comparing the query with the share
        ``plan.recall_sampled`` of the rows that may be answers, in random blocks. Within a quarter of a second all of
        up to three million rows of 384 dimensions are compared; then the recall is exact.
        """
        request = self._search_request(vector, limit, True, options)
        return self._backend.explain(self.config.name, request, flag(analyze, "analyze"))

    def _limit(self, timeout: float | None) -> float | None:
        return self._timeout if timeout is None else real(timeout, "timeout")

    def _stream_request(self, limit: int, batch_size: int, options: dict[str, Any]) -> tuple[SearchRequest, int]:
        """What all searches of a stream have in common, and how many vectors are searched at a time."""
        like = self._search_request(np.ones((1, self.config.dim), np.float32), limit, False, options)
        if len(like.texts) > 1:
            raise InvalidArgument("a stream of searches takes one text for all of its vectors", field="text")
        return like, streams.checked_batch_size(batch_size)

    def _search_request(self, vectors: Any, limit: int, single: bool, options: dict[str, Any]) -> SearchRequest:
        for name in options:
            if name not in _SEARCH_OPTIONS:
                raise TypeError(f"a search has no argument {name!r}; its options are {', '.join(_SEARCH_OPTIONS)}")
        text, target = options.pop("text", None), options.pop("target_recall", None)
        given = SearchRequest(None, limit, **options)
        given.timeout = self._limit(given.timeout)
        return build.search_request(self.config, vectors, given, single=single, text=text, target_recall=target)


_SEARCH_OPTIONS = tuple(signature(Searching.search).parameters)[3:]
"""What searches take after the vector and the limit."""
