"""Erasure, shown by searching every byte of the folder: each needle is found before, none afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.verified import verify_folder
from vectordb import Database, Erasure, errors
from vectordb.engine.database import Engine
from vectordb.server.app import Server
from vectordb.server.config import load
from vectordb.storage import rocks
from vectordb.storage.base import Family
from vectordb_client import connect, connect_async

DIM = 16
ROWS = 600
DEAD = [0, 299, ROWS - 1]
Needles = dict[str, list[bytes]]


@pytest.fixture(autouse=True)
def uncompressed(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a search for bytes finds whatever a table holds."""
    none = rocks.rocksdict.DBCompressionType.none
    monkeypatch.setattr(rocks.rocksdict, "DBCompressionType", SimpleNamespace(none=none, lz4=none, zstd=none))


@pytest.fixture(params=["embedded", "served"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SimpleNamespace]:
    """A database, and its engine, in ``folder``."""
    folder = tmp_path / "db"
    engine = Engine(folder, scrub_bytes_per_second=0)
    if request.param == "embedded":
        with contextlib.closing(engine):
            yield SimpleNamespace(db=_face(engine), engine=engine, folder=folder)
        return
    server = Server(lambda: engine, load({"data": str(folder), "listen": "127.0.0.1:0"}, None, {}))
    with connect(server.start()) as db:
        yield SimpleNamespace(db=db, engine=engine, folder=folder)
    server.stop()


def _face(engine: Engine) -> Any:
    from vectordb.api import Database as Face

    return Face(engine)


def found(folder: Path, needles: Needles) -> dict[str, list[str]]:
    """The files that hold each needle."""
    hits: dict[str, list[str]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        for name, values in needles.items():
            if any(value in content for value in values):
                hits.setdefault(name, []).append(path.relative_to(folder).as_posix())
    return hits


def filled(opened: SimpleNamespace, **config: Any) -> tuple[Any, Needles]:
    """A collection whose rows 0, 299 and 599 carry the needles, in tables, segments and the log."""
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((ROWS, DIM)).astype(np.float32)
    ids = [f"m-{i:05d}" for i in range(ROWS)]
    metadata: list[dict[str, Any]] = [{"n": i, "lang": ["de", "en"][i % 2]} for i in range(ROWS)]
    texts = [f"common word{i}" for i in range(ROWS)]
    for i in DEAD:
        ids[i] = f"{'a' if i == 0 else 'z'}-needle-id-{i}"
        metadata[i] = {"secret": f"needle-value-{i}"}
        texts[i] = f"needletext{i} common"
    metadata[8] = {"note": "needle-sealed"}
    docs = opened.db.create_collection("docs", DIM, **{"metric": "l2", **config})
    docs.upsert(ids, vectors, metadata, texts)
    docs.optimize()
    docs.update_metadata([ids[7]], set={"note": "needle-replaced"})
    docs.update_metadata([ids[7], ids[8]], set={"note": "harmless"})
    needles: Needles = {
        "id": [b"needle-id"],
        "metadata": [b"needle-value"],
        "text": [b"needletext"],
        "replaced": [b"needle-replaced"],
        "sealed": [b"needle-sealed"],
        "vector": [vectors[i].tobytes() for i in DEAD],
    }
    return docs, needles


def settle(opened: SimpleNamespace) -> None:
    """Everything into tables, compacted: the hardest place to get it out of."""
    storage = opened.engine._storage
    storage.flush()
    for family in Family:
        storage.compact(family, b"", b"\xff" * 8)


KINDS = {
    "flat": {"index": "flat"},
    "hnsw": {"index": "hnsw"},
    "ivf": {"index": {"kind": "ivf", "nlist": 8}, "quantization": "sq8", "seal_bytes": DIM * 4 * 200},
    "pq": {"index": "hnsw", "quantization": "pq"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_file_holds_a_byte_of_what_was_erased(opened: SimpleNamespace, kind: str) -> None:
    docs, needles = filled(opened, **KINDS[kind])
    before = found(opened.folder, needles)
    assert before.keys() == needles.keys()
    assert any(path.endswith(".log") for path in before["text"])
    settle(opened)
    before = found(opened.folder, needles)
    assert {"id", "metadata", "text", "vector"} <= before.keys()
    for name in ("id", "metadata", "text", "vector"):
        assert any(path.endswith(".sst") for path in before[name]), name
        assert any(path.startswith("segments/") for path in before[name]), name
    for name in ("metadata", "sealed"):
        assert any(path.endswith("/metadata.msgpack") for path in before[name]), name

    dead = [r.id for r in docs.scan() if "needle-id" in r.id]
    assert len(dead) == len(DEAD)
    receipt = docs.delete(dead, erase=True)
    assert found(opened.folder, needles) == {}
    assert isinstance(receipt, Erasure)
    assert (receipt, receipt.count, receipt.ids) == (len(DEAD), len(DEAD), tuple(dead))
    assert receipt.version == docs.stats().version
    assert receipt.rows >= len(DEAD)
    assert receipt.remaining == ()
    assert receipt.started <= receipt.finished
    assert any(name.startswith("rocksdb/") for name in receipt.files)
    assert not any((opened.folder / name).exists() for name in receipt.files)
    assert receipt.as_json()["count"] == len(DEAD)
    assert docs.count() == ROWS - len(DEAD)
    assert opened.db.verify().problems == ()
    assert len(docs.search(np.ones(DIM), limit=5)) == 5


def test_what_was_deleted_before_goes_too_and_the_key_is_never_kept(opened: SimpleNamespace) -> None:
    docs, needles = filled(opened)
    keyed = {"ids": ["keyed"], "vectors": np.ones((1, DIM)), "idempotency_key": "needle-key"}
    first = docs.upsert(**keyed)
    needles["key"] = [b"needle-key"]
    assert "key" not in found(opened.folder, needles)
    docs.delete(where={"field": "secret", "op": "exists"})
    docs.upsert(["tail"], np.ones((1, DIM)), [{"secret": "needle-value-tail"}], ["needletext tail"])
    docs.delete(["tail"])
    assert "text" in found(opened.folder, needles)
    receipt = docs.optimize(erase=True)
    assert found(opened.folder, needles) == {}
    assert (receipt.count, receipt.ids) == (0, ())
    assert docs.upsert(**keyed) == first


def test_the_undo_records_of_a_large_call_go_too(opened: SimpleNamespace) -> None:
    docs = opened.db.create_collection("docs", 2)
    ids = [f"needle-id-{i}" for i in range(2_500)]
    docs.upsert(ids, np.ones((len(ids), 2)))
    assert docs.delete(ids, erase=True) == len(ids)
    assert found(opened.folder, {"id": [b"needle-id"]}) == {}


def test_other_collections_are_left_alone(opened: SimpleNamespace) -> None:
    other = opened.db.create_collection("other", 2)
    other.upsert(["kept-needle"], [[1, 0]])
    docs, needles = filled(opened)
    settle(opened)
    docs.delete(where={"field": "secret", "op": "exists"}, erase=True)
    assert found(opened.folder, needles) == {}
    assert found(opened.folder, {"kept": [b"kept-needle"]}).keys() == {"kept"}
    assert other.get(["kept-needle"])[0].id == "kept-needle"


def test_an_open_scan_is_named_and_waited_for(tmp_path: Path) -> None:
    with Database(tmp_path / "db", scrub_bytes_per_second=0) as db:
        opened = SimpleNamespace(db=db, folder=tmp_path / "db")
        docs, needles = filled(opened)
        scan = docs.scan(page_size=10)
        next(scan)
        version = docs.stats().version
        with pytest.raises(errors.DeadlineExceeded, match=f"deleted but not erased.* reads its version {version}"):
            docs.delete(where={"field": "secret", "op": "exists"}, erase=True, timeout=1.0)
        assert docs.count() == ROWS - len(DEAD)
        assert found(opened.folder, needles)
        receipts: list[Any] = []
        thread = threading.Thread(target=lambda: receipts.append(docs.optimize(erase=True)))
        thread.start()
        assert sum(1 for _ in scan) == ROWS - 1
        thread.join(60)
        assert len(receipts) == 1
        assert found(opened.folder, needles) == {}


def test_indexes_forget_what_they_learned_from_erased_rows(opened: SimpleNamespace) -> None:
    docs, _ = filled(opened, **KINDS["ivf"])
    before = set(docs.delete(["m-00001"], erase=True).segments)
    names = {s["name"] for s in docs.stats().segments}
    again = set(docs.optimize(erase=True).segments)
    # Nothing is dead any more, yet all indexes are made anew: one may have learned from a row of another's segment.
    assert {ref.partition("/")[0] for ref in again} == names
    assert not again & before


def test_writers_and_searches_go_on_meanwhile(opened: SimpleNamespace) -> None:
    docs, needles = filled(opened, index="hnsw")
    stop = threading.Event()
    faults: list[BaseException] = []

    def work(call: Callable[[int], object]) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                call(number)
            except BaseException as error:
                faults.append(error)
                return

    threads = [
        threading.Thread(target=work, args=(call,))
        for call in (
            lambda n: docs.upsert([f"w-{n % 40}"], np.full((1, DIM), n % 7 + 1), [{"n": n}]),
            lambda n: docs.search(np.ones(DIM), limit=5),
        )
    ]
    for thread in threads:
        thread.start()
    try:
        receipt = docs.delete(where={"field": "secret", "op": "exists"}, erase=True)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert faults == []
    assert receipt == len(DEAD)
    assert found(opened.folder, needles) == {}


def test_erasing_needs_to_be_waited_for(opened: SimpleNamespace) -> None:
    docs = opened.db.create_collection("docs", 2)
    with pytest.raises(errors.InvalidArgument, match="wait"):
        docs.optimize(wait=False, erase=True)
    assert type(docs.delete(["nobody"])) is int


def test_in_memory_and_awaited(tmp_path: Path) -> None:
    async def main() -> None:
        for target in (":memory:", tmp_path / "db"):
            async with await connect_async(target) as db:
                docs = await db.create_collection("docs", 2)
                await docs.upsert(["a", "b"], [[1, 0], [0, 1]])
                receipt = await docs.delete(["a"], erase=True)
                assert (receipt, receipt.rows) == (1, 1)
                assert (await docs.optimize(erase=True)).count == 0
                assert await docs.optimize() is None
                assert (await db.verify()).ok
                assert (await db.repair()).ok
                assert await docs.count() == 1

    asyncio.run(main())
    assert verify_folder(tmp_path / "db") == []
