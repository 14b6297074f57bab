"""One folder, many processes: guests go through the owner's door, and one of them takes over when it goes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.verified import verify_folder
from vectordb import Database, errors
from vectordb.engine.locking import DirectoryLock
from vectordb.requests import CreateRequest, OptimizeRequest
from vectordb.types import CollectionConfig
from vectordb_client import connect, connect_async
from vectordb_client.transport import calls
from vectordb_client.transport import folder as folders
from vectordb_client.transport.calls import Call
from vectordb_client.transport.folder import FolderBackend
from vectordb_client.transport.local import LocalBackend

Started = Callable[[str], Any]


class Process:
    """Another Python process that runs some lines, printing what it has to say."""

    def __init__(self, code: str) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-c", textwrap.dedent(code)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(20)

    def end(self) -> str:
        out, _ = self._process.communicate(timeout=60)
        return str(out)

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._process.kill()
        self._process.wait(20)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


@pytest.fixture
def start() -> Iterator[Started]:
    processes: list[Process] = []

    def begin(code: str) -> Process:
        processes.append(Process(code))
        return processes[-1]

    yield begin
    for process in processes:
        process.close()


def owner(folder: Path) -> str:
    """A process that owns the folder until it is told to go on."""
    return f"""
        import sys
        from vectordb_client import connect
        db = connect({str(folder)!r})
        docs = db.create_collection("docs", 2, metric="l2", exist_ok=True)
        docs.upsert(["first"], [[1, 2]], [{{"n": 1}}], ["text"])
        print("ready")
        sys.stdin.readline()
        db.close()
        print("closed")
    """


def test_a_guest_reads_and_writes_as_the_owner_does(tmp_path: Path, start: Started) -> None:
    folder = tmp_path / "db"
    other = start(owner(folder))
    assert other.line() == "ready"
    with connect(folder) as db:
        assert isinstance(db._backend, FolderBackend)
        docs = db["docs"]
        docs.upsert(["second"], [[3, 4]])
        assert [hit.id for hit in docs.search([3, 4], limit=2)] == ["second", "first"]
        assert [record.id for record in docs.scan()] == ["first", "second"]
        assert docs.get(["first"])[0].text == "text"
        assert docs.update_metadata(where={"field": "n", "op": "==", "value": 1}, set={"n": 2}) == 1
        assert (docs.delete(["second"]), docs.count(), docs.stats().rows) == (1, 1, 1)
        with pytest.raises(errors.DimensionMismatch):
            docs.upsert(["x"], [[1]])
        with pytest.raises(errors.AlreadyExists):
            db.create_collection("docs", 2)
        assert db.info().path == str(folder)
        assert db.backup(tmp_path / "backups").collections["docs"] > 0
        db.create_collection("more", 3)
        db.delete_collection("more")
    with pytest.raises(errors.Closed):
        docs.count()


def test_a_guest_takes_over_from_an_owner_that_was_killed(tmp_path: Path, start: Started) -> None:
    folder = tmp_path / "db"
    other = start(owner(folder))
    assert other.line() == "ready"
    with connect(folder) as db:
        docs = db["docs"]
        docs.upsert(["second"], [[3, 4]])
        other.kill()
        assert docs.count() == 2
        docs.upsert(["third"], [[5, 6]])
        assert isinstance(db._backend._inner, LocalBackend)  # type: ignore[attr-defined]
        # Whoever comes now is the new owner's guest.
        guest = start(f"""
            from vectordb_client import connect
            with connect({str(folder)!r}) as db:
                print(type(db._backend).__name__, db["docs"].count())
        """)
        assert guest.line() == "FolderBackend 3"
        assert guest.end() == ""
    assert verify_folder(folder) == []


def test_a_guest_takes_over_from_an_owner_that_closed(tmp_path: Path, start: Started) -> None:
    folder = tmp_path / "db"
    other = start(owner(folder))
    assert other.line() == "ready"
    with connect(folder) as db:
        docs = db["docs"]
        failures: list[Exception] = []
        written: list[str] = []
        stop = threading.Event()

        def write() -> None:
            while not stop.is_set():
                try:
                    docs.upsert([f"w{len(written)}"], [[0, 1]])
                    written.append(f"w{len(written)}")
                except Exception as error:
                    failures.append(error)
                    return

        writer = threading.Thread(target=write)
        writer.start()
        time.sleep(0.3)
        other.go_on()
        assert other.line() == "closed"
        time.sleep(0.5)
        stop.set()
        writer.join()
        assert failures == []
        assert docs.count() == 1 + len(written)


EMPTY = CollectionConfig("docs", 2)
LOST: dict[str, tuple[Callable[[Any], Any], Call[Any], bool]] = {
    "create": (
        lambda b: b.create_collection(CreateRequest(EMPTY)),
        calls.create_collection(CreateRequest(EMPTY)),
        False,
    ),
    "create, exist_ok": (
        lambda b: b.create_collection(CreateRequest(EMPTY, exist_ok=True)),
        calls.create_collection(CreateRequest(EMPTY, exist_ok=True)),
        True,
    ),
    "delete": (lambda b: b.delete_collection("docs"), calls.delete_collection("docs", None), False),
    "cancel": (lambda b: b.cancel_reindex("docs"), calls.cancel_reindex("docs", None), False),
    "repair": (lambda b: b.repair(False), calls.repair(False), False),
    "repair, dry": (lambda b: b.repair(True), calls.repair(True), True),
    "optimize": (
        lambda b: b.optimize("docs", OptimizeRequest()),
        calls.optimize("docs", OptimizeRequest(), None),
        True,
    ),
    "stats": (lambda b: b.stats("docs"), calls.stats("docs", None), True),
}


@pytest.mark.parametrize("operation", LOST)
def test_what_no_server_is_asked_twice_no_owner_is_either(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner goes during a call, and nobody knows whether it was carried out."""
    asked: list[str] = []

    class Owner:
        def __init__(self, name: str) -> None:
            self._name = name

        def close(self) -> None:
            """There is nothing to close."""

        def __getattr__(self, _: str) -> Any:
            def answer(*__: Any) -> None:
                asked.append(self._name)
                if self._name == "first":
                    raise errors.Unavailable("the connection was lost")

            return answer

    monkeypatch.setattr(folders, "_opened", lambda *_: Owner("second"))
    call, served, repeated = LOST[operation]
    with contextlib.nullcontext() if repeated else pytest.raises(errors.Unavailable, match="was lost"):
        call(FolderBackend("folder", {}, 5.0, Owner("first")))  # type: ignore[arg-type]
    assert asked == (["first", "second"] if repeated else ["first"])
    assert served.idempotent is repeated


