"""Sections of the tail, mapped segments and segments in memory answer alike, at every version, whatever came later."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest

from vectordb.segments.build import seal
from vectordb.segments.columns import SealOptions
from vectordb.segments.store import SegmentStore
from vectordb.segments.tail import Tail, TailSection

KINDS = [
    {"missing_vectors": False},
    {"missing_vectors": True},
    {"missing_vectors": True, "holes": True},
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("traits", KINDS)
def test_tail_views_at_every_version(make_world: Callable, traits: dict, seed: int) -> None:
    world = make_world(seed, **traits)
    section = TailSection(6, 0, None)
    world.holders = [section]
    taken = []
    for _ in range(12):
        section.append(world.batch(int(world.rng.integers(1, 60))))
        taken.append((section.view(world.version), sorted(world.rows)))
        world.churn(int(world.rng.integers(0, 4)))
        taken.append((section.view(world.version), sorted(world.rows)))
    for view, offsets in taken:
        world.check(view, exactly=offsets)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("traits", KINDS)
def test_segment_views_at_every_version(
    make_world: Callable, options: SealOptions, place: SegmentStore | None, traits: dict, seed: int
) -> None:
    world = make_world(seed, **traits)
    section = TailSection(6, 0, None)
    world.holders = [section]
    section.append(world.batch(150))
    world.churn(8)
    sealed_at = world.version
    segment = seal([section.view(sealed_at)], place, options)
    held = world.alive(sealed_at)
    taken = [segment.view(sealed_at)]
    world.holders = [section, segment]
    for _ in range(12):
        world.churn(1)
        taken.append(segment.view(world.version))
    for view in taken:
        world.check(view, exactly=held)
    # Also when asked for afterwards.
    for version in range(sealed_at, world.version + 1):
        world.check(segment.view(version), exactly=held)


def test_a_view_without_changes_makes_nothing(make_world: Callable, options: SealOptions) -> None:
    world = make_world()
    section = TailSection(6, 0, None)
    section.append(world.batch(50))
    segment = seal([section.view(1)], None, options)
    for view in (section.view(1), segment.view(1)):
        assert view.dead == 0
        assert not view.replacements
        assert len(view.dead_rows()) == 0
    assert segment.changes.tombstones.nbytes == 0


def test_a_filter_is_evaluated_once_a_segment(make_world: Callable, options: SealOptions) -> None:
    from vectordb.filter import col

    world = make_world()
    section = TailSection(6, 0, None)
    section.append(world.batch(50))
    segment = seal([section.view(1)], None, options)
    first = segment.view(1).matching(col("n") > 3)
    assert segment.view(5).matching(col("n") > 3) is first


@pytest.mark.parametrize("place_name", ["tail", "segment"])
def test_views_hold_still_while_rows_change(make_world: Callable, options: SealOptions, place_name: str) -> None:
    world = make_world(5)
    section = TailSection(6, 0, None)
    section.append(world.batch(400))
    holder = section if place_name == "tail" else seal([section.view(1)], None, options)
    world.holders = [holder]
    world.churn(5)
    view = holder.view(world.version)
    every = np.arange(view.rows)
    expected = (view.alive(every).tolist(), view.payload_versions(every).tolist(), view.ids(every))
    failures: list[object] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            if (view.alive(every).tolist(), view.payload_versions(every).tolist(), view.ids(every)) != expected:
                failures.append("columns")
            if len(view.dead_rows()) != view.dead:
                failures.append("dead rows")
            world.check(view)

    def guarded() -> None:
        try:
            read()
        except BaseException as err:
            failures.append(err)

    readers = [threading.Thread(target=guarded) for _ in range(2)]
    for reader in readers:
        reader.start()
    for _ in range(150):
        if place_name == "tail":
            section.append(world.batch(20))
        world.churn(2)
        holder.view(world.version).dead_rows()
    stop.set()
    for reader in readers:
        reader.join()
    assert not failures


def test_bad_batches_append_nothing(make_world: Callable) -> None:
    world = make_world()
    tail = Tail(6, 100)
    with pytest.raises(ValueError, match="offsets must ascend from 100"):
        tail.append(world.batch(5))
    other = Tail(7, 0)
    with pytest.raises(ValueError, match="dim 6, the tail 7"):
        other.append(world.batch(5))
    assert (tail.rows, other.rows) == (0, 0)
    world.check(tail.views(0)[0], exactly=[])
