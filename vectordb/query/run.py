"""The state of one search while it runs: what is asked, what was found, how much time is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vectordb.metric import distances, scores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.query.deadline import Deadline
    from vectordb.query.merge import Found
    from vectordb.query.spec import SearchSpec
    from vectordb.segments.part import Part


class Run:
    """The state of searching some queries. Used by one thread, but for :meth:`join`, which each thread of a batch calls
    for queries of its own.

    Attributes:
        queries: float32[q, d], prepared.
        found: For each query its candidates, one entry a part that has some.
        searched: Rows searched so far, by the mean over the queries.
        filter_seconds: Time spent in estimating and evaluating the filter.
    """

    __slots__ = ("deadline", "filter_seconds", "found", "incomplete", "limit", "parts", "queries", "searched", "spec")

    def __init__(
        self, parts: Sequence[Part], queries: NDArray[np.float32], spec: SearchSpec, deadline: Deadline
    ) -> None:
        self.parts = parts
        self.queries = queries
        self.spec = spec
        self.deadline = deadline
        self.limit = spec.limit
        self.found: list[list[Found]] = [[] for _ in range(len(queries))]
        self.searched = 0.0
        self.filter_seconds = 0.0
        self.incomplete = False

    def over(self, chunk: range) -> Run:
        """A run of its own for some of the queries."""
        return Run(self.parts, self.queries[chunk.start : chunk.stop], self.spec, self.deadline)

    def join(self, chunk: range, run: Run) -> None:
        """Takes over what a run for some of the queries found in one more part."""
        for query, found in zip(chunk, run.found, strict=True):
            self.found[query].extend(found)
        # Never taken back, so that threads may join at once.
        self.incomplete = self.incomplete or run.incomplete

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

    def final_distances(self, query: int, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Final distances of prepared vectors float32[c, d] to one query: the scores that users see, smaller closer."""
        metric = self.spec.metric
        return distances(scores(self.queries[query], vectors, metric), metric)

    def all_final_distances(self, queries: Sequence[int], vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same for some queries, each with vectors of its own: float32[q, c, d] -> float32[q, c]."""
        metric = self.spec.metric
        chosen = self.queries[np.asarray(queries), None]
        return distances(scores(chosen, vectors, metric), metric)


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
    def joined(reports: Mapping[range, Report]) -> Report:
        """One report of the chunks of a batch."""
        whole = Report()
        queries = sum(map(len, reports))
        whole.fraction = sum(len(chunk) * report.fraction for chunk, report in reports.items()) / queries
        for report in reports.values():
            whole.scored += report.scored
            whole.exact_queries += report.exact_queries
            whole.reasons = tuple(dict.fromkeys(whole.reasons + report.reasons))
            whole.params = report.params or whole.params
        return whole
