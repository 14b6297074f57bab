from __future__ import annotations

from types import SimpleNamespace

import pytest

from vectordb.errors import DeadlineExceeded
from vectordb.server.service import time_left


@pytest.mark.parametrize(
    ("remaining", "timeout", "reserve", "expected"),
    [
        (None, None, 0.05, None),
        (None, 3.0, 0.05, 3.0),
        (1e9, 3.0, 0.05, 3.0),
        (0.2, None, 0.05, 0.18),
        (20.0, None, 0.05, 19.95),
        (20.0, None, 0.5, 19.5),
        (2.0, None, 0.5, 1.8),
        (20.0, 5.0, 0.5, 5.0),
        (20.0, 19.9, 0.5, 19.5),
        (20.0, -1.0, 0.5, -1.0),
    ],
)
def test_a_little_of_the_deadline_is_left_for_the_answer(remaining, timeout, reserve, expected):
    context = SimpleNamespace(time_remaining=lambda: remaining)
    assert time_left(context, timeout, reserve) == pytest.approx(expected)


def test_a_deadline_that_has_passed_is_told():
    with pytest.raises(DeadlineExceeded, match="before the server began"):
        time_left(SimpleNamespace(time_remaining=lambda: 0.0), None)
