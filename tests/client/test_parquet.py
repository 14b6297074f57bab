"""Collections to Parquet and back, and files of other origin."""

from __future__ import annotations

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
