"""A batch of queries over all processors: its queries are independent, and most of their work runs without the GIL.

The batch is cut into chunks, which the caller's thread and helpers from one pool of the process take in turn. A caller
never waits for a helper to become free, only for chunks that one has begun: under load, when all helpers are busy, a
batch is searched by its own thread alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

from vectordb.query.run import Report, Run


class _Helpers:
    """The pool of this process, made when the first batch comes."""

    def __init__(self) -> None:
        self.count = len(os.sched_getaffinity(0)) - 1
        self._start_anew()

    def _start_anew(self) -> None:
        self._lock = Lock()
        self._pool: ThreadPoolExecutor | None = None

    def submit(self, work: Callable[[], None]) -> Future[None]:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.count, "vectordb-batch")
            return self._pool.submit(work)


_helpers = _Helpers()
# A forked child has none of the threads.
os.register_at_fork(after_in_child=_helpers._start_anew)


def for_each_chunk(count: int, size: int, work: Callable[[range], None]) -> None:
    """Calls ``work`` for stretches of ``0..count-1`` of at most ``size`` each, in several threads at once.

    Raises:
        Exception: One that a chunk raised, the caller's own before a helper's, once no chunk runs any more; those not
            begun are left out.
    """
    chunks = iter([range(start, min(start + size, count)) for start in range(0, count, size)])
    stopped = False

    def take_chunks() -> None:
        nonlocal stopped
        # An iterator over a list hands out each item once, whichever threads ask.
        while not stopped and (chunk := next(chunks, None)) is not None:
            try:
                work(chunk)
            except BaseException:
                stopped = True
                raise

    others = [_helpers.submit(take_chunks) for _ in range(min(_helpers.count, -(-count // size) - 1))]
    error: BaseException | None = None
    try:
        take_chunks()
    finally:
        stopped = True  # nothing is left, or this thread gave up
        for other in others:
            if not other.cancel():
                error = other.exception() or error
    if error is not None:
        raise error


def over_queries(run: Run, size: int, search: Callable[[Run], Report]) -> Report:
    """Searches one part for all queries: by several threads, ``size`` at a time, where they are more than that."""
    count = len(run.queries)
    if count <= size or not _helpers.count:
        return search(run)
    reports: dict[range, Report] = {}

    def search_chunk(chunk: range) -> None:
        mine = run.over(chunk)
        reports[chunk] = search(mine)
        run.join(chunk, mine)

    for_each_chunk(count, size, search_chunk)
    return Report.joined(reports)
