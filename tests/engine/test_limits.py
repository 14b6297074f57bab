"""Caps, disk and memory of a whole database: what is refused, that it is named, and that everything else goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vectordb
from vectordb import col, errors
from vectordb.engine.capacity import space
from vectordb.engine.capacity.space import Usage

MIB = 1 << 20
CAPS: dict[str, tuple[dict[str, int], type[errors.VectorDBError], Callable[[Any, Any], Any]]] = {
    "max_dim": ({"max_dim": 4}, errors.InvalidArgument, lambda db, c: db.create_collection("wide", 5)),
    "max_limit": ({"max_limit": 3}, errors.InvalidArgument, lambda db, c: c.search([1, 0], limit=4)),
    "max_limit of pages": ({"max_limit": 3}, errors.InvalidArgument, lambda db, c: list(c.scan(page_size=4))),
    "max_queries": ({"max_queries": 2}, errors.InvalidArgument, lambda db, c: c.search_batch([[1, 0]] * 3, limit=1)),
    "max_batch_rows": (
        {"max_batch_rows": 2},
        errors.ResourceExhausted,
        lambda db, c: c.upsert(list("abc"), [[1, 0]] * 3),
    ),
    "max_get_ids": ({"max_get_ids": 2}, errors.ResourceExhausted, lambda db, c: c.get(list("abc"))),
    "max_text_bytes": (
        {"max_text_bytes": 8},
        errors.InvalidArgument,
        lambda db, c: c.upsert(["a"], [[1, 0]], texts=["é" * 5]),
    ),
    "max_metadata_bytes": (
        {"max_metadata_bytes": 64},
        errors.InvalidArgument,
        lambda db, c: c.upsert(["a"], [[1, 0]], [{"k": "x" * 70}]),
    ),
    "max_metadata_bytes of updates": (
        {"max_metadata_bytes": 64},
        errors.InvalidArgument,
        lambda db, c: c.update_metadata(["first"], set={"k": "x" * 70}),
    ),
    "max_id_bytes": ({"max_id_bytes": 8}, errors.InvalidArgument, lambda db, c: c.upsert(["x" * 9], [[1, 0]])),
    "max_filter_depth": (
        {"max_filter_depth": 2},
        errors.InvalidFilter,
        lambda db, c: c.count(~((col("a") == 1) | (col("b") == 2))),
    ),
    "max_filter_nodes": (
        {"max_filter_nodes": 2},
        errors.InvalidFilter,
        lambda db, c: c.search([1, 0], limit=1, where=(col("a") == 1) & (col("b") == 2)),
    ),
    "max_collections": (
        {"max_collections": 1},
        errors.ResourceExhausted,
        lambda db, c: db.create_collection("more", 2),
    ),
}


@pytest.mark.parametrize("name", CAPS)
def test_what_is_over_a_cap_is_refused_by_the_name_of_the_setting(name: str) -> None:
    caps, kind, call = CAPS[name]
    with vectordb.Database(":memory:", **caps) as db:
        collection = db.create_collection("c", 2)
        collection.upsert(["first"], [[1, 0]])
        before = collection.stats().version
        with pytest.raises(kind) as caught:
            call(db, collection)
        setting = next(iter(caps))
        assert setting in str(caught.value)
        assert str(caps[setting]) in str(caught.value)
        assert (collection.stats().version, db.list_collections()) == (before, ["c"])


def test_caps_may_be_raised_and_lie_within_what_the_formats_hold() -> None:
    with vectordb.Database(":memory:", max_limit=20_000, max_metadata_bytes=4 * MIB) as db:
        collection = db.create_collection("c", 2)
        collection.upsert(["a"], [[1, 0]], [{f"k{i}": "x" * 200_000 for i in range(8)}])
        assert collection.update_metadata(["a"], set={"year": 2026}) == 1
        assert len(collection.search([1, 0], limit=20_000)) == 1
    with pytest.raises(errors.InvalidArgument, match="max_id_bytes"):
        vectordb.Database(":memory:", max_id_bytes=513)
    with pytest.raises(errors.InvalidArgument, match="unknown option 'max_nonsense'"):
        vectordb.Database(":memory:", max_nonsense=1)


def test_a_record_does_not_grow_beyond_its_cap_by_updates() -> None:
    with vectordb.Database(":memory:", max_metadata_bytes=64) as db:
        collection = db.create_collection("c", 2)
        collection.upsert(["a"], [[1, 0]], [{"one": "x" * 40}])
        with pytest.raises(errors.InvalidArgument, match=r"'a' would become invalid.*max_metadata_bytes"):
            collection.update_metadata(["a"], set={"two": "x" * 40})
        assert collection.get(["a"])[0].metadata == {"one": "x" * 40}


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The free bytes of a disk of 10 GiB, to be changed."""
    state = {"free": 5000 * MIB}
    monkeypatch.setattr(space, "usage", lambda folder: Usage(10_000 * MIB, state["free"]))
    monkeypatch.setattr(space, "_AGE", -1.0)
    return state


