"""A program that has imported everything and forks a child for each task: a process in milliseconds, to be killed.

Tasks come as lines of JSON on standard input: ``{"ticket": 1, "task": "serve", ...}``. What happens is told in lines of
JSON on standard output: first ``{"ticket": 1, "pid": 123}``, then what else the child says, as ``{"ticket": 1, "line":
...}``, and its end: ``{"ticket": 1, "ended": -9}`` (a negative number is the signal that killed it). Tickets tell
children apart, for the kernel gives the number of a process again once it is gone.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import resource
import select
import signal
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import vectordb
import vectordb.cli.serve
import vectordb.engine.care.backup
import vectordb.engine.care.repair
import vectordb.engine.database
import vectordb.server.app
import vectordb.server.sharing
import vectordb_client
import vectordb_client.transport.folder
import vectordb_client.transport.grpc
from vectordb import errors, failpoints
from vectordb.index.registry import get_kind
from vectordb.metric import Metric, distances, scores
from vectordb.storage import rocks

for _kind in ("flat", "hnsw"):
    get_kind(_kind)


_ticket = 0
"""Of the task that this process, a child, is at."""


def say(**told: Any) -> None:
    """One line to whoever gave the task, whole: shorter than a pipe's buffer."""
    os.write(1, (json.dumps({"ticket": _ticket, **told}) + "\n").encode())


class _Lines:
    """Standard output of a child: each line is said."""

    def write(self, text: str) -> int:
        if text.strip():
            say(line=text.strip())
        return len(text)

    def flush(self) -> None:
        """Nothing waits."""


def serve(folder: str) -> None:
    """``vectordb serve``."""
    vectordb.cli.serve.command(data=folder, listen="127.0.0.1:0", backup_to="*", log_level="error")


def restore(destination: str, folder: str) -> None:
    """``vectordb restore``."""
    vectordb.engine.care.backup.restore(destination, Path(folder))


def repair(folder: str) -> None:
    """``vectordb repair --yes``."""
    say(rebuilt=vectordb.engine.care.repair.repair_folder(Path(folder), accept_loss=True).rebuilt)


def erase(folder: str, ids: list[str]) -> None:
    """Deletes records of collection ``docs`` and erases them, and says the receipt. Tables are not compressed, so that
    a search for bytes finds what they hold."""
    none = rocks.rocksdict.DBCompressionType.none
    rocks.rocksdict.DBCompressionType = SimpleNamespace(none=none, lz4=none, zstd=none)
    with vectordb.Database(folder, scrub_bytes_per_second=0) as db:
        receipt = db["docs"].delete(ids, erase=True) if ids else db["docs"].optimize(erase=True)
        say(receipt=int(receipt))


def insert(folder: str, name: str) -> None:
    """Inserts rows of its own in a shared folder, and says each that was acknowledged."""
    db = vectordb_client.connect(folder, timeout=60)
    docs = db.create_collection("docs", 2, metric="l2", exist_ok=True)
    for n in range(1_000_000):
        docs.insert([f"{name}-{n}"], [[1, n]])
        say(done=n)


def examine(folder: str, expected: str) -> None:
    """Opens a damaged folder and says ``right``, ``told`` (a typed error or reported loss) or what is wrong.

    ``expected``: a pickled dict of id to (vector, metadata, text).
    """
    records: dict[str, tuple[Any, Any, Any]] = pickle.loads(Path(expected).read_bytes())
    try:
        with vectordb.Database(folder) as db:
            say(outcome=_compared(db.collection("c"), records))
    except errors.VectorDBError as error:
        say(outcome="told", error=f"{type(error).__name__}: {error}"[:1000])
    except BaseException as error:
        say(outcome="untyped", error=f"{type(error).__name__}: {error}; {traceback.format_exc()[-1500:]}")


def _compared(collection: Any, records: dict[str, tuple[Any, Any, Any]]) -> str:
    found = {r.id: (r.vector, r.metadata, r.text) for r in collection.scan(include=("vector", "metadata", "text"))}
    if found.keys() != records.keys() or collection.count() != len(records):
        return f"{len(found)} records of {len(records)}"
    for id_, (vector, metadata, text) in records.items():
        if found[id_][1:] != (metadata, text) or not np.array_equal(found[id_][0], vector):
            return f"another record {id_}"
    # Without texts it is read from segments.
    if any(r.metadata != records[r.id][1] for r in collection.scan(include=("metadata",))):
        return "other metadata in segments"
    ids = sorted(records)
    matrix = np.stack([records[i][0] for i in ids])
    for query in matrix[:: max(1, len(ids) // 2)]:
        for bound in (None, 3):
            far = distances(scores(query, matrix, Metric.L2), Metric.L2).tolist()
            order = sorted((d, i) for d, i in zip(far, ids, strict=True) if bound is None or records[i][1]["n"] < bound)
            where = None if bound is None else {"field": "n", "op": "<", "value": bound}
            hits = [(h.score, h.id) for h in collection.search(query, limit=10, where=where, exact=True)]
            if hits != order[:10]:
                return f"a wrong exact answer (bound {bound}): {hits[:3]} instead of {order[:3]}"
            collection.search(query, limit=10, where=where)
    words = sorted(i for i in ids if records[i][2] and "even" in records[i][2].split())
    if sorted(h.id for h in collection.search_text("even", limit=len(ids))) != words:
        return "a wrong answer of words"
    return "right"


_TASKS = {f.__name__: f for f in (serve, restore, repair, erase, insert, examine)}


def _born(task: dict[str, Any]) -> None:
    """The child's life."""
    global _ticket
    _ticket = task["ticket"]
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        sys.stdout = _Lines()  # type: ignore[assignment]
        say(pid=os.getpid())
        random.seed()
        failpoints.arm_from(task["failpoints"])
        if task["file_bytes"] is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (task["file_bytes"], resource.RLIM_INFINITY))
        _TASKS[task["task"]](**task["arguments"])
        code = 0
    except errors.VectorDBError as error:
        say(error=f"{type(error).__name__}: {error}"[:2000])
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def main() -> None:
    """Until standard input ends; children go with it."""
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    tickets: dict[int, int] = {}  # of the living, by their process numbers
    waiting = b""
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            for pid in list(tickets):
                gone, status = os.waitpid(pid, os.WNOHANG)
                if gone:
                    say(ticket=tickets.pop(pid), ended=os.waitstatus_to_exitcode(status))
        if 0 in ready:
            data = os.read(0, 65536)
            if not data:
                break
            waiting += data
            *lines, waiting = waiting.split(b"\n")
            for line in lines:
                task = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    _born(task)
                tickets[pid] = task["ticket"]
    for pid in tickets:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
