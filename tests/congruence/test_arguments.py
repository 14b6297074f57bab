"""What users pass from numpy, pandas and arrow means the same on every target."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import vectordb
from vectordb import col, errors
from vectordb.engine.database import Engine
from vectordb.server.app import Server
from vectordb.server.config import load
from vectordb_client import connect


@pytest.fixture(scope="module", params=["embedded", "memory", "native", "grpcio"])
def db(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder: Path = tmp_path_factory.mktemp("arguments")
    if request.param in ("embedded", "memory"):
        with vectordb.Database(folder) if request.param == "embedded" else connect(":memory:") as local:
            yield local
        return
    config = load({"data": str(folder), "listen": "127.0.0.1:0", "transport": request.param}, None, {})
    server = Server(lambda: Engine(folder), config)
    with connect(server.start()) as served:
        yield served
    server.stop()


@pytest.fixture
def docs(db: Any) -> Iterator[Any]:
    yield db.create_collection("docs", 2)
    db.delete_collection("docs")


NOON = datetime(2024, 5, 1, 12, 0, 0, 250_000, tzinfo=UTC)
NUMPY_NOON = np.datetime64("2024-05-01T12:00:00.250000789", "ns")


def test_datetimes_of_numpy_are_datetimes(docs: Any) -> None:
    docs.upsert(
        ["one", "days", "list", "array", "nested"],
        metadata=[
            {"at": NUMPY_NOON},
            {"at": np.datetime64("2024-05-02")},
            {"at": [NUMPY_NOON, None]},
            {"at": np.array(["2023-01-01", "2025-01-01"], "datetime64[D]")},
            {"at": {"inner": np.datetime64("1969-12-31T23:59:59.5")}},
        ],
    )
    found = {record.id: record.metadata["at"] for record in docs.scan()}
    assert found["one"] == NOON
    assert found["days"] == datetime(2024, 5, 2, tzinfo=UTC)
    assert found["list"] == [NOON, None]
    assert found["array"] == [datetime(2023, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)]
    assert found["nested"] == {"inner": datetime(1969, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC)}
    docs.update_metadata(["nested"], set={"at": np.datetime64("2026-01-01")})
    assert [record.id for record in docs.scan(where=col("at") > datetime(2025, 12, 31))] == ["nested"]


def test_datetimes_of_numpy_are_compared_as_such(docs: Any) -> None:
    docs.upsert(["a", "b"], metadata=[{"at": NOON}, {"at": datetime(2024, 5, 2)}])
    noon, day = NUMPY_NOON.astype("datetime64[us]"), np.datetime64("2024-05-02")
    for condition, count in (
        (col("at") == NUMPY_NOON, 1),
        (col("at") < day, 1),
        (col("at").isin(np.array([noon, day])), 2),
        (col("at").between(NUMPY_NOON, day), 2),
        ({"field": "at", "op": ">=", "value": day}, 1),
    ):
        assert docs.count(condition) == count


@pytest.mark.parametrize(
    "value",
    [np.datetime64("NaT", "s"), pd.NaT, np.array(["NaT"], "datetime64[s]"), [np.datetime64("NaT", "ns")]],
    ids=["scalar", "pandas", "array", "list"],
)
def test_no_instant_is_refused_by_name(docs: Any, value: Any) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"'at' in row 0.*NaT is no instant"):
        docs.upsert(["a"], metadata=[{"at": value}])
    assert docs.count() == 0


def test_instants_and_durations_without_a_stored_form_are_refused(docs: Any) -> None:
    for value, told in (
        (np.datetime64(10**12, "Y"), "outside the years 1 to 9999"),
        (np.timedelta64(3, "ns"), "give a number"),
    ):
        with pytest.raises(errors.InvalidArgument, match=told):
            docs.upsert(["a"], metadata=[{"at": value}])
        with pytest.raises(errors.InvalidFilter, match=told):
            docs.count(col("at") == value)
    with pytest.raises(errors.InvalidFilter, match="NaT is no instant"):
        docs.count(col("at") == np.datetime64("NaT", "us"))


def test_other_values_of_numpy_are_numbers_texts_and_lists(docs: Any) -> None:
    given = {"i": np.int16(3), "f": np.float32(0.5), "b": np.bool_(True), "s": np.str_("x"), "l": np.arange(3)}
    docs.upsert(["a"], metadata=[given])
    assert docs.get(["a"])[0].metadata == {"i": 3, "f": 0.5, "b": True, "s": "x", "l": [0, 1, 2]}


def test_what_pandas_says_is_missing_is_left_out(docs: Any) -> None:
    frame = pd.DataFrame(
        {
            "n": pd.Series([1, pd.NA], dtype=object),
            "at": pd.to_datetime(["2024-05-01", None]),
            "l": [np.array([1, 2]), None],
            "f": [0.5, float("nan")],
        }
    )
    docs.upsert(["a", "b"], metadata=frame)
    kept = {"n": 1, "at": datetime(2024, 5, 1, tzinfo=UTC), "l": [1, 2], "f": 0.5}
    assert [record.metadata for record in docs.get(["a", "b"])] == [kept, {"n": None, "l": None}]
    docs.upsert(pd.DataFrame([{"id": "c", "metadata": {"n": 1}}, {"id": "d"}]))
    assert [record.metadata for record in docs.get(["c", "d"])] == [{"n": 1}, {}]


def test_a_key_is_for_one_call_and_another_with_it_is_refused(docs: Any) -> None:
    first = docs.upsert(["a", "b"], np.ones((2, 2)), [{"n": 1}, {}], ["x", None], idempotency_key="key")
    assert docs.upsert(["a", "b"], np.ones((2, 2)), [{"n": 1}, {}], ["x", None], idempotency_key="key") == first
    for again in (
        lambda: docs.upsert(["a", "c"], np.ones((2, 2)), [{"n": 1}, {}], ["x", None], idempotency_key="key"),
        lambda: docs.upsert(["a", "b"], [[1, 1], [1, 2]], [{"n": 1}, {}], ["x", None], idempotency_key="key"),
        lambda: docs.upsert(["a", "b"], np.ones((2, 2)), [{"n": 2}, {}], ["x", None], idempotency_key="key"),
        lambda: docs.upsert(["a", "b"], np.ones((2, 2)), [{"n": 1}, {}], ["y", None], idempotency_key="key"),
        lambda: docs.upsert(["a", "b"], np.ones((2, 2)), [{"n": 1}, {}], [None, "x"], idempotency_key="key"),
        lambda: docs.update(["a", "b"], np.ones((2, 2)), [{"n": 1}, {}], ["x", None], idempotency_key="key"),
        lambda: docs.delete(["a", "b"], idempotency_key="key"),
        lambda: docs.update_metadata(["a", "b"], set={"n": 1}, idempotency_key="key"),
    ):
        with pytest.raises(errors.FailedPrecondition, match="idempotency_key 'key' was another call's") as caught:
            again()
        assert caught.value.idempotency_key == "key"
    assert (docs.stats().version, docs.count()) == (first.version, 2)
    assert docs.update_metadata(["a"], set={"n": 3}, unset="m", idempotency_key="changed") == 1
    assert docs.update_metadata(["a"], set={"n": 3}, unset="m", idempotency_key="changed") == 1
    with pytest.raises(errors.FailedPrecondition, match="changed"):
        docs.update_metadata(["a"], set={"n": 3}, unset="o", idempotency_key="changed")
    assert docs.delete(where=col("n") >= 3, idempotency_key="deleted") == 1
    assert docs.delete(where=col("n") >= 3, idempotency_key="deleted") == 1
    with pytest.raises(errors.FailedPrecondition, match="deleted"):
        docs.delete(where=col("n") >= 2, idempotency_key="deleted")


def test_the_line_that_made_a_collection_opens_it_after_a_reindex(db: Any, docs: Any) -> None:
    docs.reindex(index={"kind": "hnsw", "m": 8}, quantization="sq8")
    again = db.create_collection("docs", 2, exist_ok=True)
    assert (again.index.kind, again.quantization.kind) == ("hnsw", "sq8")
    same = db.create_collection("docs", 2, index={"kind": "hnsw", "m": 8}, quantization="sq8", exist_ok=True)
    assert same.config == again.config
    for other, name in (
        ({"index": "flat"}, "index"),
        ({"index": {"kind": "hnsw", "m": 9}}, "index"),
        ({"quantization": "pq"}, "quantization"),
        ({"merge_factor": 5}, "merge_factor"),
        ({"metric": "l2"}, "metric"),
        ({"fields": {"n": "int"}}, "fields"),
        ({"analyzer": "english"}, "analyzer"),
    ):
        with pytest.raises(errors.FailedPrecondition, match=name) as caught:
            db.create_collection("docs", 2, exist_ok=True, **other)
        assert caught.value.differences == [name]
    with pytest.raises(errors.FailedPrecondition, match="dim"):
        db.create_collection("docs", 3, exist_ok=True)


def test_integers_of_numpy_are_integers(db: Any, docs: Any) -> None:
    docs.upsert(["a", "b", "c"], np.ones((3, 2)), texts=["word"] * 3)
    two = np.int64(2)
    assert len(docs.search([1, 1], limit=two)) == len(docs.search_text("word", limit=two)) == 2
    assert len(docs.search_batch([[1, 1]], limit=np.int32(2))[0]) == len(docs.search([1, 1], np.uint8(2))) == 2
    assert [record.id for record in docs.scan(page_size=two)] == ["a", "b", "c"]
    assert docs.bulk_upsert(({"id": str(i)} for i in range(3)), batch_size=two, progress=False).count == 3
    assert docs.upsert(["a"], [[1, 0]], if_version=np.int64(1)).count == 1
    other = db.create_collection("other", dim=two, merge_factor=np.int64(3))
    assert (other.dim, type(other.dim), other.config.tuning.merge_factor) == (2, int, 3)
    db.delete_collection("other")
    assert len(docs.search([1, 1], exact=np.bool_(True), min_score=np.float32(0.5))) == 3


def test_a_database_tells_and_lists_its_collections(db: Any, docs: Any) -> None:
    assert "docs" in db
    assert "dogs" not in db
    assert 5 not in db
    assert list(db) == db.list_collections() == ["docs"]


FRAME = pd.DataFrame(
    {
        "id": [f"r{i}" for i in range(2_500)],
        "vector": [[1.0, float(i)] for i in range(2_500)],
        "text": [None if i == 1 else f"word{i}" for i in range(2_500)],
        "metadata": [{"n": i} for i in range(2_500)],
    }
)


@pytest.mark.parametrize("write", ["upsert", "bulk_upsert"])
@pytest.mark.parametrize(
    "made", [lambda f: f, pa.Table.from_pandas, pa.RecordBatch.from_pandas], ids=["df", "table", "batch"]
)
def test_tables_are_written_as_records(docs: Any, write: str, made: Any) -> None:
    table = made(FRAME)
    written = docs.upsert(table) if write == "upsert" else docs.bulk_upsert(table, progress=False)
    assert (written.count, written.ids[0], written.ids[-1]) == (2_500, "r0", "r2499")
    last, second = docs.get(["r2499", "r1"], include=("metadata", "text", "vector"))
    assert (last.metadata, last.text, list(last.vector)) == ({"n": 2499}, "word2499", [1.0, 2499.0])
    assert second.text is None


@pytest.mark.parametrize("seconds", [float("inf"), 1e300, 1e10], ids=str)
def test_a_timeout_of_any_length_is_a_timeout(docs: Any, seconds: float) -> None:
    # Longer than a lock can be waited for; the write was done, and then Python's OverflowError said that it was not.
    assert docs.upsert(["a", "b"], [[1, 0], [0, 1]], timeout=seconds).count == 2
    assert docs.update_metadata(["a"], set={"n": 1}, timeout=seconds) == 1
    assert docs.search([1, 0], limit=1, timeout=seconds).ids == ["a"]
    assert docs.delete(["a"], timeout=seconds) == 1
    assert docs.delete(["b"], erase=True, timeout=seconds) == 1


def test_a_search_says_which_options_it_has(docs: Any) -> None:
    for call in (docs.search_batch, docs.explain):
        with pytest.raises(TypeError, match="a search has no argument 'bogus'; its options are where, filter_mode"):
            call([[1.0, 0.0]], bogus=1)
