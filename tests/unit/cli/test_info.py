"""``vectordb info``: the facts, and their table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vectordb.cli import info
from vectordb.errors import NotFound
from vectordb_client import connect


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536 << 10, "1.5 MiB"),
        (3 << 30, "3.0 GiB"),
        (5 << 40, "5.0 TiB"),
    ],
)
def test_size(count: int, text: str) -> None:
    assert info.size(count) == text


def test_table_aligns() -> None:
    assert info.table([("name", "n"), ("a", "1,000"), ("longer", "5")]) == [
        "name        n",
        "a       1,000",
        "longer      5",
    ]


def test_facts_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "db")
    with connect(folder) as db:
        db.create_collection("films", dim=2, metric="l2").upsert(["a", "b"], [[1, 2], [3, 4]])
        db.create_collection("empty", dim=3)
    facts = info.describe(folder)
    films = next(one for one in facts["collections"] if one["name"] == "films")
    assert (films["rows"], films["dim"], films["metric"], films["version"]) == (2, 2, "l2", 1)
    info.command(folder, None, True)
    again = json.loads(capsys.readouterr().out)
    # Sizes on disk change with every opening.
    assert again.keys() == facts.keys()
    assert [(one["name"], one["rows"], one["index"]) for one in again["collections"]] == [
        ("empty", 0, {"kind": "auto"}),
        ("films", 2, {"kind": "auto"}),
    ]
    info.command(folder, None, False)
    table = capsys.readouterr().out.splitlines()
    assert table[1].startswith("memory under no limit: storage ")
    assert table[2].split()[:4] == ["collection", "rows", "deleted", "dim"]
    assert [line.split()[0] for line in table[3:]] == ["empty", "films"]


def test_no_database_is_made(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no database"):
        info.describe(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
