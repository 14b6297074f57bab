"""Every operator in every place that has to know it. The examples are those of the README's table."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from vectordb.encoding import decode_metadata, encode_metadata
from vectordb.filter import Condition, Filter, Op, col
from vectordb.filter.reference import matches
from vectordb.metadata.estimate import estimate
from vectordb.metadata.evaluate import evaluate
from vectordb.metadata.postings import Postings
from vectordb.server.slow_log import shape
from vectordb.types import FieldSpec, FieldType
from vectordb.validate import check_filter
from vectordb.wire.filters import filter_from_message, filter_to_message
from vectordb_proto.v1 import filter_pb2

README = Path(__file__).resolve().parents[3] / "README.md"
EXAMPLES: dict[str, tuple[str, dict[str, Any]]] = {
    json.loads(row[2])["op"]: (row[1], json.loads(row[2]))
    for row in re.finditer(r"^\| `(col\(.+)` \| `(\{.+\})` \| .+ \|$", README.read_text(), re.MULTILINE)
}
ROWS: list[dict[str, Any]] = [
    {},
    *({"year": year, "lang": "de", "tags": ["silent"]} for year in (2022, 2023, 2024, 2025, 2023.5, None, [2024], "x")),
    *({"lang": lang} for lang in ("de", "deu", "d", "", "en", "xde", ["de"], None)),
    *({"tags": tags} for tags in ("silent", ["old", "silent"], ["old"], [], None)),
]


def by_json(op: Op) -> Condition:
    tree = Filter.from_json(EXAMPLES[op][1])
    assert isinstance(tree, Condition)
    return tree


def test_the_readme_has_every_operator() -> None:
    assert list(EXAMPLES.keys() - set(Op)) == []
    assert list(set(Op) - EXAMPLES.keys()) == []


@pytest.mark.parametrize("op", Op)
def test_by_col(op: Op) -> None:
    built = eval(EXAMPLES[op][0], {"col": col})
    assert built == by_json(op)
    assert eval(repr(built), {"col": col}) == built


@pytest.mark.parametrize("op", Op)
def test_as_json(op: Op) -> None:
    assert by_json(op).op is op
    assert by_json(op).to_json() == EXAMPLES[op][1]


@pytest.mark.parametrize("op", Op)
def test_as_a_message(op: Op) -> None:
    message = filter_pb2.Filter()
    filter_to_message(by_json(op), message)
    # As the protocol says: none, one, or each by itself.
    value = EXAMPLES[op][1].get("value", [])
    assert len(message.condition.values) == (len(value) if isinstance(value, list) else 1)
    assert filter_from_message(message) == by_json(op)


@pytest.mark.parametrize("op", Op)
def test_evaluated_as_the_reference_says(op: Op) -> None:
    tree, encoded = by_json(op), [encode_metadata(row) for row in ROWS]
    expected = {i for i, data in enumerate(encoded) if matches(tree, decode_metadata(data))}
    assert 0 < len(expected) < len(ROWS)
    postings = Postings.build(encoded)
    assert set(evaluate(tree, postings)) == expected
    found = estimate(tree, postings)
    assert found.low <= len(expected) <= found.high
    # Without the field at all.
    bare = Postings.build([encode_metadata({"other": 1})])
    assert set(evaluate(tree, bare)) == ({0} if matches(tree, {"other": 1}) else set())
    assert estimate(tree, bare).low <= len(evaluate(tree, bare)) <= estimate(tree, bare).high


@pytest.mark.parametrize("op", Op)
def test_on_a_declared_field(op: Op) -> None:
    declared = {
        "year": FieldSpec(FieldType.INT),
        "lang": FieldSpec(FieldType.KEYWORD),
        "tags": FieldSpec(FieldType.KEYWORD),
    }
    check_filter(by_json(op), declared)


@pytest.mark.parametrize("op", Op)
def test_in_the_slow_log(op: Op) -> None:
    told = shape(by_json(op))
    assert told.startswith(f"{by_json(op).field} {op}")
    assert ("?" in told) == ("value" in EXAMPLES[op][1])
