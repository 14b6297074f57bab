"""The budget of memory: what fits, what is waited for, what is refused."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import vectordb
from vectordb.engine.capacity import memory
from vectordb.engine.capacity.allocator import private_bytes
from vectordb.engine.capacity.memory import AUTO_SHARE, MemoryBudget, available_bytes, build_bytes, settled_limit
from vectordb.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted
from vectordb.types import QuantizationSpec

MIB = 1 << 20


class Store:
    """Something that takes memory."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, limit: int | None = 100 * MIB, own_process: bool = False
    ) -> None:
        monkeypatch.setattr(memory, "_AGE", -1.0)
        self.tail = 0
        self.waited = 0
        self.budget = MemoryBudget(limit, lambda: {"tail": self.tail}, own_process=own_process)

    def seal(self, done: Callable[[], bool], timeout: float | None) -> None:
        self.waited += 1
        self.tail //= 2
        done()


def test_a_write_that_fits_is_counted_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(monkeypatch)
    with store.budget.write(10 * MIB, store.seal, None):
        assert store.budget.by_kind() == {"tail": 0, "builds": 0, "writes": 30 * MIB}
        with store.budget.build("an index", 60 * MIB):
            assert store.budget.left == 10 * MIB
    assert store.budget.left == 100 * MIB
    assert store.waited == 0


@pytest.mark.parametrize("kinds", [("write", "write"), ("build", "build"), ("write", "build")])
def test_of_two_that_fit_only_one_beside_the_other_one_is_refused(
    monkeypatch: pytest.MonkeyPatch, kinds: tuple[str, str]
) -> None:
    store = Store(monkeypatch, own_process=True)
    looked, claimed, ended = threading.Barrier(2), threading.Event(), threading.Event()
    seen: set[int] = set()
    most: list[int] = []

    def private() -> int:
        if threading.get_ident() not in seen:
            seen.add(threading.get_ident())
            looked.wait(10)  # both have seen that nothing is claimed
        return 0

    def take(kind: str) -> bool:
        budget = store.budget
        around = budget.write(20 * MIB, store.seal, None) if kind == "write" else budget.build("an index", 60 * MIB)
        try:
            with around:
                most.append(sum(budget._claims.values()))
                claimed.set()
                assert ended.wait(10)
        except ResourceExhausted:
            assert claimed.wait(10)
            ended.set()
            return False
        return True

    monkeypatch.setattr(memory, "private_bytes", private)
    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(take, kinds)) == [False, True]
    assert most == [60 * MIB]
    assert store.budget.by_kind() == {"tail": 0, "builds": 0, "writes": 0}


def test_what_was_claimed_while_it_was_waited_for_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(monkeypatch)
    store.tail = 90 * MIB

    def broken(done: Callable[[], bool], timeout: float | None) -> None:
        store.tail = 0
        assert done()
        assert done()
        assert store.budget.by_kind()["writes"] == 30 * MIB, "asked twice, claimed once"
        raise InterruptedError

    with pytest.raises(InterruptedError), store.budget.write(10 * MIB, broken, None):
        pass
    assert store.budget.by_kind() == {"tail": 0, "builds": 0, "writes": 0}


def test_a_write_waits_for_tails_to_be_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(monkeypatch)
    store.tail = 90 * MIB
    with store.budget.write(10 * MIB, store.seal, None):
        assert store.waited == 1


def test_a_write_for_which_there_is_no_room_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(monkeypatch)
    store.tail = 190 * MIB
    with (
        pytest.raises(ResourceExhausted, match=r"memory_limit = 100 MiB are taken: write less") as caught,
        store.budget.write(10 * MIB, store.seal, None),
    ):
        pass
    assert (caught.value.resource, caught.value.limit, caught.value.needed) == ("memory", 100 * MIB, 30 * MIB)
    assert caught.value.retry_after > 0
    assert store.budget.by_kind()["writes"] == 0


