"""Concurrent operations on few ids have an order that explains every answer and agrees with real time.

Several threads write, compare and set, delete and read a few ids; each operation is noted with the times of its call
and its answer. Operations on one id are independent of those on others (Herlihy and Wing, 1990: linearizability is
local), so that each id's history is checked by itself: a search for an order (Wing and Gong, 1993), with memory of the
states that led nowhere (Lowe, 2017).
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import vectordb
from vectordb import errors
from vectordb.engine.database import Engine
from vectordb.server.app import Server
from vectordb.server.config import load
from vectordb_client import connect

State = tuple[int, int | None]
"""Version and value of a record; (0, None) where there is none."""
ABSENT: State = (0, None)


@dataclass(frozen=True)
class Done:
    """One operation on one id.

    Attributes:
        kind: ``upsert``, ``insert``, ``compare``, ``delete``, ``get`` or ``search``.
        value: What was to be written, or what a search found (None: nothing).
        expected: The version that a ``compare`` wanted.
        answer: Version written; None where it was refused. Of ``get``: the state. Of ``delete``: rows deleted.
    """

    kind: str
    value: int | None
    expected: int | None
    answer: Any
    called: int
    answered: int

    def after(self, state: State) -> State | None:
        """The state that it leaves, or None where this answer cannot be given in ``state``."""
        version, value = state
        if self.kind == "get":
            return state if self.answer == state else None
        if self.kind == "search":
            return state if self.value == value else None
        if self.kind == "delete":
            return ABSENT if self.answer == (version > 0) else None
        may = {"upsert": True, "insert": version == 0, "compare": version == self.expected}[self.kind]
        if self.answer is None:
            return None if may else state
        return (self.answer, self.value) if may and self.answer > version else None


def is_linearizable(history: list[Done]) -> bool:
    """Whether some order of the operations, none before one that was answered before its call, explains all answers."""
    tried: set[tuple[frozenset[int], State]] = set()

    def explains(left: frozenset[int], state: State) -> bool:
        if not left:
            return True
        if (left, state) in tried:
            return False
        tried.add((left, state))
        first_answer = min(history[i].answered for i in left)
        for i in left:
            if history[i].called <= first_answer:
                following = history[i].after(state)
                if following is not None and explains(left - {i}, following):
                    return True
        return False

    return explains(frozenset(range(len(history))), ABSENT)


def test_the_checker_knows_right_from_wrong() -> None:
    wrote = Done("upsert", 7, None, 1, 0, 10)
    assert is_linearizable([wrote, Done("get", None, None, (1, 7), 5, 6)])
    assert is_linearizable([wrote, Done("get", None, None, ABSENT, 5, 6)])
    assert not is_linearizable([wrote, Done("get", None, None, ABSENT, 11, 12)])
    assert not is_linearizable([wrote, Done("get", None, None, (1, 7), 2, 3), Done("search", None, None, None, 4, 5)])
    won, also = Done("compare", 8, 1, 2, 11, 20), Done("compare", 9, 1, 3, 12, 20)
    assert is_linearizable([wrote, won, Done("compare", 9, 1, None, 12, 20)])
    assert not is_linearizable([wrote, won, also])
    assert not is_linearizable([wrote, Done("delete", None, None, 1, 11, 12), Done("delete", None, None, 1, 13, 14)])
    assert not is_linearizable([wrote, Done("insert", 8, None, 2, 11, 12)])


class Recorder:
    """One thread of clients and what it did, by id."""

    def __init__(self, collection: Any, ids: list[str], seed: int) -> None:
        self.collection, self.ids, self.rng = collection, ids, random.Random(seed)
        self.done: dict[str, list[Done]] = {id_: [] for id_ in ids}
        self.seen: dict[str, int] = dict.fromkeys(ids, 0)
        self.fault: str | None = None

    def run(self, start: threading.Barrier, operations: int) -> None:
        start.wait()
        try:
            for _ in range(operations):
                self._one()
        except Exception as error:
            self.fault = f"{type(error).__name__}: {error}"

    def _one(self) -> None:
        id_, value = self.rng.choice(self.ids), self.rng.randrange(10**6)
        kind = self.rng.choices(["upsert", "insert", "compare", "delete", "get", "search"], [15, 10, 30, 10, 30, 15])[0]
        expected = self.seen[id_] if kind == "compare" else None
        called = time.monotonic_ns()
        if kind == "get":
            records = self.collection.get([id_])
            answer: Any = (records[0].version, records[0].metadata["value"]) if records else ABSENT
            self.seen[id_] = answer[0]
        elif kind == "search":
            where = {"field": "id", "op": "==", "value": id_}
            hits = self.collection.search([0, 0], limit=5, where=where, exact=True)
            answer, value = None, hits[0].metadata["value"] if hits else None
            assert len(hits) < 2
        elif kind == "delete":
            answer = self.collection.delete([id_])
        else:
            answer = self._written(kind, id_, value, expected)
        answered = time.monotonic_ns()
        self.done[id_].append(Done(kind, value, expected, answer, called, answered))

    def _written(self, kind: str, id_: str, value: int, expected: int | None) -> int | None:
        row = [id_], [[1, value]], [{"id": id_, "value": value}]
        try:
            if kind == "insert":
                version = self.collection.insert(*row).version
            else:
                version = self.collection.upsert(*row, if_version=expected).version
        except (errors.AlreadyExists, errors.FailedPrecondition) as refused:
            assert kind == ("insert" if isinstance(refused, errors.AlreadyExists) else "compare")
            return None
        self.seen[id_] = version
        return int(version)


@pytest.fixture
def collections(fast_path: Path) -> Iterator[list[Any]]:
    """The same kind of collection embedded on a folder, in memory, and served."""
    config = load({"data": str(fast_path / "served"), "listen": "127.0.0.1:0"}, None, {})
    server = Server(lambda: Engine(fast_path / "served"), config)
    targets = [vectordb.Database(fast_path / "db"), vectordb.Database(":memory:"), connect(server.start())]
    yield [db.create_collection("c", 2, metric="l2", seal_bytes=1_000, merge_factor=2) for db in targets]
    for db in targets:
        db.close()
    server.stop()


@pytest.mark.rounds(50, 1_000)
def test_histories_are_linearizable(rounds: Any, collections: list[Any]) -> None:
    overlaps = 0
    for round in rounds:
        collection = collections[round.number % len(collections)]
        ids = [f"{round.seed}-{round.number}-{i}" for i in range(2)]
        threads = 5
        recorders = [Recorder(collection, ids, round.rng.randrange(10**9)) for _ in range(threads)]
        start = threading.Barrier(threads)
        running = [threading.Thread(target=r.run, args=(start, 14)) for r in recorders]
        for thread in running:
            thread.start()
        if round.number % 2:
            collection.optimize(wait=False)
        for thread in running:
            thread.join()
        assert [r.fault for r in recorders if r.fault] == []
        for id_ in ids:
            history = sorted((done for r in recorders for done in r.done[id_]), key=lambda done: done.called)
            overlaps += sum(a.answered > b.called for a, b in pairwise(history))
            assert is_linearizable(history), "\n".join(map(str, history))
            versions = [d.answer for d in history if d.kind in ("upsert", "insert", "compare") and d.answer]
            assert len(set(versions)) == len(versions)
    assert overlaps > 5 * rounds.count or rounds.count == 1_000
