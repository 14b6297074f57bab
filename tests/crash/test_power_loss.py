"""Power loss: what was not synced is gone, or torn, and files that were never synced hold anything.

An image is taken at a random step of a running database, with its writers' model. Storage stands still meanwhile: it is
written under a lock that the image takes. Then everything behind the last sync is taken away and the image is opened.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vectordb
from tests.crash import oracle
from tests.verified import verify_folder
from vectordb import failpoints
from vectordb.engine import opening
from vectordb.engine.care.verify import verify
from vectordb.storage.base import Batch
from vectordb.storage.memory import MemoryStorage
from vectordb.storage.rocks import RocksStorage

PLACES = [
    n
    for n in failpoints.NAMES
    if n.startswith(
        ("storage", "commit", "manifest", "publish", "swap", "seal", "merge", "remove", "acked.torn", "sweep")
    )
    and n != "commit.piece"
]


class Journal:
    """A disk: batches in order, and how many of them it keeps when the power goes. What cannot be kept is lost."""

    def __init__(self, batches: list[Any], synced: int) -> None:
        self.batches, self.synced = batches, synced


class LossyStorage(MemoryStorage):
    """Storage that lives in a :class:`Journal`, found by its folder's path."""

    disks: dict[Path, Journal]
    lock: threading.RLock

    def __init__(self, path: Path, **_: Any) -> None:
        super().__init__()
        path.mkdir(exist_ok=True)
        self._journal = self.disks.setdefault(path, Journal([], 0))
        for batch in self._journal.batches:
            super().write(batch)
        self._journal.synced = len(self._journal.batches)

    def write(self, batch: Batch) -> None:
        with self.lock:
            failpoints.hit("storage.write")
            super().write(batch)
            self._journal.batches.append(batch)
            failpoints.hit("storage.written")

    def sync(self) -> int:
        with self.lock:
            sequence = super().sync()
            failpoints.hit("storage.sync")
            self._journal.synced = len(self._journal.batches)
            failpoints.hit("storage.synced")
            return sequence


class WatchedRocks(RocksStorage):
    """RocksDB that remembers how long each log was when it was last synced."""

    lengths: dict[Path, dict[str, int]]
    lock: threading.RLock

    def write(self, batch: Batch) -> None:
        with self.lock:
            super().write(batch)

    def sync(self) -> int:
        with self.lock:
            before = {log.name: log.stat().st_size for log in self.path.glob("*.log")}
            sequence = super().sync()
            self.lengths[self.path] = before
            return sequence


def _work(
    folder: Path,
    rng: random.Random,
    image_of: tuple[Callable[[], None], threading.RLock],
    place: str,
) -> list[Any] | None:
    """Three writers and an optimizer until the image is taken in the middle of it; the writers as of then."""
    take, lock = image_of
    writers = [oracle.Writer(f"w{i}", random.Random(rng.random()), span=300) for i in range(3)]
    taken: list[Any] = []
    stop = threading.Event()

    def image() -> None:
        with lock:  # no sync, and so no acknowledgement, may come between the two copies
            take()
            taken.extend(writer.copied() for writer in writers)
        stop.set()

    with vectordb.Database(folder) as db:
        collection = db.create_collection("k", **oracle.CONFIG)
        last = 60 if place.partition(".")[0] in ("storage", "commit", "acked") else 2
        with failpoints.armed(place, image, at=rng.randint(1, last)):
            threads = [threading.Thread(target=w.run, args=(collection, stop)) for w in writers]
            for thread in threads:
                thread.start()
            for _ in range(100):
                if stop.wait(0.01):
                    break
                collection.optimize(wait=False)
            stop.set()
            for thread in threads:
                thread.join(60)
    assert [w.fault for w in writers if w.fault] == []
    return taken or None


def _check(image: Path, writers: list[Any], rng: random.Random) -> None:
    with vectordb.Database(image) as db:
        found, problems = oracle.recovered(db["k"])
        for writer in writers:
            problems += writer.settle(found)
        assert problems + oracle.wrong_answers(db["k"], found, rng) == []
        writers[0].step(db["k"])
        db["k"].optimize()
        found, problems = oracle.recovered(db["k"])
        for writer in writers:
            problems += writer.settle(found)
        assert problems + oracle.wrong_answers(db["k"], found, rng) == []


