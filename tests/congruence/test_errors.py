"""Bad calls, one table for every target: the same class, message and facts, and nothing changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vectordb
from vectordb import col, errors
from vectordb.engine.database import Engine
from vectordb.server.app import Server
from vectordb.server.config import load
from vectordb_client import connect

DIM = 4
ONE = np.ones((1, DIM), np.float32)


def _row(value: float, place: int = 2) -> np.ndarray:
    vectors = np.ones((3, DIM), np.float32)
    vectors[1, place] = value
    return vectors


CALLS: dict[str, tuple[Callable[[Any, Any], Any], type[errors.VectorDBError], str]] = {
    "dim of a row": (lambda d, c: c.upsert(["x"], np.ones((1, 5))), errors.DimensionMismatch, "has dim 4, got 5"),
    "dim of a query": (lambda d, c: c.search(np.ones(3)), errors.DimensionMismatch, "has dim 4, got 3"),
    "nan": (lambda d, c: c.upsert(["x", "y", "z"], _row(np.nan)), errors.InvalidVector, "row 1 is NaN at position 2"),
    "inf": (lambda d, c: c.upsert(["x", "y", "z"], _row(np.inf)), errors.InvalidVector, "row 1 is infinite"),
    "too big": (lambda d, c: c.upsert(["x"], [[1e300, 0, 0, 0]]), errors.InvalidVector, "position 0"),
    "zero": (lambda d, c: c.upsert(["x", "y"], [[1, 0, 0, 0], [0] * 4]), errors.InvalidVector, "row 1 is zero"),
    "zero query": (lambda d, c: c.search(np.zeros(DIM)), errors.InvalidVector, "zero"),
    "nan query": (lambda d, c: c.search([np.nan, 1, 1, 1]), errors.InvalidVector, "NaN"),
    "no collection": (lambda d, c: d.collection("nope"), errors.CollectionNotFound, "'nope' does not exist"),
    "delete no collection": (lambda d, c: d.delete_collection("nope"), errors.CollectionNotFound, "'nope'"),
    "collection exists": (lambda d, c: d.create_collection("c", DIM), errors.AlreadyExists, "exists already"),
    "other configuration": (
        lambda d, c: d.create_collection("c", 5, exist_ok=True),
        errors.FailedPrecondition,
        "dim is 4, not 5",
    ),
    "limit 0": (lambda d, c: c.search(ONE[0], limit=0), errors.InvalidArgument, "1 to 10000, got 0"),
    "limit 1e9": (lambda d, c: c.search(ONE[0], limit=10**9), errors.InvalidArgument, "1 to 10000"),
    "no index kind": (lambda d, c: d.create_collection("x", DIM, index=""), errors.InvalidArgument, "a kind's name"),
    "no quantization": (lambda d, c: c.reindex(quantization=""), errors.InvalidArgument, "a kind's name"),
    "empty batch": (lambda d, c: c.upsert([], np.empty((0, DIM))), errors.InvalidArgument, "no rows"),
    "no queries": (lambda d, c: c.search_batch(np.empty((0, DIM))), errors.InvalidArgument, "queries"),
    "id twice": (lambda d, c: c.upsert(["x", "x"], np.ones((2, DIM))), errors.InvalidArgument, "rows 0 and 1"),
    "id twice as text": (lambda d, c: c.upsert([1, "1"], np.ones((2, DIM))), errors.InvalidArgument, "rows 0 and 1"),
    "id of 1 MB": (lambda d, c: c.upsert(["x" * 2**20], ONE), errors.InvalidArgument, "1 to 512"),
    "empty id": (lambda d, c: c.upsert([""], ONE), errors.InvalidArgument, "1 to 512"),
    "bool id": (lambda d, c: c.upsert([True], ONE), errors.InvalidArgument, "bool"),
    "surrogate id": (lambda d, c: c.upsert(["\ud800"], ONE), errors.InvalidArgument, "UTF-8"),
    "delete everything": (lambda d, c: c.delete(), errors.InvalidArgument, "ids, where"),
    "update nothing": (lambda d, c: c.update_metadata(["a"]), errors.InvalidArgument, "set, unset"),
    "update everything": (lambda d, c: c.update_metadata(set={"x": 1}), errors.InvalidArgument, "ids, where"),
    "filter value": (lambda d, c: c.count(col("n") == {"x": 1}), errors.InvalidFilter, ""),
    "filter operator": (
        lambda d, c: c.count({"field": "n", "op": "~", "value": 1}),
        errors.InvalidFilter,
        "",
    ),
    "filter shape": (lambda d, c: c.count({"and": {"field": "n"}}), errors.InvalidFilter, ""),
    "filter text": (lambda d, c: c.search(ONE[0], where='{"and": ['), errors.InvalidFilter, ""),
    "dotted key": (lambda d, c: c.upsert(["x"], ONE, [{"a.b": 1}]), errors.InvalidArgument, "a.b"),
    "metadata key": (lambda d, c: c.upsert(["x"], ONE, [{1: 1}]), errors.InvalidArgument, "row 0"),
    "metadata nan": (lambda d, c: c.upsert(["x"], ONE, [{"a": float("nan")}]), errors.InvalidArgument, "'a'"),
    "metadata bytes": (lambda d, c: c.upsert(["x"], ONE, [{"a": b"x"}]), errors.InvalidArgument, "'a'"),
    "metadata int": (lambda d, c: c.upsert(["x"], ONE, [{"a": 2**63}]), errors.InvalidArgument, "'a'"),
    "metadata set": (lambda d, c: c.upsert(["x"], ONE, [{"a": {"b": {1}}}]), errors.InvalidArgument, "'a.b' in row 0"),
    "metadata huge int": (lambda d, c: c.upsert(["x"], ONE, [{"b": 1, "a": 2**65}]), errors.InvalidArgument, "'a' in"),
    "metadata not a dict": (lambda d, c: c.upsert(["x"], ONE, [[1]]), errors.InvalidArgument, "row 0"),
    "metadata of 2 MB": (lambda d, c: c.upsert(["x"], ONE, [{"a": "x" * 2**21}]), errors.InvalidArgument, ""),
    "declared type": (lambda d, c: c.upsert(["x"], ONE, [{"year": "old"}]), errors.InvalidArgument, "year"),
    "declared type on update": (
        lambda d, c: c.update_metadata(["a"], set={"year": "old"}),
        errors.InvalidArgument,
        "year",
    ),
    "unindexed field": (lambda d, c: c.count(col("note") == "x"), errors.InvalidFilter, "note"),
    "text": (lambda d, c: c.upsert(["x"], ONE, texts=[5]), errors.InvalidArgument, "row 0"),
    "lengths": (lambda d, c: c.upsert(["x", "y"], ONE), errors.InvalidArgument, "same length"),
    "one id": (lambda d, c: c.upsert("xyz", np.ones((3, DIM))), errors.InvalidArgument, "'xyz' is one id"),
    "one id, lists": (lambda d, c: c.upsert("xy", [[1] * DIM] * 2), errors.InvalidArgument, "'xy' is one id"),
    "include": (lambda d, c: c.get(["a"], include=("vectors",)), errors.InvalidArgument, "include"),
    "order": (lambda d, c: next(c.scan(order_by="-")), errors.InvalidArgument, "order_by"),
    "page size": (lambda d, c: next(c.scan(page_size=0)), errors.InvalidArgument, "page_size"),
    "timeout": (lambda d, c: c.search(ONE[0], timeout=-1.0), errors.InvalidArgument, "timeout"),
    "timeout as text": (lambda d, c: c.search(ONE[0], timeout="2"), errors.InvalidArgument, "is a number, got '2'"),
    "timeout of a write as text": (lambda d, c: c.upsert(["x"], ONE, timeout="2"), errors.InvalidArgument, "number"),
    "order as a number": (lambda d, c: next(c.scan(order_by=3)), errors.InvalidArgument, "order_by is text"),
    "idempotency_key as a number": (
        lambda d, c: c.upsert(["x"], ONE, idempotency_key=3),
        errors.InvalidArgument,
        "idempotency_key is text",
    ),
    "no ids to get": (lambda d, c: c.get(None), errors.InvalidArgument, "ids are a list"),
    "min_score": (lambda d, c: c.search(ONE[0], min_score=float("nan")), errors.InvalidArgument, "min_score"),
    "filter_mode": (lambda d, c: c.search(ONE[0], filter_mode="soon"), errors.InvalidArgument, "filter_mode"),
    "params": (lambda d, c: c.search(ONE[0], params={"nprobe": 3}), errors.InvalidArgument, "nprobe"),
    "params value": (lambda d, c: c.search(ONE[0], params={"ef": 0}), errors.InvalidArgument, "ef"),
    "target of 0": (lambda d, c: c.search(ONE[0], target_recall=0), errors.InvalidArgument, "target_recall"),
    "target above 1": (lambda d, c: c.search(ONE[0], target_recall=1.5), errors.InvalidArgument, "between 0 and 1"),
    "target as text": (lambda d, c: c.explain(ONE[0], target_recall="x"), errors.InvalidArgument, "target_recall"),
    "target and width": (
        lambda d, c: c.search_batch(ONE, target_recall=0.9, params={"ef": 64}),
        errors.InvalidArgument,
        "'ef'",
    ),
    "two targets": (
        lambda d, c: c.search(ONE[0], target_recall=0.9, params={"target_recall": 0.95}),
        errors.InvalidArgument,
        "once",
    ),
    "vector_name": (lambda d, c: c.search(ONE[0], vector_name="image"), errors.InvalidArgument, "image"),
    "exists": (lambda d, c: c.insert(["a", "n1"], np.ones((2, DIM))), errors.AlreadyExists, "'a'"),
    "missing": (lambda d, c: c.update(["a", "n1"], np.ones((2, DIM))), errors.NotFound, "'n1'"),
    "if_version": (lambda d, c: c.upsert(["a"], ONE, if_version=99), errors.FailedPrecondition, "not version 99"),
    "if_version of none": (lambda d, c: c.upsert(["q"], ONE, if_version=1), errors.FailedPrecondition, "not exist"),
    "too large a write": (
        lambda d, c: c.upsert(["x"], ONE, texts=["x" * 5_000_000]),
        errors.ResourceExhausted,
        "split",
    ),
    "name": (lambda d, c: d.create_collection("a/b", DIM), errors.InvalidArgument, "name"),
    "dim": (lambda d, c: d.create_collection("e", 0), errors.InvalidArgument, "dim"),
    "metric": (lambda d, c: d.create_collection("e", 4, metric="hamming"), errors.InvalidArgument, "'cosine'"),
    "index": (lambda d, c: d.create_collection("e", 4, index="btree"), errors.InvalidArgument, "btree"),
    "reindex nothing": (lambda d, c: c.reindex(), errors.InvalidArgument, "index, quantization"),
    "reindex kind": (lambda d, c: c.reindex("btree", wait=False), errors.InvalidArgument, "btree"),
    "reindex parameter": (lambda d, c: c.reindex({"kind": "hnsw", "links": 3}), errors.InvalidArgument, "links"),
    "reindex parameter value": (lambda d, c: c.reindex({"kind": "hnsw", "m": 1}), errors.InvalidArgument, "'m'"),
    "reindex without kind": (lambda d, c: c.reindex({"m": 16}), errors.InvalidArgument, "'kind'"),
    "reindex auto": (lambda d, c: c.reindex({"kind": "auto", "m": 16}), errors.InvalidArgument, "no parameters"),
    "reindex quantization": (lambda d, c: c.reindex(quantization="zip"), errors.InvalidArgument, "zip"),
    "reindex unable": (lambda d, c: c.reindex("lsh", "pq"), errors.InvalidArgument, "kinds that do"),
    "reindex none": (
        lambda d, c: c.reindex(quantization={"kind": "none", "m": 2}),
        errors.InvalidArgument,
        "no parameters",
    ),
    "index parameter": (
        lambda d, c: d.create_collection("e", 4, index={"kind": "hnsw", "links": 3}),
        errors.InvalidArgument,
        "links",
    ),
    "quantization": (lambda d, c: d.create_collection("e", 4, quantization="zip"), errors.InvalidArgument, "'rabitq'"),
    "quantization of a kind": (
        lambda d, c: d.create_collection("e", 4, index="lsh", quantization="pq"),
        errors.InvalidArgument,
        "kinds that do",
    ),
    "quantization of a metric": (
        lambda d, c: d.create_collection("e", 4, metric="l1", quantization="sq8"),
        errors.InvalidArgument,
        "'l1'",
    ),
    "field type": (lambda d, c: d.create_collection("e", 4, fields={"a": "blob"}), errors.InvalidArgument, "blob"),
    "no words": (lambda d, c: c.search_text(" \n"), errors.InvalidArgument, "text in row 0 is empty"),
    "words of no text": (lambda d, c: c.search_text(5), errors.InvalidArgument, "text in row 0"),
    "several words": (lambda d, c: c.search_text(["a", "b"]), errors.InvalidArgument, "text in row 0"),
    "missing words": (lambda d, c: c.search_batch(np.ones((2, 4)), text=["a", None]), errors.InvalidArgument, "row 1"),
    "surrogate words": (lambda d, c: c.search_text("\ud800"), errors.InvalidArgument, "UTF-8"),
    "too many words": (lambda d, c: c.search_text("a " * 40_000), errors.InvalidArgument, "at most 65536"),
    "limit of words": (lambda d, c: c.search_text("a", limit=0), errors.InvalidArgument, "limit"),
    "filter of words": (lambda d, c: c.search_text("a", where=col("note") == "x"), errors.InvalidFilter, "note"),
    "texts and vectors": (
        lambda d, c: c.search_batch(np.ones((2, 4)), text=["a"]),
        errors.InvalidArgument,
        "2 vectors and 1 texts",
    ),
    "fusion": (lambda d, c: c.search(ONE[0], text="a", fusion="best"), errors.InvalidArgument, "fusion 'best'"),
    "fusion shape": (lambda d, c: c.search(ONE[0], text="a", fusion={"rrf": 60}), errors.InvalidArgument, "fusion"),
    "fusion option": (
        lambda d, c: c.search(ONE[0], text="a", fusion={"rrf": {"c": 60}}),
        errors.InvalidArgument,
        "fusion",
    ),
    "fusion k": (lambda d, c: c.search(ONE[0], text="a", fusion={"rrf": {"k": 0}}), errors.InvalidArgument, "above 0"),
    "fusion without text": (lambda d, c: c.search(ONE[0], fusion="rrf"), errors.InvalidArgument, "give text too"),
    "three weights": (
        lambda d, c: c.search(ONE[0], text="a", fusion={"weights": [1, 2, 3]}),
        errors.InvalidArgument,
        "two numbers",
    ),
    "no weight": (
        lambda d, c: c.search(ONE[0], text="a", fusion={"weights": [0, 0.0]}),
        errors.InvalidArgument,
        "not both 0",
    ),
    "bad weight": (
        lambda d, c: c.search(ONE[0], text="a", fusion={"weights": [1, float("nan")]}),
        errors.InvalidArgument,
        "two numbers",
    ),
    "weights of words": (
        lambda d, c: c.search(ONE[0], text="a", fusion={"weights": "ab"}),
        errors.InvalidArgument,
        "fusion",
    ),
    "analyzer": (lambda d, c: d.create_collection("e", 4, analyzer="klingon"), errors.InvalidArgument, "'standard'"),
    "analyzer type": (lambda d, c: d.create_collection("e", 4, analyzer=None), errors.InvalidArgument, "analyzer"),
    "option": (lambda d, c: d.create_collection("e", 4, shards=2), errors.InvalidArgument, "shards"),
    "option value": (lambda d, c: d.create_collection("e", 4, seal_bytes=0), errors.InvalidArgument, "seal_bytes"),
    "if_version as text": (lambda d, c: c.upsert(["a"], ONE, if_version="a"), errors.InvalidArgument, "whole number"),
    "if_version as a list": (lambda d, c: c.delete(["a"], if_version=[0]), errors.InvalidArgument, "whole number"),
    "if_version below 0": (lambda d, c: c.upsert(["a"], ONE, if_version=-1), errors.InvalidArgument, "0 or greater"),
    "if_version as a bool": (
        lambda d, c: c.update_metadata(["a"], set={"n": 1}, if_version=False),
        errors.InvalidArgument,
        "if_version is a whole number, got False",
    ),
    "min_score as text": (lambda d, c: c.search(ONE[0], min_score="x"), errors.InvalidArgument, "is a number, got"),
    "min_score of words": (lambda d, c: c.search_text("a", min_score="x"), errors.InvalidArgument, "min_score"),
    "params as a number": (lambda d, c: c.search(ONE[0], params=5), errors.InvalidArgument, "params is a dict"),
    "page size as text": (lambda d, c: next(c.scan(page_size="5")), errors.InvalidArgument, "page_size is a whole"),
    "limit as text": (lambda d, c: c.search(ONE[0], limit="5"), errors.InvalidArgument, "limit is a whole number"),
    "limit as a bool": (lambda d, c: c.search(ONE[0], limit=True), errors.InvalidArgument, "limit is a whole number"),
    "limit as a float": (lambda d, c: c.search_text("a", limit=5.0), errors.InvalidArgument, "limit is a whole"),
    "dim as text": (lambda d, c: d.create_collection("e", "4"), errors.InvalidArgument, "dim is a whole number"),
    "dim as a bool": (lambda d, c: d.create_collection("e", True), errors.InvalidArgument, "dim is a whole number"),
    "include of None": (lambda d, c: c.get(["a"], include=[None]), errors.InvalidArgument, "include has None"),
    "include as a number": (lambda d, c: c.search(ONE[0], include=5), errors.InvalidArgument, "include is a list"),
    "unset as a number": (lambda d, c: c.update_metadata(["a"], unset=5), errors.InvalidArgument, "unset is a list"),
    "unset of numbers": (lambda d, c: c.update_metadata(["a"], unset=[5]), errors.InvalidArgument, "unset has 5"),
    "collection as a number": (lambda d, c: d[5], errors.InvalidArgument, "named by a string, got 5"),
    "new collection as a number": (lambda d, c: d.create_collection(5, 2), errors.InvalidArgument, "named by a string"),
    "delete no name": (lambda d, c: d.delete_collection(None), errors.InvalidArgument, "named by a string"),
    "queries as None": (lambda d, c: c.search_batch(None), errors.InvalidArgument, "vectors is a list of"),
    "queries as a number": (lambda d, c: c.search_batch(5), errors.InvalidArgument, "vectors is a list of"),
    "vectors as a number": (lambda d, c: c.upsert(["x"], 5), errors.InvalidArgument, "vectors is a list of vectors"),
    "metadata as a number": (lambda d, c: c.upsert(["x"], ONE, 5), errors.InvalidArgument, "metadata is a list of"),
    "texts as a number": (lambda d, c: c.upsert(["x"], ONE, texts=5), errors.InvalidArgument, "texts is a list of"),
    "texts as one text": (lambda d, c: c.upsert(["x"], ONE, texts="a"), errors.InvalidArgument, "texts is a list of"),
    "vectors as ids": (lambda d, c: c.upsert([[1, 2], [3, 4]]), errors.InvalidArgument, "upsert(ids, vectors)"),
    "a matrix as ids": (lambda d, c: c.upsert(np.ones((2, DIM))), errors.InvalidArgument, "upsert(ids, vectors)"),
    "a dict of columns": (
        lambda d, c: c.upsert({"id": ["x", "y"], "vector": [[1] * DIM] * 2}),
        errors.InvalidArgument,
        "these are columns",
    ),
    "a dict of arguments": (
        lambda d, c: c.upsert({"ids": ["x"], "vectors": ONE}),
        errors.InvalidArgument,
        "these are columns",
    ),
    "batch size as text": (lambda d, c: c.bulk_upsert([], batch_size="5"), errors.InvalidArgument, "batch_size"),
    "exact as text": (lambda d, c: c.search(ONE[0], exact="no"), errors.InvalidArgument, "exact is True or False"),
    "partial as text": (
        lambda d, c: c.search(ONE[0], allow_partial="no"),
        errors.InvalidArgument,
        "allow_partial is True or False",
    ),
    "erase as text": (lambda d, c: c.delete(["a"], erase="x"), errors.InvalidArgument, "erase is True or False"),
    "exist_ok as text": (
        lambda d, c: d.create_collection("c", DIM, exist_ok="x"),
        errors.InvalidArgument,
        "exist_ok is True or False",
    ),
    "repair as text": (lambda d, c: d.repair("x"), errors.InvalidArgument, "dry_run is True or False"),
    "backup to None": (lambda d, c: d.backup(None), errors.InvalidArgument, "a folder or a URL, got None"),
    "two joins": (
        lambda d, c: c.count({"and": [{"field": "n", "op": "exists"}], "or": []}),
        errors.InvalidFilter,
        'one object has one of "and", "or", "not"',
    ),
    "a join beside a field": (
        lambda d, c: c.count({"not": {"field": "n", "op": "exists"}, "field": "n"}),
        errors.InvalidFilter,
        "nothing beside it, got 'not', 'field'",
    ),
    "a surplus key": (
        lambda d, c: c.count({"field": "n", "op": "==", "value": 1, "boost": 2}),
        errors.InvalidFilter,
        'unknown key \'boost\'; a condition has "field", "op" and "value"',
    ),
    "idempotency_key of nothing": (
        lambda d, c: c.upsert(["x"], ONE, idempotency_key=""),
        errors.InvalidArgument,
        "1 to 512 bytes",
    ),
    "idempotency_key of no text": (
        lambda d, c: c.delete(["a"], idempotency_key="\ud800"),
        errors.InvalidArgument,
        "idempotency_key is text in UTF-8",
    ),
    "vector_name of None": (
        lambda d, c: c.search(ONE[0], vector_name=None),
        errors.InvalidArgument,
        "vector_name is text in UTF-8, got None",
    ),
    "limit beyond 64 bits": (lambda d, c: c.search(ONE[0], limit=10**30), errors.InvalidArgument, "whole number of 64"),
    "params of an object": (
        lambda d, c: c.search(ONE[0], params={"ef": [3]}),
        errors.InvalidArgument,
        "params['ef'] is a number, bool or string, got [3]",
    ),
    "params by a number": (lambda d, c: c.search(ONE[0], params={5: 1}), errors.InvalidArgument, "name is a string"),
    "params beyond 64 bits": (
        lambda d, c: c.search(ONE[0], params={"ef": 2**70}),
        errors.InvalidArgument,
        "params['ef'] is a whole number of 64 bits",
    ),
    "index parameter of None": (
        lambda d, c: d.create_collection("e", 4, index={"kind": "hnsw", "m": None}),
        errors.InvalidArgument,
        "index['m'] is a number, bool or string, got None",
    ),
    "quantization parameter beyond 64 bits": (
        lambda d, c: c.reindex(quantization={"kind": "pq", "m": 2**70}),
        errors.InvalidArgument,
        "quantization['m'] is a whole number of 64 bits",
    ),
    "field by a number": (
        lambda d, c: d.create_collection("e", 4, fields={5: "int"}),
        errors.InvalidArgument,
        "bad field path 5",
    ),
    "indexed as text": (
        lambda d, c: d.create_collection("e", 4, fields={"a": {"type": "int", "indexed": "no"}}),
        errors.InvalidArgument,
        "fields.a.indexed is True or False, got 'no'",
    ),
    "unset of no path": (
        lambda d, c: c.update_metadata(["a"], unset=["n", "a..b"]),
        errors.InvalidArgument,
        "unset has a bad field path 'a..b'",
    ),
    "misspelled option": (
        lambda d, c: d.create_collection("e", DIM, metrics="l2"),
        errors.InvalidArgument,
        "known are metric, index, quantization, fields, exist_ok, analyzer, seal_bytes",
    ),
}


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("errors")
    config = load({"data": str(folder / "served"), "listen": "127.0.0.1:0"}, None, {})
    server = Server(lambda: Engine(folder / "served"), config)
    by_grpcio = load({"data": str(folder / "grpcio"), "listen": "127.0.0.1:0", "transport": "grpcio"}, None, {})
    second = Server(lambda: Engine(folder / "grpcio"), by_grpcio)
    databases = {
        "embedded": vectordb.Database(folder / "embedded"),
        "memory": connect(":memory:"),
        "served": connect(server.start()),
        "grpcio": connect(second.start()),
    }
    assert (server.transport, second.transport) == ("native", "grpcio")
    for db in databases.values():
        collection = db.create_collection(
            "c", DIM, fields={"year": "int", "note": {"type": "text", "indexed": False}}, max_write_bytes=4_000_000
        )
        collection.upsert(["a", "b"], np.eye(DIM)[:2], [{"n": 1}, {"n": "x"}], ["one", None])
    yield databases
    for db in databases.values():
        db.close()
    server.stop()
    second.stop()


def _digest(db: Any) -> Any:
    collection = db.collection("c")
    stats = collection.stats()
    return db.list_collections(), stats.version, stats.index, stats.optimizer, [repr(r) for r in collection.scan()]


@pytest.mark.parametrize("name", CALLS)
def test_every_target_says_the_same_and_changes_nothing(targets: dict[str, Any], name: str) -> None:
    call, kind, told = CALLS[name]
    said = {}
    for target, db in targets.items():
        before = _digest(db)
        with pytest.raises(kind) as caught:
            call(db, db.collection("c"))
        assert type(caught.value) is kind
        assert told in str(caught.value)
        said[target] = (caught.value.message, json.dumps(dict(caught.value.fields), sort_keys=True, default=str))
        assert _digest(db) == before
    assert said["embedded"] == said["memory"] == said["served"] == said["grpcio"]


def test_a_bad_row_among_ten_thousand_is_named(targets: dict[str, Any]) -> None:
    for db in targets.values():
        collection = db.create_collection("many", 2, exist_ok=True)
        vectors = np.ones((10_000, 2), np.float32)
        vectors[9_998, 1] = np.nan
        with pytest.raises(errors.InvalidVector, match="row 9998") as caught:
            collection.upsert([str(i) for i in range(10_000)], vectors)
        assert (caught.value.row, caught.value.position) == (9_998, 1)
        metadata: list[Any] = [{"n": i} for i in range(10_000)]
        metadata[9_999] = {"n": {"deep": float("inf")}}
        with pytest.raises(errors.InvalidArgument, match=r"n\.deep.*row 9999"):
            collection.upsert([str(i) for i in range(10_000)], np.ones((10_000, 2)), metadata)
        assert collection.count() == 0
