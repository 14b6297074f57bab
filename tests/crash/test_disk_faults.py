"""A disk that refuses: errors at the n-th write, sync or file, and disks and files that are really full.

The database turns read-only, says so and why, goes on answering, and opened again it has all that was acknowledged.
"""

from __future__ import annotations

import errno
import resource
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import vectordb
from tests.crash import oracle
from tests.verified import verify_folder
from vectordb import errors, failpoints
from vectordb_client import connect

REFUSALS = (errors.ResourceExhausted, errors.Internal, errors.FailedPrecondition)
IN_STORAGE = ["storage.write", "storage.written", "storage.sync", "acked.replace"]
PLACES = [*IN_STORAGE, "files.write", "publish.synced"]


def _mounted(folder: str) -> bool:
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder], capture_output=True, check=False)
    return done.returncode == 0


def _may_mount() -> bool:
    try:
        with tempfile.TemporaryDirectory() as folder:
            may = _mounted(folder)
            if may:
                subprocess.run(["umount", folder], check=True)
            return may
    except OSError:
        return False


@pytest.mark.rounds(20, 200)
def test_an_error_at_any_write(rounds: Any, fast_path: Path) -> None:
    for round in rounds:
        rng, folder = round.rng, fast_path / str(round.number)
        place, number = PLACES[round.number % len(PLACES)], rng.choice([errno.ENOSPC, errno.EIO])
        writer = oracle.Writer("w0", rng, span=600)
        with vectordb.Database(folder) as db:
            db.create_collection("k", **oracle.CONFIG)
        at = rng.randint(1, 60) if place.startswith("storage") else 1 if place == "acked.replace" else rng.randint(1, 8)
        with vectordb.Database(folder) as db:
            collection = db["k"]
            fired: list[str] = []

            def action(number: int = number, fired: list[str] = fired, place: str = place) -> None:
                fired.append(place)
                failpoints.fail(number)()

            with failpoints.armed(place, action, at=at, times=rng.choice([1, None])):
                refused = _refused(collection, writer, rng, fired)
                if refused is not None:
                    assert isinstance(refused, errors.ResourceExhausted) == (number == errno.ENOSPC), refused
                if place in IN_STORAGE:
                    assert db.info().read_only_reason
                    with pytest.raises(errors.FailedPrecondition, match="refuses writes"):
                        collection.upsert(["w0-1"], [[0.0] * oracle.DIM])
                    with pytest.raises(errors.FailedPrecondition, match="read-only"):
                        db.create_collection("another", 3)
                assert _reads(collection, writer, rng) == []
            if place not in IN_STORAGE:  # only a segment could not be written: once it can, the engine goes on
                assert db.info().read_only_reason is None
                try:
                    collection.optimize()
                except errors.VectorDBError:
                    # A job that began while the disk refused may end only now, and whoever waits is told.
                    collection.optimize()
                writer.step(collection)
        with vectordb.Database(folder) as db:
            found, problems = oracle.recovered(db["k"])
            assert problems + writer.settle(found) == []
            for _ in range(5):
                writer.step(db["k"])
            db["k"].optimize()
            assert _reads(db["k"], writer, rng) == []
        assert verify_folder(folder) == []


def _refused(collection: Any, writer: Any, rng: Any, fired: list[str]) -> errors.VectorDBError | None:
    """Works until the disk refuses something: what a caller, or whoever asks for the stats, is told. None where the
    optimizer was refused a segment and has made it since."""
    for turn in range(500):
        before = writer.calls
        try:
            writer.step(collection)
            if turn % 20 == 19:
                collection.optimize(wait=rng.random() < 0.5)
            told = collection.stats().optimizer.error
            if told is not None:
                return errors.ResourceExhausted(told) if "no space" in told.lower() else errors.Internal(told)
            if fired and fired[0] not in IN_STORAGE:
                collection.optimize()
                return None
        except errors.FailedPrecondition as error:  # what was refused, the optimizer did
            assert writer.calls == before
            writer.in_flight = None
            return errors.ResourceExhausted(str(error)) if "no space" in str(error) else errors.Internal(str(error))
        except (errors.ResourceExhausted, errors.Internal) as error:
            if writer.in_flight is not None:
                assert "outcome is unknown" in error.message
            return error
    raise AssertionError("the place was not reached")


def _reads(collection: Any, writer: Any, rng: Any) -> list[str]:
    """Answers of a database that takes no writes: exactly what was acknowledged."""
    found, problems = oracle.recovered(collection)
    if found != writer.known:
        problems.append("a read-only database shows something else than what was acknowledged")
    return problems + oracle.wrong_answers(collection, found, rng)


@pytest.fixture
def filled(request: pytest.FixtureRequest, fast_path: Path) -> Iterator[SimpleNamespace]:
    """A folder on a disk that can be filled, or below a limit on the size of files, and how it gets room again."""
    if request.param == "limit":
        yield SimpleNamespace(
            folder=fast_path / "db",
            file_bytes=200_000,
            fill=lambda: None,
            room=lambda pid: resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2),
        )
        return
    disk = fast_path / "disk"
    disk.mkdir()
    assert _mounted(str(disk))
    filler = disk / "filler"

    def fill() -> None:
        with filler.open("wb", buffering=0) as file:
            try:
                while file.write(b"x" * 4096) == 4096:
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC

    try:
        yield SimpleNamespace(folder=disk / "db", file_bytes=None, fill=fill, room=lambda pid: filler.unlink())
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.rounds(2, 100)
@pytest.mark.parametrize("filled", ["limit", *(["disk"] if _may_mount() else [])], indirect=True)
def test_a_full_disk(filled: SimpleNamespace, rounds: Any, nursery: Any) -> None:
    writers = None
    for round in rounds:
        writers = writers or [oracle.Writer(f"w{i}", round.rng, span=400) for i in range(4)]
        if not filled.folder.exists():
            with vectordb.Database(filled.folder) as db:
                db.create_collection("k", **oracle.CONFIG)
        server, address = nursery.serve(filled.folder, file_bytes=filled.file_bytes)
        assert address is not None, nursery.errors()
        with connect(address, retries=0, timeout=60) as db:
            collection = db["k"]
            collection.count()
            refusals: list[BaseException] = []

            def write(writer: Any, collection: Any = collection, refusals: Any = refusals) -> None:
                try:
                    while True:
                        writer.step(collection)
                except BaseException as raised:
                    refusals.append(raised)

            threads = [threading.Thread(target=write, args=(writer,)) for writer in writers]
            for thread in threads:
                thread.start()
            filled.fill()
            for thread in threads:
                thread.join(60)
            assert [e for e in refusals if not isinstance(e, REFUSALS)] == [], nursery.errors()
            assert len(refusals) == 4
            for refusal in refusals:  # the write that failed may have been the optimizer's
                assert "outcome is unknown" in str(refusal) or "refuses writes" in str(refusal), refusal
            assert db.info().read_only_reason
            found, problems = oracle.recovered(collection)
            assert problems + oracle.wrong_answers(collection, found, round.rng) == []
            for writer in writers:  # those that were told nothing definite have not happened for readers
                mine = {i: s for i, s in found.items() if i.startswith(writer.name + "-")}
                assert mine == writer.known
            filled.room(server.pid)
        server.signal(15)
        assert server.wait(30) == 0
        with vectordb.Database(filled.folder) as again:
            found, problems = oracle.recovered(again["k"])
            for writer in writers:
                problems += writer.settle(found)
                writer.step(again["k"])
            assert problems == []
        assert verify_folder(filled.folder) == []
