"""The state of one search while it runs: what is asked, what was found, how much time is left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vectordb.metric import distances, scores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.query.deadline import Deadline
    from vectordb.query.merge import Alike, Found
    from vectordb.query.spec import SearchSpec
    from vectordb.segments.part import Part


_TOGETHER = 128
"""Rows that are scored at once: with 384 dimensions they fit the second cache twice, as they are and widened."""


class Run:
    """The state of searching some queries. Used by one thread; of a batch each has runs of its own.

    Attributes:
        queries: float32[q, d], prepared.
        alike: All that was found, where one part answered all queries at once; else ``None``.
    """

    __slots__ = ("_found", "alike", "deadline", "incomplete", "limit", "parts", "queries", "spec")

    def __init__(
        self, parts: Sequence[Part], queries: NDArray[np.float32], spec: SearchSpec, deadline: Deadline
    ) -> None:
        self.parts = parts
        self.queries = queries
        self.spec = spec
        self.deadline = deadline
        self.limit = spec.limit
        self._found: list[list[Found]] = [[] for _ in range(len(queries))]
        self.alike: Alike | None = None
        self.incomplete = False

    @property
    def found(self) -> list[list[Found]]:
        """For each query its candidates, one entry a part that has some."""
        if self.alike is not None:
            alike, self.alike = self.alike, None
            for entries, found in zip(self._found, alike.each(), strict=True):
                entries.append(found)
        return self._found

    def over(self, chunk: range) -> Run:
        """A run of its own for some of the queries."""
        return Run(self.parts, self.queries[chunk.start : chunk.stop], self.spec, self.deadline)

    def expired(self) -> bool:
        """Whether to stop here; then the answer is incomplete.

        Raises:
            DeadlineExceeded: The time is up and no partial answer is wanted, or nobody waits for any.
        """
        if not self.deadline.expired():
            return False
        self.give_up()
        return True

    def give_up(self) -> None:
        """Marks the answer as incomplete.

        Raises:
            DeadlineExceeded: No partial answer is wanted, or nobody waits for any.
        """
        if not self.spec.allow_partial or self.deadline.cancelled():
            raise self.deadline.error()
        self.incomplete = True

    def put(self, query: int, found: Found) -> None:
        """Adds a query's candidates in a part, in place of those that an earlier attempt in that part found."""
        entries = self.found[query]
        if entries and entries[-1].part == found.part:
            entries[-1] = found
        else:
            entries.append(found)

    def put_alike(self, found: Alike) -> None:
        """Adds the candidates of all queries in a part that found none for them before."""
        if any(self.found):
            for query, one in enumerate(found.each()):
                self.put(query, one)
        else:
            self.alike = found

    def final_distances(self, query: int, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Final distances of prepared vectors float32[c, d] to one query: the scores that users see, smaller closer."""
        metric = self.spec.metric
        return distances(scores(self.queries[query], vectors, metric), metric)

    def all_final_distances(self, queries: Sequence[int], part: Part, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The same for some queries, each with rows of its own in a part: int64[q, c] -> float32[q, c]."""
        n, c = rows.shape
        metric = self.spec.metric
        chosen = self.queries[np.asarray(queries), None]
        found = np.empty((n, c), np.float32)
        step = max(1, _TOGETHER // c)
        for first in range(0, n, step):
            some = slice(first, first + step)
            vectors = part.vectors_at(rows[some].ravel()).reshape(-1, c, self.queries.shape[1])
            found[some] = scores(chosen[some], vectors, metric)
        return distances(found, metric)


class Report:
    """How the search of one part went.

    Attributes:
        scored: Rows compared, all queries together.
        fraction: Share of the part's rows that was searched, the mean over the queries.
        reasons: Why another way was taken, each reason once.
        params: Search parameters in force, where they differ from the step's.
        exact_queries: Queries that ended in an exact search instead of the index.
    """

    __slots__ = ("exact_queries", "fraction", "params", "reasons", "scored")

    def __init__(self) -> None:
        self.scored = 0
        self.fraction = 1.0
        self.reasons: tuple[str, ...] = ()
        self.params: dict[str, int | float] | None = None
        self.exact_queries = 0

    def reason(self, queries: int) -> str | None:
        """Why another way was taken, and by how many of the queries where not by all."""
        if not self.reasons:
            return None
        text = "; ".join(self.reasons)
        return text if self.exact_queries in (0, queries) else f"{self.exact_queries} of {queries} queries: {text}"

    @staticmethod
    def joined(reports: Sequence[tuple[int, Report | None]]) -> Report:
        """One report of a batch: of so many queries each, ``None`` where the time ran out before they were begun."""
        whole = Report()
        searched: float = sum(count * report.fraction for count, report in reports if report is not None)
        whole.fraction = searched / sum(count for count, _ in reports)
        for _, report in reports:
            if report is None:
                continue
            whole.scored += report.scored
            whole.exact_queries += report.exact_queries
            whole.reasons = tuple(dict.fromkeys(whole.reasons + report.reasons))
            whole.params = report.params or whole.params
        return whole
