"""What the executor is asked and what it answers, in terms of parts and rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vectordb.metric import Metric
from vectordb.results import Plan
from vectordb.types import FilterMode

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vectordb.filter import Filter


@dataclass(slots=True)
class SearchSpec:
    """One search request, checked; the same for all its queries.

    Attributes:
        limit: Hits a query, at least 1.
        exact: Scan even where there is an index.
        min_score: Keep hits at least this good, in the metric's own direction.
        params: Search parameters of the index, such as ``{"ef": 128}``; a kind takes those that it knows.
        allow_partial: Past the deadline answer with what was found, instead of raising.
        version: Of the snapshot, for the plan.
    """

    limit: int
    where: Filter | None = None
    filter_mode: FilterMode = FilterMode.AUTO
    exact: bool = False
    min_score: float | None = None
    params: Mapping[str, Any] | None = None
    allow_partial: bool = False
    metric: Metric = Metric.COSINE
    version: int = 0


@dataclass(slots=True)
class Winners:
    """The hits of one query, best first, equal scores by id.

    Attributes:
        scores: float32[k], in the metric's own direction.
        parts: int64[k], the number of each hit's part in the list that was searched.
        rows: int64[k], its row in that part.
    """

    ids: list[str]
    scores: NDArray[np.float32]
    parts: NDArray[np.int64]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(slots=True)
class Outcome:
    """The answer to all queries of a request.

    Attributes:
        winners: One entry a query.
        plan: How each part was searched.
        made: What the caller of ``execute`` wanted made of them, one entry a query.
        incomplete_reason: ``"deadline"`` when something was left unsearched, else ``None``.
        searched_fraction: How much of the parts' rows was searched, the mean over the queries.
    """

    winners: list[Winners]
    plan: Plan
    made: list[Any] = field(default_factory=list)
    incomplete_reason: str | None = None
    searched_fraction: float = 1.0