def test_without_sharing_the_folder_stays_locked(tmp_path: Path, start: Started) -> None:
    folder = tmp_path / "db"
    other = start(owner(folder))
    assert other.line() == "ready"
    with pytest.raises(errors.DirectoryLocked, match="in use"):
        connect(folder, share=False)
    with pytest.raises(errors.DirectoryLocked, match="in use"):
        Database(folder)
    with pytest.raises(errors.FailedPrecondition, match="durability"):
        connect(folder, durability="async")


@pytest.mark.parametrize("opened", ["connect(folder, share=False)", "Database(folder)"])
def test_an_owner_without_a_door_lets_nobody_in(tmp_path: Path, start: Started, opened: str) -> None:
    folder = tmp_path / "db"
    other = start(f"""
        import sys
        from vectordb import Database
        from vectordb_client import connect
        folder = {str(folder)!r}
        db = {opened}
        print("ready")
        sys.stdin.readline()
    """)
    assert other.line() == "ready"
    with pytest.raises(errors.DirectoryLocked, match="in use"):
        connect(folder)


def test_only_this_user_can_enter(tmp_path: Path) -> None:
    with connect(tmp_path / "db"):
        door = tmp_path / "db" / "door"
        assert stat.S_IMODE(door.stat().st_mode) == 0o700
        assert stat.S_ISSOCK((door / "knock").stat().st_mode)
    assert not door.exists()


