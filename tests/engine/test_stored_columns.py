"""Where reads find metadata: in the parts where they have it, in storage where not, and it is the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vectordb import Database
from vectordb.engine.care.verify import verify
from vectordb.segments.info import _checksum
from vectordb.storage.base import Family

DIM = 8
ROWS = 400
FILES = ("metadata.msgpack", "metadata.bounds")


def vectors(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


def fill(db: Any) -> Any:
    """Sealed rows, some of them dead or changed since, and a tail with a changed row."""
    sizes = {"seal_bytes": DIM * 4 * 150, "max_segment_bytes": DIM * 4 * ROWS // 2}
    docs = db.create_collection("docs", DIM, index="hnsw", index_bytes=1, **sizes)
    ids, texts = [f"r{i}" for i in range(ROWS)], [f"text {i}" for i in range(ROWS)]
    metadata: list[dict[str, Any]] = [{"n": i, "tags": ["x"] * (i % 4)} if i % 9 else {} for i in range(ROWS)]
    for start in range(0, ROWS, 100):
        rows = slice(start, start + 100)
        docs.upsert(ids[rows], vectors(ROWS)[rows], metadata[rows], texts[rows])
        docs.optimize()
    docs.delete([f"r{i}" for i in range(0, 60, 7)])
    docs.update_metadata([f"r{i}" for i in range(100, 130)], set={"n": -1})
    docs.update_metadata(["r101", "r102"], set={"n": -2, "more": "é" * 50})
    docs.upsert(["t0", "t1", "bare"], [*vectors(2, 1), None], [{"n": 1}, {}, {"n": 3}])
    docs.update_metadata(["t1"], set={"changed": True})
    return docs


@contextmanager
def reads(db: Any) -> Iterator[dict[Family, int]]:
    """Counts what is read from storage, by family."""
    storage = db._backend._storage
    found: dict[Family, int] = dict.fromkeys(Family, 0)
    whole = storage.get_many

    def counting(family: Family, keys: list[bytes]) -> Any:
        found[family] += len(keys)
        return whole(family, keys)

    storage.get_many = counting
    try:
        yield found
    finally:
        del storage.get_many


def check(docs: Any) -> None:
    """Metadata with texts is storage's; alone it is the parts'."""
    stored = {r.id: (r.metadata, r.version) for r in docs.scan(include=("metadata", "text"))}
    assert {r.id: (r.metadata, r.version) for r in docs.scan(include=("metadata",), page_size=37)} == stored
    assert {r.id: (r.metadata, r.version) for r in docs.get(list(stored), include=("metadata",))} == stored
    results = [
        docs.search(vectors(1, 5)[0], limit=10),
        docs.search(vectors(1, 5)[0], limit=ROWS),
        *docs.search_batch(vectors(9, 6), limit=20),
        *docs.search_batch(vectors(3, 7), limit=4, where={"field": "n", "op": "<", "value": 0}),
    ]
    assert sum(map(len, results)) > ROWS
    for result in results:
        assert {h.id: h.metadata for h in result} == {h.id: stored[h.id][0] for h in result}


def test_searches_read_no_payload_for_metadata(tmp_path: Path) -> None:
    with Database(tmp_path / "db", scrub_bytes_per_second=0) as db:
        docs = fill(db)
        stats = docs.stats()
        assert (stats.tail_rows, len(stats.segments)) == (3, 2)
        with reads(db) as of:
            docs.search(vectors(1, 5)[0], limit=10)
            docs.search(vectors(1, 5)[0], limit=ROWS)
            docs.search_batch(vectors(9, 6), limit=20)
            docs.search_text("text", limit=10)
            list(docs.scan(include=("metadata",)))
            list(docs.scan(include=()))
            docs.get(["r1", "t0"], include=())
            assert of[Family.ROWS] == of[Family.VECTORS] == 0
            docs.search(vectors(1, 5)[0], limit=10, include=("vector", "metadata"))
            docs.get(["r1", "t0"], include=("vector",))
            assert (of[Family.ROWS], of[Family.VECTORS]) == (0, 12)
            docs.search(vectors(1, 5)[0], limit=10, include=("text", "metadata"))
            assert (of[Family.ROWS], of[Family.VECTORS]) == (10, 12)
        check(docs)


def test_in_memory_storage_is_as_near() -> None:
    with Database(":memory:") as db:
        docs = fill(db)
        check(docs)
        with reads(db) as of:
            docs.search(vectors(1, 5)[0], limit=10)
            assert of[Family.ROWS] == 10


def test_after_merges_and_restarts(tmp_path: Path) -> None:
    with Database(tmp_path / "db", scrub_bytes_per_second=0) as db:
        check(fill(db))
    with Database(tmp_path / "db", scrub_bytes_per_second=0) as db:
        docs = db["docs"]
        check(docs)
        docs.optimize()
        check(docs)
        docs.update_metadata([f"r{i}" for i in range(150, 160)], set={"n": -3})
        docs.delete(["r200", "r399"])
        check(docs)
    with Database(tmp_path / "db", scrub_bytes_per_second=0) as db:
        check(db["docs"])
        with reads(db) as of:
            db["docs"].search(vectors(1, 5)[0], limit=100)
            assert of[Family.ROWS] == 0
    assert verify(tmp_path / "db").problems == ()


def strip(folder: Path) -> None:
    """Makes segments what they were before they held metadata."""
    for facts in (folder / "segments").glob("*/segment.json"):
        body = json.loads(facts.read_text())["body"]
        for name in FILES:
            del body["files"][name]
            (facts.parent / name).unlink()
        facts.write_text(json.dumps({"checksum": _checksum(body), "body": body}))


def test_segments_without_metadata_are_read_from_storage(tmp_path: Path) -> None:
    folder = tmp_path / "db"
    with Database(folder, scrub_bytes_per_second=0) as db:
        fill(db)
    strip(folder)
    assert verify(folder).problems == ()
    with Database(folder, scrub_bytes_per_second=0) as db:
        docs = db["docs"]
        check(docs)
        with reads(db) as of:
            docs.search(vectors(1, 5)[0], limit=10)
            assert of[Family.ROWS] == 10
        # One of both is worth rewriting, then the other.
        for bare, gone in ((1, ()), (0, range(250, 290))):
            docs.delete([f"r{i}" for i in gone])
            docs.optimize()
            check(docs)
            folders = [path.parent for path in (folder / "segments").glob("*/segment.json")]
            assert [(path / FILES[0]).exists() for path in folders].count(False) == bare
        with reads(db) as of:
            docs.search(vectors(1, 5)[0], limit=10)
            assert of[Family.ROWS] == 0
    assert verify(folder).problems == ()


@pytest.mark.parametrize("gone", FILES)
def test_half_a_column_is_damage(tmp_path: Path, gone: str) -> None:
    """As no release writes it: what names one file and not the other makes no sense."""
    folder = tmp_path / "db"
    with Database(folder, scrub_bytes_per_second=0) as db:
        docs = fill(db)
        before = {h.id: h.metadata for h in docs.search(vectors(1, 5)[0], limit=50, exact=True)}
    facts = next((folder / "segments").glob("*/segment.json"))
    body = json.loads(facts.read_text())["body"]
    del body["files"][gone]
    facts.write_text(json.dumps({"checksum": _checksum(body), "body": body}))
    with Database(folder, scrub_bytes_per_second=0) as db:
        assert {h.id: h.metadata for h in db["docs"].search(vectors(1, 5)[0], limit=50, exact=True)} == before
        assert not facts.exists()
        check(db["docs"])
    assert verify(folder).problems == ()


def test_without_segments_all_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "db"
    with Database(folder, scrub_bytes_per_second=0) as db:
        fill(db)
    for path in (folder / "segments").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with Database(folder, scrub_bytes_per_second=0) as db:
        check(db["docs"])
        with reads(db) as of:
            db["docs"].search(vectors(1, 5)[0], limit=10)
            assert of[Family.ROWS] == 0
