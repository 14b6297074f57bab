"""What ``vectordb verify`` finds, of closed folders and of open databases."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.damage import flip
from vectordb import Database, errors
from vectordb.encoding import encode_metadata
from vectordb.engine.care.verify import verify
from vectordb.engine.database import Engine
from vectordb.storage import codec, keys
from vectordb.storage.base import Family
from vectordb.storage.rocks import RocksStorage

DIM = 8
ROWS = 1_200


def vectors(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


def fill(db: Any, **config: Any) -> Any:
    docs = db.create_collection("docs", DIM, **{"index": "hnsw", "seal_bytes": DIM * 4 * 500, **config})
    ids = [f"r{i}" for i in range(ROWS)]
    metadata = [
        {"n": i, "tags": ["even", str(i % 5)] if i % 2 == 0 else [], "deep": {"x": i / 4}, "none": None}
        for i in range(ROWS)
    ]
    docs.upsert(ids, vectors(ROWS), metadata, [f"word{i} common" if i % 3 else None for i in range(ROWS)])
    docs.optimize()
    docs.delete(ids[:20])
    docs.update_metadata(ids[30:40], set={"n": -1})
    docs.upsert(["tail", "bare"], [vectors(1, 1)[0], None], texts=["in the tail", "no vector"])
    return docs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with Database(tmp_path / "db", scrub_bytes_per_second=0) as db:
        fill(db)
    return tmp_path / "db"


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2", "l1"])
def test_a_sound_database_is_checked_in_full(tmp_path: Path, metric: str) -> None:
    with Database(tmp_path / "db", scrub_bytes_per_second=0) as db:
        fill(db, metric=metric)
        online = db.verify()
        assert db["docs"].stats().tail_rows > 0
        assert not any((tmp_path / "db" / "segments").glob("tmp-*"))
    for report in (online, verify(tmp_path / "db")):
        assert (report.problems, report.notes) == ((), ())
        (checked,) = report.collections
        assert (checked.name, checked.version, checked.records, checked.searches) == ("docs", 4, ROWS - 18, 16)
        assert checked.recall is not None
        assert checked.recall > 0.9
        assert report.files > 5
        assert report.bytes > ROWS * DIM * 4
    assert online.path == str(tmp_path / "db")


def test_checking_changes_nothing(folder: Path) -> None:
    before = files_of(folder)
    assert verify(folder).ok
    after = files_of(folder)
    log = {name for name in after if name.startswith("rocksdb/LOG")}
    assert {n: c for n, c in after.items() if n not in log} == {n: c for n, c in before.items() if n not in log}


def test_a_check_of_an_open_database_leaves_its_stamps_valid(tmp_path: Path) -> None:
    """Else the next opening would read everything again."""
    with Database(tmp_path / "db", scrub_bytes_per_second=0) as db:
        fill(db)
        db.verify(0)
        store = db._backend._segments  # type: ignore[attr-defined]
        for ref in db._backend._catalogue.segment_refs():  # type: ignore[attr-defined]
            assert store._stamped(ref) == store._facts(ref)[0]


FILES = {
    "vectors.f32": "segment",
    "ids.utf8": "segment",
    "metadata.bounds": "segment",
    "metadata.msgpack": "segment",
    "postings.bin": "segment",
    "segment.json": "segment",
    "text/text.bin": "text",
    "text/text.json": "text",
    "index-*/index.bin": "index",
    "index-*/index.json": "index",
}


@pytest.mark.parametrize("file", FILES)
def test_damage_is_found_and_mended_while_the_database_is_open(tmp_path: Path, file: str) -> None:
    with Database(tmp_path / "db", scrub_bytes_per_second=0) as db:
        docs = fill(db)
        queries = vectors(10, 7)
        before = [r.ids for r in docs.search_batch(queries, exact=True)]
        (path,) = (tmp_path / "db" / "segments").glob(f"*/{file}")
        flip(path)
        problems = db.verify().problems
        assert {(p.kind, p.collection) for p in problems} == {(FILES[file], "docs")}
        assert str(tmp_path / "db" / "segments") in problems[0].message
        planned = db.repair(dry_run=True)
        assert (planned.dry_run, len(planned.rebuilt), planned.problems) == (True, 1, problems)
        docs.upsert(["written meanwhile"], vectors(1, 3))
        done = db.repair()
        assert (len(done.rebuilt), done.problems, done.lost) == (1, (), ())
        docs.delete(["written meanwhile", "r99"])
        docs.upsert(["r99"], vectors(ROWS)[99:100])
        assert db.verify().problems == ()
        docs.optimize()
        assert db.verify().problems == ()
        assert [r.ids for r in docs.search_batch(queries, exact=True)] == before
        assert docs.stats().scrub.rebuilt == 1
    assert verify(tmp_path / "db").problems == ()


def change(folder: Path, family: Family, find: Callable[[bytes, bytes], bytes | None]) -> None:
    """Replaces the first value for which ``find`` gives another."""
    storage = RocksStorage(folder / "rocksdb")
    for key, value in storage.scan(family, *keys.collection_range(1)):
        new = find(key, value)
        if new is not None:
            batch = storage.batch()
            batch.put(family, key, new)
            storage.write(batch)
            break
    else:
        raise AssertionError("there is no such entry")
    storage.close()


def _other_vector(key: bytes, value: bytes) -> bytes | None:
    return np.full(DIM, 2, "<f4").tobytes() if keys.parse_offset(key) == 100 else None


def _other_metadata(key: bytes, value: bytes) -> bytes | None:
    payload = codec.decode_payload(value)
    if payload.id != b"r1199":
        return None
    return codec.encode_payload(payload.id, encode_metadata({"n": 5_000}), payload.text)


def _other_text(key: bytes, value: bytes) -> bytes | None:
    payload = codec.decode_payload(value)
    return codec.encode_payload(payload.id, payload.metadata, b"else") if payload.id == b"r1199" else None


def _other_id(key: bytes, value: bytes) -> bytes | None:
    entry = codec.decode_id_entry(value) if key[4:5] == b"I" else None
    return codec.encode_id_entry(7, 1) if entry is not None and entry.offset == 50 else None


@pytest.mark.parametrize(
    ("family", "find", "kind", "words"),
    [
        (Family.VECTORS, _other_vector, "segment", "other vectors for 1 rows, such as row 100"),
        (Family.ROWS, _other_metadata, "postings", "disagree with the metadata of row 1199"),
        (Family.ROWS, _other_metadata, "segment", "other metadata for 1 rows, such as row 1199"),
        (Family.ROWS, _other_text, "text", "words of row 1199"),
        (Family.META, _other_id, "records", "the payload of 'r50' .* missing|says it is 'r50'"),
    ],
)
def test_what_checksums_cannot_see_is_found(
    folder: Path, family: Family, find: Callable[[bytes, bytes], bytes | None], kind: str, words: str
) -> None:
    change(folder, family, find)
    problems = [p for p in verify(folder).problems if p.kind == kind]
    with pytest.raises(AssertionError, match=words):
        raise AssertionError("; ".join(map(str, problems)))


def test_an_exact_search_that_is_wrong_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vectordb.engine.care import verify_searches

    search = verify_searches.reads.search

    def wrong(live: Any, request: Any) -> Any:
        results = search(live, request)
        return [r[1:] and type(r)(r[1:], r.plan, 0.1) for r in results] if request.exact else results

    monkeypatch.setattr(verify_searches.reads, "search", wrong)
    problems = verify(folder, 3).problems
    assert {p.kind for p in problems} == {"search"}
    assert "exact search 0 differs from brute force over storage from hit 0 on" in problems[0].message


def test_an_unfinished_commit_is_no_problem(tmp_path: Path) -> None:
    """What a kill inside a large call leaves, opening takes back: it is looked at as if that were done."""
    engine = Engine(tmp_path / "db", scrub_bytes_per_second=0)
    docs = Database.__mro__[1](engine).create_collection("docs", 2)
    ids = [f"r{i}" for i in range(6_000)]
    docs.upsert(ids, np.ones((6_000, 2)), [{"n": i} for i in range(6_000)])
    write, left = engine._storage.write, iter(range(2))

    def stopping(batch: Any) -> None:
        if next(left, None) is None:
            raise errors.Internal("the process was killed here")
        write(batch)

    engine._storage.write = stopping  # type: ignore[method-assign]
    with pytest.raises(errors.Internal):
        docs.delete(ids)
    engine.close()
    report = verify(tmp_path / "db")
    assert report.problems == ()
    assert report.notes == ("collection 'docs': an unfinished commit, which opening takes back",)
    assert report.collections[0].records == 6_000
    with Database(tmp_path / "db") as db:
        assert db["docs"].count() == 6_000
    assert verify(tmp_path / "db").notes == ()


def test_the_command(folder: Path, command: Callable[..., tuple[int, str]]) -> None:
    code, text = command("verify", folder)
    assert (code, "every checksum and every cross-check holds" in text, "recall of 16 searches" in text) == (
        0,
        True,
        True,
    )
    code, text = command("verify", folder, "--json", "--searches", 0)
    report = json.loads(text)
    assert (code, report["ok"], report["collections"][0]["recall"]) == (0, True, None)
    with Database(folder):
        assert "DirectoryLocked" in command("verify", folder)[1]
    (path,) = (folder / "segments").glob("*/postings.bin")
    flip(path)
    code, text = command("verify", folder, "--json")
    report = json.loads(text)
    assert (code, report["ok"], report["problems"][0]["kind"]) == (1, False, "segment")
    assert report["problems"][0]["subject"] == path.parent.name
    code, text = command("repair", folder, "--dry-run")
    assert (code, "would be moved aside: segments/" in text) == (1, True)
    code, text = command("repair", folder, "--json")
    assert (code, json.loads(text)["ok"]) == (0, True)
    assert command("verify", folder)[0] == 0
    assert os.listdir(folder / "quarantine") != []
