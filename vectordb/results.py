"""What searches give: hits and plans. No I/O, no heavy imports."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeAlias, overload

from vectordb.types import FilterMode

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

    from vectordb.types import Metadata


class Hit(NamedTuple):
    """One row of an answer. Fields that ``include`` did not name are ``None``."""

    id: str
    score: float
    metadata: Metadata | None = None
    text: str | None = None
    vector: NDArray[np.float32] | None = None


_NONE = repeat(None)


class HitColumns(NamedTuple):
    """The hits of one query by column, best first, all columns of one length; ``None`` for those that ``include`` did
    not name."""

    ids: list[str]
    scores: list[float]
    metadata: list[Any] | None = None
    texts: list[str | None] | None = None
    vectors: list[NDArray[np.float32] | None] | None = None

    def hits(self) -> list[Hit]:
        """The same by row; ``Hit(...)`` would cost a call of a Python function each."""
        ids, scores, metadata, texts, vectors = self
        others = (metadata or _NONE, texts or _NONE, vectors or _NONE)
        return list(map(tuple.__new__, repeat(Hit), zip(ids, scores, *others, strict=False)))


class Alternative(NamedTuple):
    """A way of searching a segment that was not chosen.

    Attributes:
        strategy: As in :class:`SegmentPlan`.
        cost_us: Estimated microseconds of one query; ``None`` where it could not be gone.
        reason: Why it could not, or ``None`` where it would only have cost more, or was not asked for.
    """

    strategy: str
    cost_us: float | None = None
    reason: str | None = None


class _NoParams(dict[str, Any]):
    """No parameters, one object for all plans: not to be changed, yet a dict, which is copied, pickled and JSON."""

    def _refused(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("the parameters of a plan are not to be changed")

    __setitem__ = update = setdefault = __ior__ = _refused

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return dict, ()


class SegmentPlan(NamedTuple):
    """How one segment (or the tail) was, or would be, searched.

    Attributes:
        segment: The segment's name, or ``"tail"``.
        strategy: ``exact`` (every row), ``exact_filtered`` (exact over the matching rows), the index's family such as
            ``graph`` (unfiltered, or walking only matching rows when ``filtered`` is true), ``graph_post`` (search,
            then filter, widening), ``text`` (keyword search over the postings), ``empty`` (nothing can match),
            ``skipped`` (the time ran out before).
        rows: Rows of the segment, deleted ones included.
        estimated: Rows expected to pass the filter, be alive and, in a search by vector, have one.
        matched: Rows that did, those without a vector included where others have one; ``None`` where the strategy never
            counted them.
        rows_scored: Rows whose distance to the query was computed, all queries of the request together.
        fallback_reason: Why another way than the first choice was taken in the end, or ``None``.
        filtered: Whether a filter applied.
        params: Search parameters in force, such as ``ef``.
        reason: Why this way was chosen. This and the following only in plans of ``explain``.
        cost_us: Microseconds that one query was estimated to take.
        alternatives: The ways not chosen.
    """

    segment: str
    strategy: str
    rows: int
    estimated: int
    matched: int | None = None
    rows_scored: int = 0
    fallback_reason: str | None = None
    filtered: bool = False
    params: Mapping[str, int | float] = _NoParams()
    reason: str | None = None
    cost_us: float = 0.0
    alternatives: tuple[Alternative, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """How a search was, or would be, run: one entry a segment, the tail last. A sequence of its segments.

    A hybrid search has two runs of entries: those of the vectors, then those of the texts.

    Attributes:
        timings_ms: Milliseconds by stage: ``filter``, ``search``, ``merge``; with ``explain(analyze=True)`` also
            ``read``, ``total`` (of all these) and ``recall`` (of the estimate).
        recall: With ``explain(analyze=True)`` the estimated share of the true nearest rows that was found; else
            ``None``, as are the two that follow.
        recall_low: What the recall is at least, with a confidence of 95 %.
        recall_sampled: Share of the rows that the estimate compared with the query: 1 makes it exact.
    """

    segments: tuple[SegmentPlan, ...]
    filter_mode: FilterMode = FilterMode.AUTO
    version: int = 0
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    recall: float | None = None
    recall_low: float | None = None
    recall_sampled: float | None = None

    def __len__(self) -> int:
        return len(self.segments)

    def __iter__(self) -> Iterator[SegmentPlan]:
        return iter(self.segments)

    def __getitem__(self, index: int) -> SegmentPlan:
        return self.segments[index]

    @property
    def rows_scored(self) -> int:
        """Distance computations of all segments together."""
        return sum(s.rows_scored for s in self.segments)


class RepeatedPlan(NamedTuple):
    """Makes the plan of a search that went as others go, but for what it took.

    Attributes:
        like: Theirs, without times, and without the rows scored of the one segment that is searched.
        number: Of that segment.
    """

    like: Plan
    number: int
    rows_scored: int
    search_ms: float
    merge_ms: float

    def __call__(self) -> Plan:
        segments = list(self.like.segments)
        own = segments[self.number]
        # A copy of the parameters: those of the other plan are kept.
        segments[self.number] = own._replace(rows_scored=self.rows_scored, params=dict(own.params))
        timings = {"search": self.search_ms, "merge": self.merge_ms}
        return Plan(tuple(segments), self.like.filter_mode, self.like.version, timings)


PlanMaker: TypeAlias = Callable[[], Plan] | RepeatedPlan


class SearchResult(Sequence[Hit]):
    """The hits of one query, best first, equal scores by id.

    Attributes:
        plan: How the search ran.
        complete: False when something was left unsearched; then ``incomplete_reason`` says why (``deadline``) and
            ``searched_fraction`` how much of the collection's rows was searched.
        took_ms: Wall time in the engine, in milliseconds.
    """

    __slots__ = ("_found", "_plan", "complete", "incomplete_reason", "searched_fraction", "took_ms")

    def __init__(
        self,
        hits: list[Hit] | HitColumns,
        plan: Plan | PlanMaker,
        took_ms: float,
        incomplete_reason: str | None = None,
        searched_fraction: float = 1.0,
    ) -> None:
        # By column until somebody looks at a hit.
        self._found = hits
        # What makes it, until somebody looks at it: few do.
        self._plan = plan
        self.took_ms = took_ms
        self.complete = incomplete_reason is None
        self.incomplete_reason = incomplete_reason
        self.searched_fraction = searched_fraction

    @property
    def plan(self) -> Plan:
        plan = self._plan
        if not isinstance(plan, Plan):
            # Two threads may both make it: it is the same.
            plan = self._plan = plan()
        return plan

    @plan.setter
    def plan(self, plan: Plan) -> None:
        self._plan = plan

    def plan_or_maker(self) -> Plan | PlanMaker:
        """The plan, or what makes it where nobody has looked at it."""
        return self._plan

    @property
    def _hits(self) -> list[Hit]:
        found = self._found
        if isinstance(found, HitColumns):
            # Two threads may both make them: they are the same.
            found = self._found = found.hits()
        return found

    def by_column(self) -> HitColumns:
        """The hits by column, without making them where they have not been looked at. Do not change it."""
        found = self._found
        if isinstance(found, HitColumns):
            return found
        if not found:
            return HitColumns([], [])
        ids, scores, *others = map(list, zip(*found, strict=True))
        return HitColumns(ids, scores, *(None if _all_none(column) else column for column in others))

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> list[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | list[Hit]:
        return self._hits[index]

    def __len__(self) -> int:
        found = self._found
        return len(found.ids if isinstance(found, HitColumns) else found)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self._hits)

    def __repr__(self) -> str:
        shown = ", ".join(f"{h.id!r}: {h.score:.4f}" for h in self._hits[:5])
        more = ", ..." if len(self._hits) > 5 else ""
        state = "" if self.complete else f" INCOMPLETE ({self.incomplete_reason}, {self.searched_fraction:.0%})"
        return f"<SearchResult of {len(self._hits)}: {shown}{more}{state}>"

    @property
    def ids(self) -> list[str]:
        return list(self.by_column().ids)

    @property
    def scores(self) -> list[float]:
        return list(self.by_column().scores)

    def _columns(self) -> dict[str, list[Any]]:
        ids, scores, *others = self.by_column()
        columns: dict[str, list[Any]] = {"id": list(ids), "score": list(scores)}
        for name, values in zip(("metadata", "text", "vector"), others, strict=True):
            if values is not None and not _all_none(values):
                columns[name] = list(values)
        return columns

    def to_pandas(self) -> pd.DataFrame:
        """One row a hit: id, score, and the included columns. Needs pandas."""
        import pandas

        return pandas.DataFrame(self._columns())

    def to_arrow(self) -> pa.Table:
        """One row a hit: id, score, metadata as JSON text, text, vector. Needs pyarrow."""
        import pyarrow

        from vectordb import encoding

        columns = self._columns()
        if "metadata" in columns:
            columns["metadata"] = [None if m is None else encoding.metadata_to_json(m) for m in columns["metadata"]]
        text, vector = pyarrow.string(), pyarrow.list_(pyarrow.float32())
        # An empty answer has the types of any other.
        types = {"id": text, "score": pyarrow.float64(), "metadata": text, "text": text, "vector": vector}
        return pyarrow.table(columns, schema=pyarrow.schema([(name, types[name]) for name in columns]))


def _all_none(values: Sequence[Any]) -> bool:
    return all(value is None for value in values)
