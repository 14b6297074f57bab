"""Reading a calibration: which setting it names for a share, a limit and a target."""

from __future__ import annotations

import json

import pytest

from vectordb.index.calibration import AFTER, ALL, WITHIN, Calibration, Curve, Point

LADDER = (Point(10, 1.0, 0.8), Point(20, 1.0, 0.9), Point(40, 1.0, 0.96), Point(80, 1.0, 0.99))
WIDE = (Point(100, 1.0, 0.85), Point(200, 1.0, 0.95), Point(400, 1.0, 0.99))
CALIBRATION = Calibration(
    (
        Curve(ALL, 1.0, 10, LADDER),
        Curve(ALL, 1.0, 100, WIDE),
        Curve(WITHIN, 0.5, 10, LADDER),
        Curve(WITHIN, 0.1, 10, WIDE),
    )
)


@pytest.mark.parametrize(
    ("limit", "target", "width"),
    [(10, 0.9, 20), (10, 0.91, 40), (1, 0.95, 40), (100, 0.95, 200), (55, 0.95, 120), (200, 0.95, 400), (10, 0.5, 10)],
)
def test_the_narrowest_width_that_reaches_the_target(limit: int, target: float, width: int) -> None:
    (point,) = CALIBRATION.reaching(ALL, 1.0, limit, target)
    assert point.width == width
    assert point.recall >= target


@pytest.mark.parametrize(
    ("share", "width"), [(1.0, 40), (0.5, 40), (0.48, 40), (0.4, 200), (0.1, 200), (0.096, 200), (0.05, None)]
)
def test_a_share_is_served_by_the_next_smaller_one(share: float, width: int | None) -> None:
    found = CALIBRATION.reaching(WITHIN, share, 10, 0.95)
    assert [point.width for point in found] == ([] if width is None else [width])


def test_what_was_not_measured_or_not_reached_is_unknown() -> None:
    assert CALIBRATION.reaching(AFTER, 0.5, 10, 0.9) == []
    assert CALIBRATION.reaching(ALL, 1.0, 10, 0.995) == []
    assert CALIBRATION.reaching(ALL, 1.0, 50, 0.995) == []
    assert CALIBRATION.reaching(ALL, 1.0, 500, 0.995) == []


def test_each_oversampling_has_its_own_width() -> None:
    points = (Point(10, 2.0, 0.9), Point(20, 2.0, 0.93), Point(12, 4.0, 0.95), Point(24, 4.0, 0.97))
    calibration = Calibration((Curve(ALL, 1.0, 10, points),))
    assert calibration.reaching(ALL, 1.0, 10, 0.9) == [points[0], points[2]]
    assert calibration.reaching(ALL, 1.0, 10, 0.96) == [points[3]]


def test_without_a_width() -> None:
    calibration = Calibration(
        (Curve(ALL, 1.0, 10, (Point(None, 1.0, 0.97),)), Curve(ALL, 1.0, 100, (Point(None, 1.0, 0.92),)))
    )
    assert calibration.reaching(ALL, 1.0, 10, 0.95) == [Point(None, 1.0, 0.97)]
    assert calibration.reaching(ALL, 1.0, 50, 0.9) == [Point(None, 1.0, 0.92)]
    assert calibration.reaching(ALL, 1.0, 300, 0.9) == [Point(None, 1.0, 0.92)]
    assert calibration.reaching(ALL, 1.0, 50, 0.95) == []


def test_through_json() -> None:
    stored = json.loads(json.dumps(CALIBRATION.as_json()))
    assert Calibration.from_json(stored) == CALIBRATION
    assert Calibration.from_json(None) is None
