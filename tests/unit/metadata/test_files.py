"""The postings file: small, mapped, and refused as soon as anything about it is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vectordb.encoding import encode_metadata
from vectordb.errors import Corruption
from vectordb.filter import col
from vectordb.metadata.evaluate import evaluate
from vectordb.metadata.postings import Postings

ROWS = [{"i": i % 9, "s": f"s{i % 5}", "l": [i, "x"], "f": i / 3} for i in range(100)] + [{"i": None}]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Postings.build([encode_metadata(row) for row in ROWS]).save(tmp_path / "p")
    return tmp_path / "p"


def test_reopened_arrays_are_mapped_read_only_and_equal(path: Path) -> None:
    reopened = Postings.open(path)
    built = Postings.build([encode_metadata(row) for row in ROWS])
    assert reopened.memory_bytes == built.memory_bytes
    field = reopened.field("i")
    assert field is not None
    for column in field.columns():
        assert not column.rows.flags.writeable
        assert column.rows.base is not None
    again = path.with_name("again")
    reopened.save(again)
    assert again.read_bytes() == path.read_bytes()


def test_no_rows_and_no_fields(tmp_path: Path) -> None:
    for name, rows in (("none", []), ("empty", [b""] * 3)):
        Postings.build(rows).save(tmp_path / name)
        reopened = Postings.open(tmp_path / name)
        assert reopened.n == len(rows)
        assert len(evaluate(col("a").is_null(), reopened)) == len(rows)


def test_every_truncation_is_refused(path: Path) -> None:
    content = path.read_bytes()
    for length in [*range(0, 200, 7), *range(200, len(content) - 1, 997), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(Corruption, match=r"p is damaged"):
            Postings.open(path)


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the directory and keeps the arrays where they are."""
    content = path.read_bytes()
    end = 16 + int.from_bytes(content[8:16], "little")
    header = json.loads(content[16:end])
    change(header)
    directory = json.dumps(header).encode()
    body = content[end + -end % 64 :]
    head = content[:8] + len(directory).to_bytes(8, "little") + directory
    path.unlink()
    path.write_bytes(head + bytes(-len(head) % 64) + body)


def set_at(*steps: Any) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        node: Any = header
        for step in steps[:-2]:
            node = node[step]
        node[steps[-2]] = steps[-1]

    return change


INTS = ("fields", "i", "scalars", "int")


@pytest.mark.parametrize(
    "change",
    [
        set_at("n", -1),
        set_at("n", "many"),
        set_at("n", 2**40),
        set_at("size", 1),
        set_at("fields", []),
        set_at("fields", {"i": 1}),
        set_at("unindexed", 5),
        set_at("fields", "i", "nulls", ["<u4", 0, -1]),
        set_at("fields", "i", "nulls", ["<u4", -64, 1]),
        set_at("fields", "i", "nulls", ["<u4", 1, 1]),
        set_at("fields", "i", "nulls", ["<u4", 0, 10**12]),
        set_at("fields", "i", "nulls", ["O", 0, 1]),
        set_at("fields", "i", "nulls", ["<u4", 0.0, 1]),
        set_at("fields", "i", "scalars", {"complex": {}}),
        set_at(*INTS, "ptr", ["<u4", 0, 3]),
        set_at(*INTS, "keys", ["<f8", 0, 9]),
        set_at(*INTS, {}),
    ],
)
def test_a_directory_that_lies_is_refused_at_opening(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    rewritten(path, change)
    with pytest.raises(Corruption, match="damaged"):
        Postings.open(path)


@pytest.mark.parametrize(
    ("array", "index", "value"),
    [
        ("rows", 0, 101),
        ("rows", 5, 2**32 - 1),
        ("ptr", 0, 1),
        ("ptr", -1, 5000),
        ("ptr", 3, 1),
        ("keys", 0, 99),
    ],
)
def test_arrays_out_of_bounds_are_refused_at_first_use(path: Path, array: str, index: int, value: int) -> None:
    content = bytearray(path.read_bytes())
    end = 16 + int.from_bytes(content[8:16], "little")
    dtype, offset, count = json.loads(content[16:end])["fields"]["i"]["scalars"]["int"][array]
    start = end + -end % 64 + offset
    stored = np.frombuffer(content, dtype=dtype, count=count, offset=start)
    stored[index] = value
    path.unlink()
    path.write_bytes(content)
    postings = Postings.open(path)
    assert len(evaluate(col("s") == "s1", postings)) == 20
    for _ in range(2):
        with pytest.raises(Corruption, match="field 'i'"):
            evaluate(col("i") == 1, postings)


def test_not_a_postings_file(tmp_path: Path) -> None:
    for content in (b"", b"VDBPOST1", b"something else entirely" * 10, b"VDBPOST1" + b"\xff" * 100):
        (tmp_path / "f").write_bytes(content)
        with pytest.raises(Corruption):
            Postings.open(tmp_path / "f")
