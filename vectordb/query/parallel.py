"""A batch of queries over all processors: its queries are independent, and most of their work runs without the GIL.

The batch is cut into chunks, which the caller's thread and helpers from one pool of the process take in turn. A caller
never waits for a helper to become free, only for chunks that one has begun: under load, when all helpers are busy, a
batch is searched by its own thread alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate, pairwise
from threading import Lock
from typing import NamedTuple, TypeVar

from vectordb.query.run import Run

T = TypeVar("T")


class _Helpers:
    """The pool of this process, made when the first batch comes."""

    def __init__(self) -> None:
        self.count = len(os.sched_getaffinity(0)) - 1
        self._start_anew()

    def _start_anew(self) -> None:
        self._lock = Lock()
        self._pool: ThreadPoolExecutor | None = None

    def submit(self, work: Callable[[], None]) -> Future[None] | None:
        """None once the main thread has ended, after which pools take no work; other threads may go on searching."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.count, "vectordb-batch")
            try:
                return self._pool.submit(work)
            except RuntimeError:
                return None


_helpers = _Helpers()
# A forked child has none of the threads.
os.register_at_fork(after_in_child=_helpers._start_anew)


def for_each(chunks: Sequence[range], work: Callable[[range], None]) -> None:
    """Calls ``work`` for each chunk, in several threads at once.

    Raises:
        Exception: One that a chunk raised, the caller's own before a helper's, once no chunk runs any more; those not
            begun are left out.
    """
    left = iter(list(chunks))
    stopped = False

    def take_chunks() -> None:
        nonlocal stopped
        # An iterator over a list hands out each item once, whichever threads ask.
        while not stopped and (chunk := next(left, None)) is not None:
            try:
                work(chunk)
            except BaseException:
                stopped = True
                raise

    asked = [_helpers.submit(take_chunks) for _ in range(min(_helpers.count, len(chunks) - 1))]
    others = [helper for helper in asked if helper is not None]
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


class Sizes(NamedTuple):
    """How many queries are searched by one thread alone, and about how many at most at a time by several."""

    alone: int
    most: int


def over_queries(run: Run, sizes: Sizes, search: Callable[[Run], T]) -> list[T]:
    """What ``search`` gives for runs of stretches of the queries, in their order."""
    count, threads = len(run.queries), _helpers.count + 1
    if count <= sizes.alone or threads == 1:
        return [search(run)]
    answers: dict[int, T] = {}

    def search_chunk(chunk: range) -> None:
        answers[chunk.start] = search(run.over(chunk))

    for_each(stretches(count, sizes.most, threads), search_chunk)
    return [answers[start] for start in sorted(answers)]


def stretches(count: int, size: int, threads: int) -> list[range]:
    """Cuts ``0..count-1`` so that each thread gets as much as the others: one that is left over would be waited for.

    All are alike and of at most ``size`` but the first of each thread: these are of steps in length, and short ones at
    the end make up for it. Threads that search equally long would all come for the GIL at once, again and again.
    """
    each = -(-count // (size * threads))
    whole = count / (threads * each)
    steps = [whole * (thread + 1) / threads for thread in range(threads)]
    sizes = [*steps, *[whole] * (threads * (each - 1)), *reversed(steps[:-1])]
    bounds = [0, *(int(end + 0.5) for end in accumulate(sizes))]
    return [range(start, stop) for start, stop in pairwise(bounds) if start < stop]
