"""A backend whose operations are told to observers: the slow-query log, spans, the estimate of recall.

It stands between what the callers may do (``access.py``, ``row_policy.py``) and the engine, so that observers see
filters and plans as they were carried out. Put in place only where something observes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from vectordb.row_policy import PolicyBackend

if TYPE_CHECKING:
    from vectordb.filter import Filter
    from vectordb.reports import Erasure
    from vectordb.requests import (
        Backend,
        CreateRequest,
        DeleteRequest,
        EraseRequest,
        GetRequest,
        ScanRequest,
        SearchRequest,
        UpdateMetadataRequest,
        WriteRequest,
    )
    from vectordb.results import Plan, SearchResult
    from vectordb.types import CollectionConfig, Record, WriteResult

T = TypeVar("T")
log = logging.getLogger("vectordb.server")


class Done(NamedTuple):
    """An operation that has ended.

    Attributes:
        started: As of ``time.perf_counter``. seconds: How long it took.
        request: What was asked: a request of :mod:`vectordb.requests`, or a count's filter; None for
            ``delete_collection``.
        answer: What it gave; of a scan one page; None where it failed.
    """

    operation: str
    collection: str
    started: float
    seconds: float
    request: Any
    answer: Any
    error: Exception | None

    @property
    def rows(self) -> int:
        """Rows that were given or changed."""
        if self.operation == "search":
            return sum(map(len, self.answer or ()))
        if isinstance(self.answer, int):
            return self.answer
        if isinstance(self.answer, list):
            return len(self.answer)
        return int(getattr(self.answer, "count", 0) or 0)

    @property
    def where(self) -> Filter | None:
        """The filter that applied."""
        found: Filter | None = self.request if self.operation == "count" else getattr(self.selector, "where", None)
        return found

    @property
    def selector(self) -> Any:
        """What names the rows: the request, or of an erasure the deletion before it, which may be None."""
        return self.request.delete if self.operation == "erase" else self.request

    @property
    def plan(self) -> Plan | None:
        """How a search ran: of a batch as its first query did."""
        if self.operation == "search" and self.answer:
            first: Plan = self.answer[0].plan
            return first
        return self.answer if self.operation == "explain" else None


Observer = Callable[[Done], None]


class WatchedBackend:
    """Hands each request on and tells the observers how it went: a ``vectordb.requests.Backend``. Thread-safe if they
    are. Told are reads, writes, erasures, and the making and deleting of collections; the rest (care, checks, backups)
    is handed on untold. An observer that fails is noted in the log; the answer stays what it is."""

    def __init__(self, backend: Backend, observers: Sequence[Observer]) -> None:
        self._backend = backend
        self._observers = tuple(observers)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def _do(self, operation: str, collection: str, request: Any, action: Callable[[], T]) -> T:
        answer, error, started = None, None, time.perf_counter()
        try:
            answer = action()
            return answer
        except Exception as raised:
            error = raised
            raise
        finally:
            done = Done(operation, collection, started, time.perf_counter() - started, request, answer, error)
            for observer in self._observers:
                try:
                    observer(done)
                except Exception:
                    # What was written is written, whoever could not look at it.
                    log.exception("an observer of %s failed", operation)

    def create_collection(self, request: CreateRequest) -> CollectionConfig:
        return self._do(
            "create_collection", request.config.name, request, lambda: self._backend.create_collection(request)
        )

    def delete_collection(self, name: str) -> None:
        self._do("delete_collection", name, None, lambda: self._backend.delete_collection(name))

    def write(self, collection: str, request: WriteRequest) -> WriteResult:
        return self._do(request.mode.value, collection, request, lambda: self._backend.write(collection, request))

    def update_metadata(self, collection: str, request: UpdateMetadataRequest) -> int:
        return self._do(
            "update_metadata", collection, request, lambda: self._backend.update_metadata(collection, request)
        )

    def delete(self, collection: str, request: DeleteRequest) -> int:
        return self._do("delete", collection, request, lambda: self._backend.delete(collection, request))

    def erase(self, collection: str, request: EraseRequest) -> Erasure:
        return self._do("erase", collection, request, lambda: self._backend.erase(collection, request))

    def get(self, collection: str, request: GetRequest) -> list[Record]:
        return self._do("get", collection, request, lambda: self._backend.get(collection, request))

    def count(self, collection: str, where: Filter | None, timeout: float | None = None) -> int:
        return self._do("count", collection, where, lambda: self._backend.count(collection, where, timeout))

    def scan(self, collection: str, request: ScanRequest) -> Iterator[list[Record]]:
        return self._pages(self._backend.scan(collection, request), collection, request)

    def _pages(self, pages: Iterator[list[Record]], collection: str, request: ScanRequest) -> Iterator[list[Record]]:
        """The same pages, each told as an operation of its own."""
        try:
            while (page := self._do("scan", collection, request, lambda: next(pages, None))) is not None:
                yield page
        finally:
            close = getattr(pages, "close", None)
            if close is not None:
                close()

    def search(self, collection: str, request: SearchRequest) -> list[SearchResult]:
        return self._do("search", collection, request, lambda: self._backend.search(collection, request))

    def explain(self, collection: str, request: SearchRequest, analyze: bool) -> Plan:
        return self._do("explain", collection, request, lambda: self._backend.explain(collection, request, analyze))

    def with_policy(self, policy: Filter) -> PolicyBackend:
        """The same within a row policy; observers go on seeing what is carried out."""
        return PolicyBackend(self, policy)
