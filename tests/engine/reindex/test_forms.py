"""What a reindex leads to: every form and back, what is left alone, what is given back, what builds are told."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import vectordb
from tests.engine.reindex.small import DIM, HNSW, SEAL_BYTES, SMALL, fill, index_folders, live_of, vectors_of
from tests.verified import verify_folder
from tests.waiting import wait_until
from vectordb import errors
from vectordb.types import QuantizationSpec


def test_every_form_and_back(db: Any) -> None:
    collection = db.create_collection("c", DIM, index="flat", **SMALL)
    vectors = fill(collection, 4)
    collection.delete([str(i) for i in range(0, 400, 10)])
    expected = collection.search(vectors[5], limit=10, exact=True)
    flat = collection.stats()
    assert (flat.index.kind, flat.indexed_rows) == ("flat", 0)
    for index, kinds in (
        (HNSW, {"hnsw"}),
        ({"kind": "hnsw", "m": 8}, {"hnsw"}),
        ("flat", {"flat"}),
        ("hnsw", {"hnsw"}),
        # The same parameters, but these segments are small.
        ("auto", {"flat"}),
    ):
        collection.reindex(index)
        stats = collection.stats()
        assert {s.index for s in stats.segments} == kinds
        assert stats.indexed_rows == (400 if kinds == {"hnsw"} else 0)
        assert stats.optimizer.state == "idle"
        assert collection.index == stats.index == db.collection("c").index
        assert stats.index.kind == (index if isinstance(index, str) else index["kind"])
        found = collection.search(vectors[5], limit=10, exact=True)
        assert [(h.id, h.score, h.metadata) for h in found] == [(h.id, h.score, h.metadata) for h in expected]
        assert len(collection.search(vectors[5], limit=360)) == 360
    assert stats.memory_bytes == flat.memory_bytes


def test_memory_and_disk_of_the_old_form_are_given_back(tmp_path: Path) -> None:
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", DIM, index="flat", **SMALL)
        fill(collection, 3)
        flat = sum(s.disk_bytes for s in collection.stats().segments)
        collection.reindex(HNSW)
        stats = collection.stats()
        first = index_folders(tmp_path)
        index = weakref.ref(live_of(db).segments[0].built.index)
        assert len(first) == 3
        files = [p for p in (tmp_path / "segments").glob("*/*/*") if p.is_file()]
        on_disk = sum(p.stat().st_size for p in files if p.name != "index.json")
        assert sum(s.disk_bytes for s in stats.segments) == flat + on_disk
        collection.reindex({"kind": "hnsw", "m": 8})
        assert len(index_folders(tmp_path)) == 3
        assert not set(first) & set(index_folders(tmp_path))
        collection.reindex("flat")
        after = collection.stats()
        assert index_folders(tmp_path) == []
        assert sum(s.disk_bytes for s in after.segments) == flat
        assert after.memory_bytes < stats.memory_bytes
        gc.collect()
        assert index() is None
    assert verify_folder(tmp_path) == []
    with vectordb.Database(tmp_path) as db:
        assert db["c"].index.kind == "flat"


def test_what_is_there_already_is_left_alone(tmp_path: Path) -> None:
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", DIM, index=HNSW, **SMALL)
        fill(collection, 2)
        collection.optimize()
        before = index_folders(tmp_path)
        for index in (HNSW, "hnsw", {"kind": "hnsw", "m": 16}, HNSW):
            collection.reindex(index)
            collection.reindex(index, "none")
            collection.reindex(quantization="none")
        assert collection.index.params == {"m": 4, "ef_construction": 16}
        assert index_folders(tmp_path) != before  # m = 16 and back
        before = index_folders(tmp_path)
        collection.reindex(HNSW)
        assert index_folders(tmp_path) == before
        # The same parameters without what are defaults anyway: the indexes stay, the configuration is the new one.
        collection.reindex("hnsw")
        before = index_folders(tmp_path)
        collection.reindex({"kind": "hnsw", "m": 16})
        assert (index_folders(tmp_path), collection.index.params) == (before, {"m": 16})


def test_the_new_configuration_is_the_one_that_counts(tmp_path: Path) -> None:
    with vectordb.Database(tmp_path) as db:
        db.create_collection("c", DIM, index="flat", **SMALL)
        db["c"].reindex(HNSW)
        assert db.create_collection("c", DIM, index=HNSW, exist_ok=True, **SMALL).index.kind == "hnsw"
        with pytest.raises(errors.FailedPrecondition, match="index is 'hnsw'"):
            db.create_collection("c", DIM, index="flat", exist_ok=True, **SMALL)
    with vectordb.Database(tmp_path) as db:
        assert db.create_collection("c", DIM, index=HNSW, exist_ok=True, **SMALL).index.kind == "hnsw"
        assert db["c"].config.tuning.merge_factor == 64


def test_quantization_alone(db: Any, slow_kind: ModuleType) -> None:
    collection = db.create_collection("c", DIM, index="slow", **SMALL)
    fill(collection, 2)
    collection.reindex(quantization="sq8")
    assert collection.quantization == collection.stats().quantization == QuantizationSpec("sq8")
    assert slow_kind.BUILDS[-1].quantization == "sq8"
    builds = len(slow_kind.BUILDS)
    collection.reindex(index="slow")
    collection.reindex(quantization={"kind": "sq8"})
    assert len(slow_kind.BUILDS) == builds
    with pytest.raises(errors.InvalidArgument, match="takes no parameters"):
        collection.reindex(quantization={"kind": "none", "oversampling": 2.0})
    collection.reindex(quantization="none")
    assert (collection.quantization, collection.stats().quantization) == (None, None)
    assert slow_kind.BUILDS[-1].quantization is None
    collection.reindex("lsh", "none")
    with pytest.raises(errors.InvalidArgument, match="does not support"):
        collection.reindex(quantization="sq8")


def test_builds_are_told_what_was_trained(db: Any, slow_kind: ModuleType, tmp_path: Path) -> None:
    collection = db.create_collection("c", DIM, index="slow", seal_bytes=SEAL_BYTES, merge_factor=2)
    on_disk = db.info().path != ":memory:"
    fill(collection, 1)
    wait_until(lambda: collection.stats().indexed_rows == 100)
    assert slow_kind.BUILDS[0].trained is None
    collection.upsert([f"x{i}" for i in range(50)], vectors_of(50, 1))
    collection.optimize()
    trained = slow_kind.BUILDS[-1].trained
    assert slow_kind.BUILDS[-1].rows == 150
    assert (trained is not None and trained.name == "index.bin") if on_disk else trained is None
    # The centroids of another form are of no use.
    collection.reindex({"kind": "slow", "tag": 1})
    assert slow_kind.BUILDS[-1].trained is None
    collection.upsert([f"y{i}" for i in range(500)], vectors_of(500, 2))
    wait_until(lambda: collection.stats().tail_rows == 0)
    collection.optimize()
    assert (slow_kind.BUILDS[-1].trained is not None) is on_disk


def test_the_largest_is_built_first_and_the_next_with_its_state(tmp_path: Path, slow_kind: ModuleType) -> None:
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", DIM, index="flat", **SMALL)
        fill(collection, 1)
        collection.upsert([f"x{i}" for i in range(300)], vectors_of(300, 1))
        wait_until(lambda: len(collection.stats().segments) == 2)
        collection.reindex("slow")
        assert [b.rows for b in slow_kind.BUILDS] == [300, 100]
        assert [b.trained is not None for b in slow_kind.BUILDS] == [False, True]