def test_a_path_too_long_for_a_socket(tmp_path: Path, start: Started) -> None:
    folder = tmp_path / ("x" * 120) / "db"
    other = start(owner(folder))
    assert other.line() == "ready"
    with connect(folder) as db:
        assert db["docs"].count() == 1


def test_a_server_has_a_door_too(tmp_path: Path) -> None:
    from vectordb.cli.process import ServerProcess

    with ServerProcess(tmp_path / "db") as server, connect(server.address) as served, connect(tmp_path / "db") as db:
        served.create_collection("docs", 2).upsert(["a"], [[1, 0]])
        assert isinstance(db._backend, FolderBackend)
        assert db["docs"].count() == 1


def test_asynchronously(tmp_path: Path, start: Started) -> None:
    folder = tmp_path / "db"
    other = start(owner(folder))
    assert other.line() == "ready"

    async def use() -> int:
        async with await connect_async(folder) as db:
            docs = await db["docs"]
            await docs.upsert(["second"], [[3, 4]])
            other.kill()
            return await docs.count()

    assert asyncio.run(use()) == 2


def test_a_scan_that_began_ends_with_its_owner(tmp_path: Path, start: Started) -> None:
    folder = tmp_path / "db"
    other = start(owner(folder))
    assert other.line() == "ready"
    with connect(folder) as db:
        docs = db["docs"]
        docs.upsert([f"r{i}" for i in range(50)], [[0, i] for i in range(50)])
        scan = docs.scan(page_size=10)
        next(scan)
        other.kill()
        with pytest.raises((errors.Unavailable, errors.FailedPrecondition)):
            list(scan)
        assert len(list(docs.scan(page_size=10))) == 51


def test_an_owner_serves_others_when_its_main_thread_has_ended(tmp_path: Path, start: Started) -> None:
    # Pools take no work from then on, though the program goes on in another thread for as long as it likes.
    folder = tmp_path / "db"
    other = start(f"""
        import concurrent.futures.thread as pools
        import sys, threading, time
        from vectordb_client import connect
        db = connect({str(folder)!r})
        docs = db.create_collection("docs", 2, metric="l2")
        docs.upsert([str(n) for n in range(200)], [[n, 1] for n in range(200)])

        def stay():
            while not pools._shutdown:
                time.sleep(0.01)
            print(sum(map(len, docs.search_batch([[n, 1] for n in range(200)], limit=1))))
            sys.stdin.readline()
            db.close()
            print("closed")

        threading.Thread(target=stay).start()
    """)
    assert other.line() == "200"
    with connect(folder, timeout=10) as db:
        docs = db["docs"]
        assert isinstance(db._backend, FolderBackend)
        assert docs.bulk_upsert([{"id": "more", "vector": [0, 0]}], progress=False).count == 1
        assert docs.search([0, 0], limit=1).ids == ["more"]
        assert len(list(docs.scan(page_size=50))) == docs.count() == 201
        other.go_on()
        assert other.end().split() == ["closed"]
        assert docs.count() == 201


def test_a_lock_without_a_name_is_waited_for_from_when_it_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    def opened(folder: str, options: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries == 1:
            time.sleep(0.4)  # the first attempt imports the engine
        if tries < 3:
            raise errors.DirectoryLocked("nobody's", path=folder, pid=None)
        return "opened"

    monkeypatch.setattr(folders, "open_local", opened)
    monkeypatch.setattr(folders, "_NAMELESS_SECONDS", 0.3)
    assert folders._opened(str(tmp_path), {}, time.monotonic() + 30, None) == "opened"


def test_a_lock_always_names_its_owner(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path, shared=True)
    lock.announce(address="127.0.0.1:50051", door="x" * 100)
    ended = threading.Event()

    def read() -> int:
        nameless = 0
        while not ended.is_set():
            try:
                json.loads((tmp_path / "LOCK").read_text())
            except ValueError:
                nameless += 1
        return nameless

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        for length in range(2_000):
            lock.announce(door="x" * (1 + length % 100))
        ended.set()
        assert reading.result() < 10  # hundreds where the text is cut before it is written
    assert json.loads((tmp_path / "LOCK").read_text())["door"] == "x" * 100
    lock.release()
    assert (tmp_path / "LOCK").read_text() == ""
