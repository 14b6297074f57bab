"""Collections to Parquet and back, and files of other origin."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from vectordb import errors
from vectordb_client import connect
from vectordb_client.parquet import Columns, export_parquet, import_parquet

WHEN = datetime(2026, 1, 31, 12, 0, 0, 5, tzinfo=UTC)
METADATA: list[dict[str, Any]] = [
    {"year": 2**62 + 1, "share": 0.1, "tags": ["a", 1, None], "deep": {"when": WHEN}, "ok": True},
    {},
    {"text": "ünï\n"},
]
LOOKALIKES: list[dict[str, Any]] = [
    {"$datetime": "2026-01-31T12:00:00Z"},
    {"a": {"$datetime": "2026-01-31T12:00:00Z"}, "b": {"$datetime": "soon"}, "c": [WHEN]},
    {"a": {"$dict": {"$datetime": "2026-01-31T12:00:00Z"}}, "b": {"$dict": {}}, "c": {"$dict": WHEN}},
]


def test_there_and_back(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    with connect(":memory:") as db:
        docs = db.create_collection(
            "docs", 4, metric="l2", index={"kind": "hnsw", "m": 8}, fields={"year": "int"}, seal_bytes=12345
        )
        docs.upsert(["a", "b", "c"], [vectors[0], vectors[1], None], METADATA, ["one", None, ""])
        assert export_parquet(docs, tmp_path / "docs.parquet") == 3
        assert export_parquet(docs, tmp_path / "some.parquet", where={"field": "year", "op": "exists"}) == 1
        config = docs.config
        records = list(docs.scan(include=("metadata", "text", "vector")))
    with connect(":memory:") as db:
        back = import_parquet(db, tmp_path / "docs.parquet")
        assert back.config == config
        found = list(back.scan(include=("metadata", "text", "vector")))
        for old, new in zip(records, found, strict=True):
            assert (new.id, new.metadata, new.text) == (old.id, old.metadata, old.text)
            assert np.array_equal(new.vector, old.vector) if old.vector is not None else new.vector is None
        other = import_parquet(db, tmp_path / "some.parquet", "other")
        assert (other.name, other.count()) == ("other", 1)
        again = import_parquet(db, tmp_path / "docs.parquet")
        assert again.count() == 3


def test_dicts_that_look_like_datetimes_stay_dicts(tmp_path: Path) -> None:
    with connect(":memory:") as db:
        docs = db.create_collection("docs", 2)
        docs.upsert(["a", "b", "c"], metadata=LOOKALIKES)
        export_parquet(docs, tmp_path / "docs.parquet")
        back = import_parquet(db, tmp_path / "docs.parquet", "back")
        assert [record.metadata for record in back.scan()] == LOOKALIKES


@pytest.mark.parametrize("pandas_there", [True, False])
def test_instants_finer_than_microseconds_are_cut(tmp_path: Path, pandas_there: bool) -> None:
    """As of numpy's. Without pandas arrow alone has no Python value for them."""
    code = f"""
import sys
class NoPandas:
    def find_spec(self, name, path=None, target=None):
        if name == "pandas":
            raise ImportError(name)
if not {pandas_there}:
    sys.meta_path.insert(0, NoPandas())
import pyarrow, pyarrow.parquet
from vectordb_client import connect
from vectordb_client.parquet import import_parquet
moments = pyarrow.array([1_700_000_000_123_456_789, None], pyarrow.timestamp("ns"))
table = pyarrow.table({{"t": moments, "l": [[1, 2], None], "s": [{{"t": 1}}, None]}})
table = table.set_column(1, "l", table["l"].cast(pyarrow.list_(pyarrow.timestamp("ns"))))
table = table.set_column(2, "s", table["s"].cast(pyarrow.struct([("t", pyarrow.timestamp("ns"))])))
pyarrow.parquet.write_table(table.append_column("id", [["a", "b"]]), "f.parquet")
with connect(":memory:") as db:
    docs = db.create_collection("docs", 2)
    import_parquet(db, "f.parquet", "docs")
    docs.upsert(["c", "d"], metadata=table)
    for record in docs.get(["a", "c"]):
        found = record.metadata
        print(found["t"].isoformat(), found["l"][1].microsecond, found["s"]["t"].microsecond)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert told.stdout.splitlines() == ["2023-11-14T22:13:20.123456+00:00 0 0"] * 2, told.stderr


STRANGE: dict[str, tuple[dict[str, Any], str]] = {
    "numbers": ({"vector": [1.0, 2.0]}, "column 'vector' holds double, not lists"),
    "text": ({"vector": ["[1, 2]", "[3, 4]"]}, "column 'vector' holds string, not lists"),
    "dicts": ({"vector": [{"x": 1.0}, {"x": 2.0}]}, "column 'vector' holds struct"),
    "year": ({"t": pyarrow.array([10**12, 1], pyarrow.timestamp("s"))}, "metadata cannot be read.*years 1 to 9999"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_a_file_of_other_origin_cannot_hold_is_named(tmp_path: Path, name: str) -> None:
    columns, told = STRANGE[name]
    pyarrow.parquet.write_table(pyarrow.table({"id": ["a", "b"], **columns}), tmp_path / "foreign.parquet")
    with connect(":memory:") as db:
        docs = db.create_collection("docs", 2)
        with pytest.raises(errors.InvalidArgument, match=told):
            import_parquet(db, tmp_path / "foreign.parquet", "docs")
        if name == "year":
            with pytest.raises(errors.InvalidArgument, match=told):
                docs.upsert(["a", "b"], metadata=pyarrow.table(columns))
        assert docs.count() == 0


def test_two_columns_of_one_name_are_named(tmp_path: Path) -> None:
    names = pyarrow.array(["a", "b"])
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays([names] * 3, ["id", "n", "n"]), tmp_path / "foreign.parquet")
    with connect(":memory:") as db:
        db.create_collection("docs", 2)
        with pytest.raises(errors.InvalidArgument, match="more than one column 'n'"):
            import_parquet(db, tmp_path / "foreign.parquet", "docs")


def test_an_exported_file_that_was_changed_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "docs.parquet"
    with connect(":memory:") as db:
        docs = db.create_collection("docs", 2)
        docs.upsert(["a", "b"], [[1, 0], [0, 1]], [{"n": 1}, {"n": 2}])
        export_parquet(docs, path)
        whole = pyarrow.parquet.read_table(path)
        changed = [(whole.drop([name]), f"has not one column '{name}'") for name in whole.column_names]
        changed += [
            (whole.set_column(1, "vector", [["a", "b"]]), "column 'vector' holds string"),
            (whole.set_column(2, "metadata", [[1, 2]]), "column 'metadata' holds int64, not JSON"),
            (whole.replace_schema_metadata({"vectordb.collection": b"\xff"}), "collection cannot be read"),
        ]
        for table, told in changed:
            pyarrow.parquet.write_table(table, path)
            with pytest.raises(errors.InvalidArgument, match=told):
                import_parquet(db, path, "changed")
        assert db.list_collections() == ["docs"]
        pyarrow.parquet.write_table(whole.set_column(2, "metadata", [["{}", "{"]]), path)
        with pytest.raises(errors.InvalidArgument, match="metadata in row 1 is no JSON"):
            import_parquet(db, path, "changed")


@pytest.mark.parametrize("path", [None, 5, b"x", "", ".", "/", "a\0b"])
def test_what_names_no_file_is_told(path: Any) -> None:
    with connect(":memory:") as db:
        docs = db.create_collection("docs", 2)
        with pytest.raises(errors.InvalidArgument, match="path names a file"):
            export_parquet(docs, path)
        with pytest.raises(errors.InvalidArgument, match="path names a file"):
            import_parquet(db, path)


def test_a_file_of_other_origin(tmp_path: Path) -> None:
    table = pyarrow.table(
        {
            "key": ["x", "y"],
            "emb": pyarrow.array([[1.0, 2.0], [3.0, 4.0]], pyarrow.list_(pyarrow.float64())),
            "body": ["first", None],
            "year": [1999, None],
            "tags": [["a"], ["b", "c"]],
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "foreign.parquet")
    with connect(":memory:") as db:
        db.create_collection("docs", 2, metric="dot")
        docs = import_parquet(db, tmp_path / "foreign.parquet", "docs", Columns("key", "emb", "body"))
        first, second = docs.get(["x", "y"], include=("metadata", "text", "vector"))
        assert first.vector is not None
        assert (first.vector.tolist(), first.text, first.metadata) == ([1, 2], "first", {"year": 1999, "tags": ["a"]})
        assert (second.text, second.metadata) == (None, {"tags": ["b", "c"]})
        with pytest.raises(errors.InvalidArgument, match=r"no column 'vec'.*key, emb"):
            import_parquet(db, tmp_path / "foreign.parquet", "docs", Columns(vector="vec"))
        with pytest.raises(errors.InvalidArgument, match="name a collection"):
            import_parquet(db, tmp_path / "foreign.parquet")
        with pytest.raises(errors.CollectionNotFound):
            import_parquet(db, tmp_path / "foreign.parquet", "missing")


def test_a_failed_export_leaves_no_file(tmp_path: Path) -> None:
    with connect(":memory:") as db:
        docs = db.create_collection("docs", 2)
        with pytest.raises(errors.InvalidFilter):
            export_parquet(docs, tmp_path / "docs.parquet", where={"field": "a", "op": "?"})
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_parquet_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("id,vector\n")
    with connect(":memory:") as db, pytest.raises(errors.InvalidArgument, match=r"notes\.txt' is no Parquet file"):
        import_parquet(db, path)


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with connect(":memory:") as db, pytest.raises(errors.FailedPrecondition, match=r"vectordb-engine\[parquet\]"):
        export_parquet(db.create_collection("docs", 2), tmp_path / "docs.parquet")


@pytest.mark.parametrize("name", ["folder", "file/docs.parquet", "missing/docs.parquet"])
def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    with connect(":memory:") as db, pytest.raises(errors.FailedPrecondition, match=rf"{name}' cannot be written"):
        export_parquet(db.create_collection("docs", 2), tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "docs.parquet"
    with connect(":memory:") as db:
        docs = db.create_collection("docs", 16)
        docs.upsert([f"r{n}" for n in range(3_000)], np.random.default_rng(1).standard_normal((3_000, 16)))
        export_parquet(docs, path)
        whole = path.read_bytes()
        for place in range(100, len(whole) * 9 // 10, len(whole) // 9):
            # Without checksums of pages some of these are read as other records.
            path.write_bytes(whole[:place] + bytes(50) + whole[place + 50 :])
            with pytest.raises(errors.InvalidArgument, match=r"docs\.parquet' is no Parquet file that can be read"):
                import_parquet(db, path, "damaged")
        for missing in (tmp_path / "missing.parquet", tmp_path):
            with pytest.raises(errors.InvalidArgument, match="is no Parquet file that can be read"):
                import_parquet(db, missing)
