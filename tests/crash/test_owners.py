"""Ten processes write to one folder; whoever owns it is killed, again and again, and another takes its place."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import pytest

from tests.verified import verify_folder
from vectordb import Database, errors
from vectordb_client import connect

PROCESSES = 10


def _owner_of(folder: Path) -> int:
    """The process that owns the folder, as the error of one that may not enter says."""
    while True:
        try:
            Database(folder).close()
        except errors.DirectoryLocked as locked:
            if locked.fields.get("pid"):
                return int(locked.fields["pid"])


class _Writers:
    """The processes alive, and what each of all was told."""

    def __init__(self, folder: Path, nursery: Any) -> None:
        self.folder, self._nursery = folder, nursery
        self._names = itertools.count()
        self.alive: dict[int, Any] = {}
        self.heard: dict[str, int] = {}
        self._name_of: dict[int, str] = {}

    def fill_up(self) -> None:
        while len(self.alive) < PROCESSES:
            name = f"p{next(self._names)}"
            child = self._nursery.fork("insert", folder=str(self.folder), name=name)
            self.alive[child.pid], self._name_of[child.pid], self.heard[name] = child, name, -1

    def listen(self) -> int:
        """How many processes had a row acknowledged since."""
        news = 0
        for pid, child in self.alive.items():
            told = child.told("done")
            if told:
                self.heard[self._name_of[pid]] = told[-1]
                news += 1
        return news

    def kill(self, pid: int) -> None:
        child = self.alive[pid]
        child.kill()
        self.listen()
        del self.alive[pid]

    def problems(self) -> list[str]:
        """Holes, rows twice (an insert would have failed), and acknowledged rows that are gone."""
        with connect(self.folder) as db:
            before = dict(self.heard)
            found = [record.id for record in db["docs"].scan(include=())]
        problems = [] if len(found) == len(set(found)) else ["an id is there twice"]
        numbers: dict[str, set[int]] = {name: set() for name in self.heard}
        for id_ in found:
            name, _, n = id_.partition("-")
            numbers[name].add(int(n))
        for name, last in before.items():
            mine = numbers[name]
            if mine != set(range(len(mine))) or len(mine) <= last:
                problems.append(f"{name}: {len(mine)} rows up to {max(mine, default=-1)}, {last} was acknowledged")
        return problems


@pytest.mark.rounds(10, 200)
def test_ten_processes_lose_nothing_while_owners_are_killed(rounds: Any, nursery: Any, fast_path: Path) -> None:
    writers = _Writers(fast_path / "db", nursery)
    for round in rounds:
        writers.fill_up()
        heard, end = set[str](), time.monotonic() + 60
        while len(heard) < 3 and time.monotonic() < end:
            before = dict(writers.heard)
            writers.listen()
            heard |= {name for name, last in writers.heard.items() if last > before[name]}
            time.sleep(0.01)
        assert len(heard) >= 3, f"nobody gets on: {nursery.errors()}"
        writers.kill(_owner_of(writers.folder))
        if round.number % 10 == 9:
            assert writers.problems() == []
    for child in writers.alive.values():
        assert child.code is None, f"a writer ended by itself: {nursery.errors()}"
    for pid in list(writers.alive):
        writers.kill(pid)
    if writers.heard:
        assert writers.problems() == []
        assert verify_folder(writers.folder) == []
        assert sum(last >= 0 for last in writers.heard.values()) >= 3
