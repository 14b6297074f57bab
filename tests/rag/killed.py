"""Kills itself at every write of an addition and of a migration, one after the other, and tells what is left.

    python killed.py FOLDER add|migrate STEP      prints one JSON line for an undisturbed run, then one a kill

A child process for each: SIGKILL just before its n-th write call (every STEP-th n), then another child that runs the
same again and dumps the knowledge base. Batches are made small, so that a few documents take many writes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from vectordb.api import Collection, Database
from vectordb_client import connect
from vectordb_client.rag import KnowledgeBase, TokenChunker, ingest, migration

sys.path.insert(0, str(Path(__file__).parent))
from hashing import hashing_embedder

ingest._BATCH_DOCUMENTS, ingest._BATCH_CHUNKS, migration._DOCUMENTS = 3, 4, 3
WRITES = (
    (Collection, ("upsert", "delete", "update_metadata")),
    (Database, ("create_collection", "delete_collection")),
)


class Count:
    """Write calls of this process."""

    writes = 0


def kill_at(count: int) -> None:
    """From now on the ``count``-th write call never begins; 0 for none."""

    def counted(call: Any) -> Any:
        def wrapped(*args: Any, **options: Any) -> Any:
            Count.writes += 1
            if Count.writes == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **options)

        return wrapped

    for owner, names in WRITES:
        for name in names:
            setattr(owner, name, counted(getattr(owner, name)))


def files(folder: Path, version: int) -> None:
    """The documents: version 2 has a longer one, a shorter one, one gone and one new, and a table with other rows."""
    folder.mkdir(exist_ok=True)
    shared = {"c": 50, "same": 60}
    sizes = {1: {"a": 10, "b": 90, "gone": 40} | shared, 2: {"a": 80, "b": 15, "new": 30} | shared}
    for path in folder.iterdir():
        path.unlink()
    for name, size in sizes[version].items():
        (folder / f"{name}.txt").write_text(" ".join(f"{name}{n}" for n in range(size)))
    rows = {1: range(6), 2: (1, 2, 5, 6, 7)}[version]
    (folder / "rows.csv").write_text("id,text\n" + "".join(f"r{n},row number {n}\n" for n in rows))


def base(db: Database, embedder: Any) -> KnowledgeBase:
    return KnowledgeBase(db, "kb", embedder, chunker=TokenChunker(20, 4))


def work(data: Path, texts: Path, what: str) -> None:
    """The call that is killed; it ends well where it is not."""
    with connect(data, durability="async") as db:
        kb = base(db, hashing_embedder())
        if what == "add":
            kb.add(texts, progress=False)
        else:
            kb.migrate(hashing_embedder(32, name="new"), progress=False)


def dump(data: Path, what: str) -> dict[str, Any]:
    """All there is, to compare with what an undisturbed run leaves."""
    with connect(data) as db:
        kb = base(db, hashing_embedder() if what == "add" else hashing_embedder(32, name="new"))
        names = [name for name in db.list_collections() if name != "kb.state"]
        live = "kb" if what == "add" else "kb.g2"
        return {
            "collections": names,
            "chunks": {
                record.id: [record.text, record.vector.tolist(), record.metadata]
                for record in db[live].scan(include=("text", "vector", "metadata"))
            },
            "documents": {e.id: [e.hash, e.chunks, e.pending, kb.document(e.id).text] for e in kb.documents()},
            "found": [[p.chunk_id, p.score] for p in kb.retrieve("c1 c2 c3 row number 5")],
        }


def child(task: Any) -> int:
    """Runs in a process of its own; the exit status, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        try:
            task()
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(root: Path, what: str, step: int) -> None:
    texts, start, results = root / "texts", root / "start", root / "writes"

    def first() -> None:
        files(texts, 1)
        with connect(start, durability="async") as db:
            base(db, hashing_embedder()).add(texts, progress=False)

    def run(count: int) -> None:
        data = root / f"data{count}"
        shutil.copytree(start, data)

        def killed() -> None:
            kill_at(count)
            work(data, texts, what)
            results.write_text(str(Count.writes))

        def again() -> None:
            if count:
                work(data, texts, what)
            print(json.dumps({"count": count, **dump(data, what)}), flush=True)

        assert child(killed) == (-signal.SIGKILL if count else 0)
        assert child(again) == 0
        shutil.rmtree(data)

    assert child(first) == 0
    files(texts, 2 if what == "add" else 1)
    run(0)
    for count in range(1, int(results.read_text()) + 1, step):
        run(count)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