def test_a_disk_that_fills_makes_it_read_only_until_there_is_space_again(tmp_path: Path, disk: dict[str, int]) -> None:
    with vectordb.Database(tmp_path, min_free_disk="1 GiB") as db:
        collection = db.create_collection("c", 4)
        collection.upsert(["a", "b"], np.eye(4)[:2], [{"n": 1}, {"n": 2}])
        disk["free"] = 900 * MIB
        for refused in (
            lambda: collection.upsert(["x"], np.ones((1, 4))),
            lambda: collection.update_metadata(["a"], set={"n": 3}),
            lambda: db.create_collection("d", 4),
        ):
            with pytest.raises(errors.ResourceExhausted, match=r"900 MiB free.*min_free_disk keeps 1 GiB"):
                refused()
        assert "900 MiB free" in str(db.info().read_only_reason)
        assert [r.id for r in collection.search([1, 0, 0, 0], limit=1)] == ["a"]
        with pytest.raises(errors.ResourceExhausted, match="builds and merges wait"):
            collection.optimize()
        assert "builds and merges wait" in str(collection.stats().optimizer.error)
        assert collection.delete(["b"]) == 1
        disk["free"] = 2000 * MIB
        collection.upsert(["x"], np.ones((1, 4)))
        collection.optimize()
        assert (db.info().read_only_reason, collection.stats().optimizer.error) == (None, None)
    with vectordb.Database(tmp_path) as db:
        assert {r.id: r.metadata for r in db["c"].scan()} == {"a": {"n": 1}, "x": {}}


def test_a_disk_that_is_full_at_opening_still_opens(tmp_path: Path, disk: dict[str, int]) -> None:
    with vectordb.Database(tmp_path) as db:
        db.create_collection("c", 2).upsert(["a"], [[1, 0]])
    disk["free"] = 10 * MIB
    with vectordb.Database(tmp_path) as db:
        assert db["c"].count() == 1
        with pytest.raises(errors.ResourceExhausted):
            db["c"].upsert(["b"], [[1, 0]])
        with pytest.raises(errors.ResourceExhausted):
            db["c"].delete(["a"])
        disk["free"] = 5000 * MIB
        db["c"].upsert(["b"], [[1, 0]])


def test_memory_by_kind_is_told(tmp_path: Path) -> None:
    with vectordb.Database(tmp_path, memory_limit="64 MiB") as db:
        collection = db.create_collection("c", 256)
        collection.upsert([str(i) for i in range(1000)], np.random.default_rng(0).standard_normal((1000, 256)))
        kinds = db._backend.resources.memory.by_kind()  # type: ignore[attr-defined]
        assert set(kinds) == {"storage", "tail", "segments", "builds", "writes"}
        assert kinds["tail"] >= 1000 * 1024
        collection.optimize()
        kinds = db._backend.resources.memory.by_kind()  # type: ignore[attr-defined]
        assert kinds["tail"] < 100_000