@pytest.mark.rounds(15, 500)
def test_what_was_not_synced_is_gone(rounds: Any, fast_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disks: dict[Path, Journal] = {}
    monkeypatch.setattr(LossyStorage, "disks", disks, raising=False)
    monkeypatch.setattr(LossyStorage, "lock", threading.RLock(), raising=False)
    monkeypatch.setattr(opening, "RocksStorage", LossyStorage)
    for round in rounds:
        rng, folder, image = round.rng, fast_path / f"{round.number}", fast_path / f"{round.number}-image"

        def take(folder: Path = folder, image: Path = image, rng: random.Random = rng) -> None:
            with LossyStorage.lock:
                journal = disks[folder / "rocksdb"]
                kept = rng.randint(journal.synced, len(journal.batches))
                _copy(folder, image)
                disks[image / "rocksdb"] = Journal(journal.batches[:kept], kept)

        writers = None
        while writers is None:  # a place that was not come by
            shutil.rmtree(folder, ignore_errors=True)
            disks.clear()
            writers = _work(folder, rng, (take, LossyStorage.lock), rng.choice(PLACES))
        _tear_unsynced(image, rng)
        _check(image, writers, rng)


@pytest.mark.rounds(15, 500)
def test_a_torn_log(rounds: Any, fast_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: dict[Path, dict[str, int]] = {}
    monkeypatch.setattr(WatchedRocks, "lengths", lengths, raising=False)
    monkeypatch.setattr(WatchedRocks, "lock", threading.RLock(), raising=False)
    monkeypatch.setattr(opening, "RocksStorage", WatchedRocks)
    torn = 0
    for round in rounds:
        rng, folder, image = round.rng, fast_path / f"{round.number}", fast_path / f"{round.number}-image"
        durable: dict[str, int] = {}

        def take(folder: Path = folder, image: Path = image, durable: dict[str, int] = durable) -> None:
            with WatchedRocks.lock:
                _copy(folder, image)
                durable.update(lengths.get(folder / "rocksdb", {}))

        writers = None
        while writers is None:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(image, ignore_errors=True)
            place = rng.choice(["storage.written", "storage.sync", "commit.written", rng.choice(PLACES)])
            writers = _work(folder, rng, (take, WatchedRocks.lock), place)
        for log in (image / "rocksdb").glob("*.log"):
            torn += _tear(log, durable.get(log.name, 0), rng)
        _tear_unsynced(image, rng)
        # Files of segments may be torn, what is stored and acknowledged is all there.
        found = verify(image, searches=0).problems
        assert [
            problem for problem in found if problem.kind in ("storage", "acknowledged", "catalogue", "records")
        ] == []
        _check(image, writers, rng)
        assert verify_folder(image) == []
    assert torn or not rounds.count


def _copy(folder: Path, image: Path) -> None:
    """A copy of a folder in which the optimizer is at work: files may go while it is made."""
    for place, _, names in os.walk(folder):
        target = image / Path(place).relative_to(folder)
        target.mkdir(exist_ok=True)
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                if name != "LOCK":
                    shutil.copyfile(Path(place, name), target / name)


def _tear(log: Path, durable: int, rng: random.Random) -> bool:
    """What lies behind the last sync may be there, cut, zero, or anything; whether there was something."""
    content = bytearray(log.read_bytes())
    if len(content) <= durable:
        return False
    at = rng.randint(durable, len(content))
    how = rng.choice(["cut", "zero", "garbled", "hole"])
    if how == "cut":
        del content[at:]
    elif how == "zero":
        content[at:] = bytes(len(content) - at)
    elif how == "garbled":
        content[at:] = rng.randbytes(len(content) - at)
    else:  # a later page reached the disk, an earlier one did not
        end = rng.randint(at, len(content))
        content[at:end] = bytes(end - at)
    log.write_bytes(content)
    return True


def _tear_unsynced(image: Path, rng: random.Random) -> None:
    """Drafts of segments and stamps are never synced before they count; nor is the ACKED page, of which one slot
    may be torn."""
    for path in (image / "segments").rglob("*"):
        unsynced = path.relative_to(image / "segments").parts[0].startswith("tmp-") or path.suffix == ".stamp"
        if path.is_file() and unsynced and rng.random() < 0.7:
            content = path.read_bytes()
            path.write_bytes(content[: rng.randint(0, len(content))])
    page = image / "ACKED"
    if page.exists() and rng.random() < 0.3:
        content = bytearray(page.read_bytes())
        slot = 64 + (40 + 16 * 250) * rng.randint(0, 1)
        size = rng.randint(1, 40)
        content[slot : slot + size] = bytes(size)
        page.write_bytes(content)
