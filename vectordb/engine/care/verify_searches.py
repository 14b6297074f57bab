"""A sample of searches: exact ones against brute force over storage, the others' recall against the exact ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vectordb.engine import reads
from vectordb.engine.live import Contents, LiveCollection
from vectordb.engine.recovery import StoredRows
from vectordb.engine.results import Results
from vectordb.engine.sweep import Sweep
from vectordb.metric import Metric, distances, prepared, scores
from vectordb.requests import SearchRequest
from vectordb.segments.tail import Tail

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.engine.care.verify_records import Records
    from vectordb.segments.segment import Segment

_LIMIT = 10
_NOISE = 0.1
"""Queries are stored vectors moved by so much of their length: near the data, but none of them."""


@dataclass(frozen=True, slots=True)
class Searched:
    """How many searches, the mean recall of those as users make them (None without any), and which were wrong."""

    searches: int
    recall: float | None
    problems: tuple[str, ...] = ()


def check_searches(records: Records, segments: Sequence[Segment], count: int) -> Searched:
    """Searches a collection whose segments are sound."""
    reader = StoredRows(records.number, records.config, records.storage)
    queries = _queries(reader, records, count)
    if not len(queries):
        return Searched(0, None)
    truth = _nearest(reader, records, queries)
    live = _opened(records, segments, reader)
    exact = reads.search(live, SearchRequest(queries, limit=_LIMIT, exact=True, include=()))
    usual = reads.search(live, SearchRequest(queries, limit=_LIMIT, include=()))
    problems = []
    recalls = []
    for number, (wanted, found, hits) in enumerate(zip(truth, exact, usual, strict=True)):
        got = list(zip(found.ids, found.scores, strict=True))
        if got != wanted:
            first = next(i for i in range(_LIMIT) if got[i : i + 1] != wanted[i : i + 1])
            problems.append(f"exact search {number} differs from brute force over storage from hit {first} on")
        names = {id_ for id_, _ in wanted}
        recalls.append(len(names & set(hits.ids)) / len(names) if names else 1.0)
    return Searched(len(queries), float(np.mean(recalls)), tuple(problems))


def _queries(reader: StoredRows, records: Records, count: int) -> NDArray[np.float32]:
    """float32[count, dim] near stored vectors that lie evenly over the offsets; fewer where there are few."""
    rng = np.random.default_rng(records.number)
    found: list[NDArray[np.float32]] = []
    step = max(1, records.state.next_offset // count)
    for low in range(0, records.state.next_offset, step):
        batch = next(reader.batches(low, records.state.next_offset), None)
        if batch is None or len(found) == count:
            break
        if batch.vectors is not None:
            first = 0 if batch.has_vector is None else int(np.argmax(batch.has_vector))
            vector = batch.vectors[first]
            length = float(np.linalg.norm(vector.astype(np.float64)))
            moved = vector + rng.standard_normal(len(vector)) * (_NOISE * length / len(vector) ** 0.5)
            if length > 0.0 and np.isfinite(moved).all():
                found.append(moved.astype(np.float32))
    return np.stack(found) if found else np.empty((0, records.config.dim), np.float32)


def _nearest(reader: StoredRows, records: Records, queries: NDArray[np.float32]) -> list[list[tuple[str, float]]]:
    """(id, score) of the nearest rows of each query, by comparing it with every stored vector."""
    metric: Metric = records.config.metric
    best: list[list[tuple[float, str, float]]] = [[] for _ in queries]
    asked = prepared(queries, metric)
    for batch in reader.batches(0, records.state.next_offset):
        if batch.vectors is None:
            continue
        there = np.arange(len(batch.ids)) if batch.has_vector is None else np.flatnonzero(batch.has_vector)
        rows = batch.vectors[there]
        for query, top in zip(asked, best, strict=True):
            found = scores(query, rows, metric)
            far = distances(found, metric)
            # All that are not farther than the last of the nearest: equal ones are told apart by id.
            cut = np.partition(far, _LIMIT - 1)[_LIMIT - 1] if len(far) > _LIMIT else np.inf
            near = np.flatnonzero(far <= cut).tolist()
            top.extend((float(far[i]), batch.ids[there[i]], float(found[i])) for i in near)
            top.sort()
            del top[_LIMIT:]
    return [[(id_, score) for _, id_, score in top] for top in best]


def _opened(records: Records, segments: Sequence[Segment], reader: StoredRows) -> LiveCollection:
    """The collection for reading, without what opening for use would change."""
    config = records.config
    upto = segments[-1].hi if segments else 0
    tail = Tail(config.dim, upto, config.fields, config.analyzer)
    for batch in reader.batches(upto, records.state.next_offset):
        tail.append(batch)
    contents = Contents(segments, tail, Results(), Sweep(records.number))
    return LiveCollection(records.number, config, records.storage, records.state, contents)