def test_the_wait_for_memory_is_of_the_writes_time(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(monkeypatch)
    store.tail = 90 * MIB

    def late(done: Callable[[], bool], timeout: float | None) -> None:
        assert timeout is not None
        time.sleep(timeout)
        store.tail = 0

    with (
        pytest.raises(DeadlineExceeded, match="nothing was written") as caught,
        store.budget.write(10 * MIB, late, 0.05),
    ):
        raise AssertionError
    assert caught.value.timeout == 0.05
    assert store.budget.by_kind()["writes"] == 0


def test_a_build_that_does_not_fit_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(monkeypatch)
    store.tail = 50 * MIB
    with pytest.raises(ResourceExhausted, match="the index of 9 vectors needs 60 MiB"):  # noqa: SIM117
        with store.budget.build("the index of 9 vectors", 60 * MIB):
            pass


def test_without_a_limit_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(monkeypatch, limit=None)
    store.tail = 1 << 50
    with store.budget.write(1 << 50, store.seal, None), store.budget.build("all", 1 << 50):
        assert store.budget.left is None
    assert store.budget.most_segment_bytes(8, None) is None


def test_in_a_process_of_its_own_all_of_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert private_bytes() > MIB
    store = Store(monkeypatch, own_process=True)
    monkeypatch.setattr(memory, "private_bytes", lambda: 95 * MIB)
    given_back: list[int] = []
    monkeypatch.setattr(memory, "give_back", lambda: given_back.append(1))
    assert store.budget.used() == 95 * MIB
    assert store.budget.left == 5 * MIB
    assert len(given_back) == 1


def test_what_a_write_leaves_behind_is_added_and_not_counted_anew() -> None:
    counted: list[int] = []

    def count() -> dict[str, int]:
        counted.append(1)
        return {"tail": 10 * MIB}

    budget = MemoryBudget(100 * MIB, count, own_process=False)
    assert budget.used() == 10 * MIB
    budget._at = time.monotonic() + 3600
    with budget.write(5 * MIB, lambda done, timeout: None, None):
        assert budget.used() == 25 * MIB
    assert budget.used() == 20 * MIB
    assert len(counted) == 1
    with budget.build("an index", MIB):
        pass
    assert budget.used() == 10 * MIB
    assert len(counted) == 2


def test_after_a_build_memory_is_given_back_where_there_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    given_back: list[int] = []
    monkeypatch.setattr(memory, "give_back", lambda: given_back.append(1))
    for limit, times in ((None, 0), (100 * MIB, 1)):
        store = Store(monkeypatch, limit=limit)
        with pytest.raises(ValueError, match="failed"), store.budget.build("an index", MIB):
            raise ValueError("it failed")
        assert len(given_back) == times


_HOLES = """
import ctypes, sys
from vectordb.engine.capacity.allocator import bound_holes, private_bytes
bound_holes(int(sys.argv[1]))
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def block(size):
    found = libc.malloc(size)
    ctypes.memset(found, 1, size)
    return found
libc.free(block(16 << 20))  # from here on glibc would put blocks of up to 16 MiB into its arena
large, wedge = [], []
for _ in range(8):
    large.append(block(8 << 20))
    wedge.append(block(64 << 10))  # keeps the arena from shrinking
before = private_bytes()
for found in large:
    libc.free(found)
print(before - private_bytes())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_large_blocks_leave_no_holes_under_a_limit() -> None:
    def returned(limit: int, **more: str) -> int:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")} | more
        done = subprocess.run(
            [sys.executable, "-c", _HOLES, str(limit)], env=environment, capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert returned(64 * MIB) > 60 * MIB
    assert returned(64 << 30) < 16 * MIB
    assert returned(64 * MIB, MALLOC_ARENA_MAX="2") < 16 * MIB


_KEPT = """
import ctypes, resource, sys
from vectordb.engine.capacity.allocator import bound_holes
bound_holes(int(sys.argv[1]))
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def batch():
    blocks = [libc.malloc(2 << 20) for _ in range(4)]
    for found in blocks:
        ctypes.memset(found, 1, 2 << 20)
        libc.free(found)
batch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    batch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_memory_of_a_batch_is_kept_for_the_next_one_under_a_large_limit() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", _KEPT, str(64 << 30)], env=environment, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 100, "page faults of twenty batches of 8 MiB"


def test_giving_memory_back_harms_nobody() -> None:
    memory.give_back()


@pytest.mark.parametrize("given", ["much", 1000, -1, True, "10%"])
def test_what_is_no_limit(given: object) -> None:
    with pytest.raises(InvalidArgument, match="memory_limit"):
        settled_limit(given)  # type: ignore[arg-type]


def test_limits() -> None:
    assert settled_limit(None) is None
    assert settled_limit("4 GiB") == 4 << 30
    assert settled_limit("auto") == int(AUTO_SHARE * available_bytes())


def test_the_container_bounds_the_machine(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) > 100 * MIB
    (tmp_path / "memory.max").write_text("104857600\n")
    assert available_bytes(tmp_path) == 100 * MIB
    (tmp_path / "memory.max").write_text("max\n")
    assert available_bytes(tmp_path) > 100 * MIB


def test_compressed_forms_need_less_and_so_may_be_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, half, byte = (
        build_bytes(1000, 384, spec) for spec in (None, QuantizationSpec("fp16"), QuantizationSpec("sq8"))
    )
    assert plain > half > byte
    store = Store(monkeypatch)
    most = store.budget.most_segment_bytes(384, None)
    assert most is not None
    assert build_bytes(most // (4 * 384), 384, None) <= 34 * MIB
    assert (store.budget.most_segment_bytes(384, QuantizationSpec("sq8")) or 0) > most


def test_the_share_of_a_collection_that_was_deleted_goes_to_the_others() -> None:
    with vectordb.Database(":memory:", memory_limit="256 MiB") as db:
        lives = db._backend._lives
        db.create_collection("kept", 4).count()
        alone = lives["kept"].seal_most, lives["kept"].answers_most
        for n in range(9):
            db.create_collection(f"c{n}", 4).count()
        assert lives["kept"].answers_most == alone[1] // 10
        for n in range(9):
            db.delete_collection(f"c{n}")
        assert (lives["kept"].seal_most, lives["kept"].answers_most) == alone


def test_memory_is_counted_while_a_reindex_adds_what_it_has_built(monkeypatch: pytest.MonkeyPatch) -> None:
    shadows: dict[str, Any] = {"a": "segment", "b": "segment"}
    live: Any = SimpleNamespace(tail=SimpleNamespace(memory_bytes=lambda: 1), segments=(), shadows=shadows)

    def count(segment: object, *, in_memory: bool) -> int:
        shadows[f"new-{len(shadows)}"] = segment
        return 10

    monkeypatch.setattr(memory, "unmapped_index_bytes", count)
    assert memory.collection_bytes([live], in_memory=False) == {"tail": 1, "segments": 20}
