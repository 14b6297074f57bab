"""Deadlines: the clock itself, and searches that stop between slices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from vectordb.errors import DeadlineExceeded
from vectordb.metric import Metric, prepared
from vectordb.query.deadline import NO_DEADLINE, Deadline
from vectordb.query.executor import execute
from vectordb.query.spec import SearchSpec
from vectordb.types import FilterMode

DIM = 16


def test_clock() -> None:
    assert Deadline.after(None) is NO_DEADLINE
    assert NO_DEADLINE.remaining() == math.inf
    assert not NO_DEADLINE.expired()
    NO_DEADLINE.check()
    soon = Deadline.after(60.0)
    assert 59.0 < soon.remaining() <= 60.0
    soon.check()
    past = Deadline.after(0.0)
    assert past.expired()
    assert past.remaining() == 0.0
    with pytest.raises(DeadlineExceeded, match="within 0 s") as caught:
        past.check()
    assert caught.value.timeout == 0.0


def test_cancelled() -> None:
    gone = False
    deadline = Deadline.after(None, cancelled=lambda: gone)
    assert not deadline.expired()
    assert deadline.remaining() == math.inf
    gone = True
    assert deadline.expired()
    assert deadline.cancelled()
    assert deadline.remaining() == 0.0
    with pytest.raises(DeadlineExceeded, match="cancelled"):
        deadline.check()


def _part(fakes: Any, name: str = "s", rows: int = 3_000, **options: Any) -> Any:
    vectors = np.random.default_rng(len(name)).normal(size=(rows, DIM))
    return fakes.FakePart(name, vectors, [f"{name}{i}" for i in range(rows)], Metric.COSINE, **options)


def _queries(count: int = 1) -> Any:
    return prepared(np.random.default_rng(9).normal(size=(count, DIM)).astype(np.float32), Metric.COSINE)


def test_exact_scan_stops_between_blocks(fakes: Any, clock: Any) -> None:
    part = _part(fakes, block_rows=30)
    part.block_delay = 0.005
    outcome = execute([part], _queries(), SearchSpec(10, allow_partial=True), Deadline.after(0.06))
    assert clock.now == pytest.approx(0.06, abs=0.011)
    assert outcome.incomplete_reason == "deadline"
    assert 0.0 < outcome.searched_fraction < 0.6
    assert part.blocks_read < 60
    assert len(outcome.winners[0]) == 10
    read = part.blocks_read
    with pytest.raises(DeadlineExceeded):
        execute([part], _queries(), SearchSpec(10), Deadline.after(0.06))
    assert part.blocks_read - read < 60


def test_time_already_over(fakes: Any, clock: Any) -> None:
    parts = [_part(fakes).indexed(), _part(fakes, "tail", 10)]
    with pytest.raises(DeadlineExceeded):
        execute(parts, _queries(), SearchSpec(10), Deadline.after(0.0))
    outcome = execute(parts, _queries(2), SearchSpec(10, allow_partial=True), Deadline.after(0.0))
    assert [step.strategy for step in outcome.plan] == ["skipped", "skipped"]
    assert [len(hits) for hits in outcome.winners] == [0, 0]
    assert outcome.searched_fraction == 0.0
    assert parts[0].index.calls == []


def test_parts_after_the_deadline_are_skipped(fakes: Any, clock: Any) -> None:
    first, second = _part(fakes, "tail", 300).indexed(delay=0.05), _part(fakes, "s", 600)
    outcome = execute([second, first], _queries(), SearchSpec(10, allow_partial=True), Deadline.after(0.03))
    assert [step.strategy for step in outcome.plan] == ["skipped", "graph"]
    assert outcome.searched_fraction == pytest.approx(300 / 900)
    assert len(outcome.winners[0]) == 10


def test_a_slow_index_is_left_between_query_slices(fakes: Any, clock: Any) -> None:
    part = _part(fakes).indexed(delay=0.001)
    outcome = execute([part], _queries(2_000), SearchSpec(5, allow_partial=True), Deadline.after(0.3))
    done = [len(hits) == 5 for hits in outcome.winners]
    assert outcome.incomplete_reason == "deadline"
    assert 0 < sum(done) < 2_000
    assert outcome.searched_fraction == pytest.approx(sum(done) / 2_000)


def test_a_beam_that_would_not_fit_is_narrowed(fakes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    dim = 4_096
    wide = fakes.FakePart(
        "w", np.random.default_rng(0).normal(size=(3_000, dim)), [f"{i}" for i in range(3_000)], Metric.COSINE
    )
    wide.indexed()
    query = wide.matrix[:1]
    # The clock stands still: what is left is always less than this beam is reckoned to take, and never nothing.
    monkeypatch.setattr("vectordb.query.deadline.monotonic", lambda: 0.0)
    params = {"ef": 100}
    outcome = execute([wide], query, SearchSpec(10, params=params, allow_partial=True), Deadline.after(0.0015))
    (step,) = outcome.plan
    assert outcome.incomplete_reason == "deadline"
    assert step.strategy == "graph"
    assert 14 <= step.params["ef"] < 100
    assert "deadline" in (step.fallback_reason or "")
    assert len(outcome.winners[0]) == 10
    with pytest.raises(DeadlineExceeded):
        execute([wide], query, SearchSpec(10, params=params), Deadline.after(0.0015))


def test_a_cancelled_search_raises_even_where_a_partial_answer_is_allowed(fakes: Any) -> None:
    part = _part(fakes, block_rows=30)
    asked = 0

    def gone() -> bool:
        nonlocal asked
        asked += 1
        return asked > 20

    with pytest.raises(DeadlineExceeded, match="cancelled"):
        execute([part], _queries(), SearchSpec(10, allow_partial=True), Deadline.after(None, gone))
    assert part.blocks_read < 30


def test_an_unfinished_fallback_keeps_what_the_index_found(fakes: Any, clock: Any) -> None:
    part = _part(fakes, block_rows=10).indexed(beam=lambda ef: 5)
    part.block_delay = 0.002
    outcome = execute([part], _queries(), SearchSpec(10, allow_partial=True), Deadline.after(0.05))
    hits = outcome.winners[0]
    assert outcome.incomplete_reason == "deadline"
    assert len(hits) == len(set(hits.ids)) == 10
    best = fakes.expected([part], _queries()[0], 5)
    assert fakes.answers(outcome)[0][:5] == best


def test_deadline_with_a_filter(fakes: Any) -> None:
    part = _part(fakes, block_rows=30)
    where = fakes.FakeFilter({"s": np.arange(3_000) % 3 == 0})
    outcome = execute(
        [part], _queries(), SearchSpec(10, where, FilterMode.PRE, allow_partial=True), Deadline.after(30.0)
    )
    assert outcome.incomplete_reason is None
    assert len(outcome.winners[0]) == 10