def test_a_write_larger_than_the_limit_is_refused_and_smaller_ones_are_not(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((24_000, 512)).astype(np.float32)
    ids = [str(i) for i in range(len(rows))]
    with vectordb.Database(tmp_path, memory_limit="64 MiB") as db:
        collection = db.create_collection("c", 512, index="flat")
        with pytest.raises(errors.ResourceExhausted, match="memory_limit = 64 MiB") as caught:
            collection.upsert(ids, rows)
        assert caught.value.resource == "memory"
        assert collection.count() == 0
        assert collection.bulk_upsert(
            ({"id": i, "vector": row} for i, row in zip(ids, rows, strict=True)), batch_size=1000, progress=False
        )
        assert collection.count() == len(rows)
        assert collection.search(rows[5], limit=1)[0].id == "5"


def test_the_wait_for_memory_is_of_the_writes_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with vectordb.Database(tmp_path, memory_limit="64 MiB") as db:
        collection = db.create_collection("c", 2)
        resources, committer = db._backend.resources, db._backend._committer  # type: ignore[attr-defined]
        used, waited = [64 * MIB], list[float]()

        def relief(done: Callable[[], bool], timeout: float | None) -> None:
            time.sleep(0.2)
            used[0] = 0

        def submit(call: Any, timeout: float | None, seconds: float = 0.0) -> Any:
            waited.append(seconds)
            return inner(call, timeout, seconds)

        inner = committer.submit
        monkeypatch.setattr(committer, "submit", submit)
        monkeypatch.setattr(resources.memory, "_taken", lambda measured: used[0])
        monkeypatch.setattr(resources, "relief", relief)
        with pytest.raises(errors.DeadlineExceeded, match="nothing was written") as caught:
            collection.upsert(["a"], [[1, 0]], timeout=0.1)
        assert caught.value.timeout == 0.1
        assert (waited, collection.count()) == ([], 0)
        used[0] = 64 * MIB
        collection.upsert(["a"], [[1, 0]], timeout=30)
        assert collection.count() == 1
        assert waited[0] >= 0.2


def test_indexes_are_built_in_pieces_that_fit(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((24_000, 512)).astype(np.float32)
    hnsw = {"kind": "hnsw", "m": 4, "ef_construction": 16}
    with vectordb.Database(tmp_path, memory_limit="48 MiB") as db:
        collection = db.create_collection("c", 512, index=hnsw)
        for start in range(0, len(rows), 1000):
            collection.upsert([str(i) for i in range(start, start + 1000)], rows[start : start + 1000])
        collection.optimize()
        stats = collection.stats()
        assert stats.indexed_rows == len(rows)
        assert stats.optimizer.error is None
        # While it waits to be sealed a tail may grow a little beyond what it is sealed at.
        assert max(s.rows for s in stats.segments) * (4 * 512 + 400) <= 20 * MIB
        assert len(stats.segments) >= 3


def test_an_index_that_never_fits_is_not_built_and_the_reason_told(tmp_path: Path) -> None:
    # Not even their codes of 8 bits fit.
    rows = np.random.default_rng(0).standard_normal((20_000, 1_792)).astype(np.float32)
    ids = [str(i) for i in range(len(rows))]
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", rows.shape[1], index="flat")
        for start in range(0, len(rows), 5_000):
            collection.upsert(ids[start : start + 5_000], rows[start : start + 5_000])
        collection.optimize()
        assert len(collection.stats().segments) == 1
    with vectordb.Database(tmp_path, memory_limit="32 MiB") as db:
        collection = db["c"]
        with pytest.raises(errors.ResourceExhausted, match="memory_limit = 32 MiB"):
            collection.reindex({"kind": "hnsw", "m": 4, "ef_construction": 16})
        assert collection.search(rows[7], limit=1)[0].id == "7"
    with vectordb.Database(tmp_path) as db:
        db["c"].reindex({"kind": "hnsw", "m": 4, "ef_construction": 16})
    with vectordb.Database(tmp_path, memory_limit="32 MiB") as db:
        # What is built already is mapped, and needs no memory to speak of.
        assert db["c"].stats().indexed_rows == len(rows)
        assert db["c"].search(rows[7], limit=1, params={"ef": 5_000})[0].id == "7"
