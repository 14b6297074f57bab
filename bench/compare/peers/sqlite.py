"""sqlite-vec: a virtual table in SQLite, searched exactly by brute force; synced on every commit.

Through apsw, since many builds of Python's own ``sqlite3`` cannot load extensions.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, ClassVar

import apsw
import numpy as np
import sqlite_vec

from bench.compare.arena import Rows, Where
from bench.compare.peers.base import Ground, Peer, Search, condition


class SqliteVec(Peer):
    """``vec0`` with the filtered fields as metadata columns and the others as auxiliary ones."""

    width = ""
    durable = "yes: synchronous=FULL, WAL"
    synced = True
    build: ClassVar[dict[str, Any]] = {"index": "none, brute force"}

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._local = threading.local()
        self._connections: list[Any] = []
        self._names = [*ground.filterable, *(name for name in ground.columns if name not in ground.filterable)]

    @property
    def _db(self) -> Any:
        """This thread's own connection; others wait for a writer as SQLite has it, for up to a minute."""
        if getattr(self._local, "db", None) is None:
            self._local.db = self._connect()
            self._connections.append(self._local.db)
        return self._local.db

    def _connect(self) -> Any:
        self.ground.folder.mkdir(parents=True, exist_ok=True)
        db = apsw.Connection(str(self.ground.folder / "bench.sqlite"))
        db.set_busy_timeout(60_000)
        db.enable_load_extension(True)
        db.load_extension(sqlite_vec.loadable_path())
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        return db

    def create(self) -> None:
        distance = "l2" if self.ground.metric == "l2" else "cosine"
        kinds = {"int": "INTEGER", "str": "TEXT"}
        columns = [
            f"{'' if name in self.ground.filterable else '+'}{name} {kinds[self.ground.columns[name]]}"
            for name in self._names
        ]
        vector = f"vector float[{self.ground.dim}] distance_metric={distance}"
        columns = ["id INTEGER PRIMARY KEY", vector, *columns]
        self._db.execute(f"CREATE VIRTUAL TABLE bench USING vec0({', '.join(columns)})")

    def reopen(self) -> None:
        self._db.execute("SELECT 1").fetchall()

    def write(self, rows: Rows) -> None:
        holes = ", ".join("?" * (2 + len(self._names)))
        values = [
            (number, vector.tobytes(), *(row[name] for name in self._names))
            for number, vector, row in zip(rows.numbers, rows.vectors, rows.metadata, strict=True)
        ]
        with self._db:
            self._db.executemany(f"INSERT INTO bench(id, vector, {', '.join(self._names)}) VALUES ({holes})", values)

    def finish(self) -> None:
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def filter(self, where: Where, mask: Any) -> Any:
        return condition(where)

    def search(self, search: Search) -> Any:
        more = "" if search.where is None else f" AND {search.where}"
        vector = np.ascontiguousarray(search.vector).tobytes()
        sql = f"SELECT id, distance FROM bench WHERE vector MATCH ? AND k = {self.ground.limit}{more}"
        return self._db.execute(sql, (vector,)).fetchall()

    def rows(self, answer: Any) -> list[int]:
        return [row[0] for row in answer]

    def delete(self, numbers: Sequence[int]) -> None:
        with self._db:
            self._db.executemany("DELETE FROM bench WHERE id = ?", [(number,) for number in numbers])

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
