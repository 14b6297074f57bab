"""Handles on engines of this process: sharing, closing, forks."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from tests.client.forks import in_child
from vectordb import errors
from vectordb_client import Database, connect
from vectordb_client.transport.local import EngineRegistry, LocalBackend

# Python 3.12 warns of forks beside threads, which is what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


@pytest.fixture
def engines() -> list[Any]:
    """Those that the registry opened."""
    return []


@pytest.fixture
def registry(fake_engine: Any, engines: list[Any]) -> EngineRegistry:
    def opener(folder: str, options: Any) -> Any:
        if folder != ":memory:":
            Path(folder).mkdir(exist_ok=True)
            (Path(folder) / "LOCK").touch()
        engines.append(fake_engine(folder))
        return engines[-1]

    return EngineRegistry(opener, lambda: {"durability": "sync"})


def test_one_folder_one_engine(registry: EngineRegistry, engines: list[Any], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "data")
    first = LocalBackend(registry, str(tmp_path / "data"), {})
    (tmp_path / "x").mkdir()
    second = LocalBackend(registry, str(tmp_path / "x" / ".." / "data"), {})
    third = LocalBackend(registry, str(tmp_path / "link"), {})
    assert len(engines) == 1
    other = LocalBackend(registry, str(tmp_path / "other"), {})
    assert len(engines) == 2
    Database(first).create_collection("docs", 2)
    assert third.list_collections() == ["docs"]
    first.close()
    first.close()
    with pytest.raises(errors.Closed, match="connect again"):
        first.list_collections()
    assert second.list_collections() == ["docs"]
    second.close()
    assert engines[0].closed == 0
    third.close()
    assert engines[0].closed == 1
    again = LocalBackend(registry, str(tmp_path / "data"), {})
    assert len(engines) == 3
    again.close()
    other.close()
    assert [e.closed for e in engines] == [1, 1, 1]


def test_memory_is_never_shared(registry: EngineRegistry, engines: list[Any]) -> None:
    a, b = LocalBackend(registry, ":memory:", {}), LocalBackend(registry, ":memory:", {})
    Database(a).create_collection("docs", 2)
    assert b.list_collections() == []
    a.close()
    assert [e.closed for e in engines] == [1, 0]
    b.close()


def test_other_options_on_an_open_folder_are_refused(registry: EngineRegistry, tmp_path: Path) -> None:
    first = LocalBackend(registry, str(tmp_path), {"durability": "async"})
    LocalBackend(registry, str(tmp_path), {"durability": "async"}).close()
    LocalBackend(registry, str(tmp_path), {}).close()
    with pytest.raises(errors.FailedPrecondition, match="already open in this process with durability='async'"):
        LocalBackend(registry, str(tmp_path), {"durability": "sync"})
    first.close()
    second = LocalBackend(registry, str(tmp_path), {})
    LocalBackend(registry, str(tmp_path), {"durability": "sync"}).close()
    with pytest.raises(errors.FailedPrecondition, match="with durability='sync'"):
        LocalBackend(registry, str(tmp_path), {"durability": "async"})
    second.close()


def test_threads_that_connect_at_once_share(registry: EngineRegistry, engines: list[Any], tmp_path: Path) -> None:
    handles: list[LocalBackend] = []
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        handles.append(LocalBackend(registry, str(tmp_path), {}))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(engines) == 1
    for handle in handles:
        handle.close()
    assert engines[0].closed == 1


class Slow:
    """An engine that is opened and closed only when a test lets it, beside others."""

    def __init__(self, fake_engine: Any, slow: str) -> None:
        self.log: list[str] = []
        self.reached, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.registry = EngineRegistry(self._opened)
        self._engine, self._slow = fake_engine, slow

    def _opened(self, folder: str, _: Any) -> Any:
        self._step("open", folder)
        engine = self._engine(folder)
        (Path(folder) / "LOCK").touch()
        engine.close = lambda: self._step("close", folder)
        return engine

    def _step(self, what: str, folder: str) -> None:
        if Path(folder).name == self._slow:
            self.reached.release()
            assert self.go.acquire(timeout=30)
        self.log.append(f"{what} {Path(folder).name}")

    def connected(self, folder: Path) -> Future[LocalBackend]:
        """A handle, asked for in a thread of its own."""
        future: Future[LocalBackend] = Future()
        threading.Thread(target=lambda: future.set_result(LocalBackend(self.registry, str(folder), {}))).start()
        return future


def test_a_folder_that_takes_long_to_open_or_close_keeps_nobody_from_another(fake_engine: Any, tmp_path: Path) -> None:
    slow, other = tmp_path / "slow", tmp_path / "other"
    slow.mkdir()
    other.mkdir()
    (tmp_path / "link").symlink_to(slow)
    house = Slow(fake_engine, "slow")
    first = house.connected(slow)
    assert house.reached.acquire(timeout=30)
    second = house.connected(tmp_path / "link")
    house.connected(other).result(30).close()
    assert (house.log, first.done(), second.done()) == (["open other", "close other"], False, False)
    house.go.release()
    handles = [first.result(30), second.result(30)]
    handles[0].close()
    closing = threading.Thread(target=handles[1].close)
    closing.start()
    assert house.reached.acquire(timeout=30)
    again = house.connected(slow)
    house.connected(other).result(30).close()
    assert not again.done()
    for _ in range(3):
        house.go.release()
    again.result(30).close()
    closing.join(30)
    # One engine for both handles, and the next one only after it was closed.
    assert [done for done in house.log if "slow" in done] == ["open slow", "close slow"] * 2
    assert (house.registry._open, house.registry._busy) == ({}, set())


def test_a_failed_open_leaves_nothing_behind(fake_engine: Any, tmp_path: Path) -> None:
    failures = [errors.DirectoryLocked("taken", pid=1)]

    def opener(folder: str, options: Any) -> Any:
        if failures:
            raise failures.pop()
        return fake_engine(folder)

    registry = EngineRegistry(opener)
    with pytest.raises(errors.DirectoryLocked):
        LocalBackend(registry, str(tmp_path), {})
    LocalBackend(registry, str(tmp_path), {}).close()


def test_after_a_fork_the_handle_is_closed_and_connecting_opens_anew(
    registry: EngineRegistry, engines: list[Any], tmp_path: Path
) -> None:
    handle = LocalBackend(registry, str(tmp_path), {})
    Database(handle).create_collection("docs", 2)

    def child() -> None:
        with pytest.raises(errors.Closed, match="before a fork"):
            handle.list_collections()
        handle.close()
        assert engines[0].closed == 0, "the parent's engine was closed in the child"
        own = LocalBackend(registry, str(tmp_path), {})
        assert len(engines) == 2, "the child shares the parent's engine"
        assert own.list_collections() == []
        own.close()
        assert engines[1].closed == 1

    # Held by "another thread" while forking: the child must not wait for it.
    with registry._changed:
        assert in_child(child) == 0
    assert handle.list_collections() == ["docs"]
    handle.close()


def test_after_a_fork_a_servers_handle_is_closed(server: Any) -> None:
    with connect(server.address) as db:
        c = db.create_collection("docs", 2)
        c.upsert(["a", "b", "c"])
        scan = c.scan(page_size=1)
        next(scan)

        def child() -> None:
            bulk = lambda: c.bulk_upsert([{"id": "x"}], progress=False)  # noqa: E731
            for call in (db.list_collections, c.count, bulk, lambda: list(scan)):
                with pytest.raises(errors.Closed, match="before a fork"):
                    call()
            db.close()

        assert in_child(child) == 0
        assert [r.id for r in scan] == ["b", "c"]
        assert c.count() == 3


@pytest.mark.parametrize("options", [{"api_key": "k"}, {"tls": True}])
@pytest.mark.parametrize("target", ["./localhost:http", ":memory:"])
def test_options_of_servers_are_refused_for_folders(target: str, options: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidArgument, match="is for servers"):
        connect(target, **options)
    assert not Path(target).exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"shared": True}, "no option 'shared'; it is called share"),
        ({"limits": {}}, "no option 'limits'"),
        ({"colour": 1}, "known for folders are share, durability, cache_bytes, accept_loss, scrub_bytes_per_second, "),
        ({"colour": 1}, "memory_limit, own_process, min_free_disk, max_dim, max_limit"),
        ({"cache_bytes": "x"}, "cache_bytes is a whole number"),
        ({"cache_bytes": -1}, "cache_bytes is a number of bytes from 0"),
        ({"accept_loss": "no"}, "accept_loss is True or False"),
        ({"share": "no"}, "share is True or False"),
    ],
)
@pytest.mark.parametrize("target", [":memory:", "folder"])
def test_options_that_mean_nothing_are_refused(tmp_path: Path, target: str, options: dict[str, Any], told: str) -> None:
    place = target if target == ":memory:" else tmp_path / target
    with pytest.raises(errors.InvalidArgument, match=told):
        connect(place, **options)
    assert not (tmp_path / target).exists()


def test_caps_and_demands_are_options_of_connect(tmp_path: Path) -> None:
    with connect(tmp_path, max_dim=3, memory_limit="1 GiB", cache_bytes=1 << 20) as db:
        assert db.info().memory_limit == 1 << 30
        with pytest.raises(errors.InvalidArgument, match="max_dim"):
            db.create_collection("docs", 4)
