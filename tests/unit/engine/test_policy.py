"""What the optimizer does next: a table, and that it always comes to rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectordb.engine.policy import LEAST_REPLACEMENTS, REWRITE_DEAD_ASKED, Facts, Index, Job, Merge, is_wasted, next_job
from vectordb.segments.build import MAX_DEAD
from vectordb.types import Tuning

MB = 1 << 20
TUNING = Tuning()
REPLACED = 2 * LEAST_REPLACEMENTS


def _facts(
    megabytes: float, dead: float = 0.0, overlaid: float = 0.0, wants_index: bool = False, held: bool = False
) -> Facts:
    rows = max(1, int(megabytes * 1000))
    return Facts(int(megabytes * MB), rows, int(dead * rows), int(overlaid * rows), wants_index, held)


@pytest.mark.parametrize(
    ("segments", "asked", "job"),
    [
        ([], False, None),
        ([_facts(16)], False, None),
        ([_facts(16)] * 3, False, None),
        ([_facts(16)] * 4, False, Merge(0, 4)),
        ([_facts(64), *[_facts(16)] * 4], False, Merge(1, 5)),
        ([_facts(64), _facts(16), _facts(64), _facts(64)], False, None),
        ([_facts(16, dead=0.1)], False, None),
        ([_facts(16, dead=0.25)], False, Merge(0, 1)),
        ([_facts(16), _facts(16, overlaid=0.3)], False, Merge(1, 2)),
        ([_facts(64)._replace(replacements=REPLACED)], False, None),
        ([_facts(64)._replace(replacements=3 * REPLACED)], False, Merge(0, 1)),
        ([_facts(0.01)._replace(replacements=LEAST_REPLACEMENTS - 1)], False, None),
        ([_facts(0.01)._replace(replacements=LEAST_REPLACEMENTS)], False, Merge(0, 1)),
        ([_facts(16, wants_index=True), _facts(40, wants_index=True)], False, Index(1)),
        ([_facts(16, wants_index=True)] * 4, False, Merge(0, 4)),
        ([_facts(64), _facts(1)], True, Merge(0, 2)),
        ([_facts(16)] * 3 + [_facts(16, held=True)] + [_facts(16)] * 3, False, None),
        ([_facts(16)] * 3 + [_facts(16, held=True)] + [_facts(16)] * 4, False, Merge(4, 8)),
        ([_facts(16, dead=0.5, held=True)], False, None),
        ([_facts(16, dead=0.5, held=True)], True, None),
        ([_facts(16), _facts(64, held=True), _facts(1), _facts(1)], True, Merge(2, 4)),
        ([_facts(16, dead=0.02)], True, Merge(0, 1)),
        ([_facts(16, dead=0.001)], True, Merge(0, 1)),
        ([_facts(6 * 1024), _facts(6 * 1024)], True, None),
        ([_facts(16, wants_index=True)], True, Index(0)),
    ],
)
def test_table(segments: list[Facts], asked: bool, job: object) -> None:
    if segments == [_facts(16, dead=0.001)]:
        job = None if segments[0].dead < REWRITE_DEAD_ASKED * segments[0].rows else job
    assert next_job(segments, TUNING, asked=asked) == job


@pytest.mark.parametrize(
    ("job", "asked", "extends", "wasted"),
    [
        (Index(0), Merge(0, 3), True, True),
        (Index(0), Merge(0, 2), True, False),  # 16 of 32: the merge extends it
        (Index(0), Merge(0, 2), False, True),
        (Index(1), Merge(0, 2), True, True),
        (Index(3), Merge(0, 3), True, False),  # not among them
        (Merge(0, 2), Merge(0, 3), True, False),
        (Merge(1, 3), Merge(0, 3), True, True),
        (Merge(0, 3), Merge(0, 3), False, False),  # the same
        (Merge(0, 1), Merge(0, 1), False, False),
        (Merge(2, 4), Merge(0, 3), True, False),
        (Index(0), Index(0), False, False),
        (Index(0), None, False, False),
    ],
)
def test_what_a_merge_that_is_waited_for_would_throw_away(
    job: Job, asked: Job | None, extends: bool, wasted: bool
) -> None:
    assert is_wasted(job, asked, [_facts(16)] * 4, extends=extends) is wasted


@given(
    segments=st.lists(
        st.builds(_facts, st.floats(0.01, 9000), st.floats(0, 1), st.floats(0, 1), st.booleans()), max_size=30
    ),
    asked=st.booleans(),
    extends=st.booleans(),
)
def test_it_comes_to_rest(segments: list[Facts], asked: bool, extends: bool) -> None:
    """Jobs are played through as ``jobs.py`` does them; there is always a last one."""
    for _ in range(200):
        job = next_job(segments, TUNING, asked=asked)
        if job is None:
            return
        if isinstance(job, Index):
            segments = [s._replace(wants_index=False) if i == job.at else s for i, s in enumerate(segments)]
            continue
        chosen = segments[job.start : job.stop]
        limit = max(1.0, (REWRITE_DEAD_ASKED if asked else MAX_DEAD) * chosen[0].rows)
        kept = chosen[0].dead if extends and chosen[0].dead < limit else 0
        alive = sum(s.rows - s.dead for s in chosen)
        size = int(sum(s.bytes * (s.rows - s.dead) / s.rows for s in chosen))
        merged = [Facts(size, alive + kept, kept, 0, not extends)] if alive + kept else []
        segments = [*segments[: job.start], *merged, *segments[job.stop :]]
    raise AssertionError("it never came to rest")
