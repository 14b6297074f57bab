import gc
import weakref
from collections.abc import Callable

import numpy as np

from vectordb.segments.snapshot import Snapshot
from vectordb.segments.tail import Tail


def test_counts_and_places(make_world: Callable) -> None:
    world = make_world(holes=True)
    tail = Tail(6, 0)
    tail.append(world.batch(20))
    tail.freeze()
    tail.append(world.batch(30))
    tail.freeze()
    world.holders = list(tail.sections)
    world.delete(7)
    snapshot = Snapshot(world.version, tail.views(world.version))
    assert (snapshot.rows, snapshot.dead, len(snapshot.parts)) == (43, 7, 3)
    every = np.arange(world.next_offset + 5, dtype=np.uint64)
    held = np.stack([part.rows_at(every) >= 0 for part in snapshot.parts])
    assert held.sum(axis=0).tolist() == [offset in world.rows for offset in every.tolist()]
    for part, mine in zip(snapshot.parts, held, strict=True):
        assert part.ids(part.rows_at(every[mine])) == [world.rows[offset].id for offset in every[mine].tolist()]


def test_an_empty_collection() -> None:
    snapshot = Snapshot(0, Tail(6, 0).views(0))
    assert (snapshot.rows, snapshot.dead) == (0, 0)
    assert [part.rows for part in snapshot.parts] == [0]


def test_it_can_be_watched() -> None:
    snapshot = Snapshot(0, Tail(6, 0).views(0))
    alive = weakref.WeakSet([snapshot])
    assert len(alive) == 1
    del snapshot
    gc.collect()
    assert len(alive) == 0
