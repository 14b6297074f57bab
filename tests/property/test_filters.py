"""Random filter trees on random metadata: every evaluator agrees with the reference, every estimate holds."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vectordb.encoding import decode_metadata, encode_metadata
from vectordb.errors import Corruption, InvalidFilter
from vectordb.filter import And, Condition, Filter, Not, Op, Or, lookup, matches
from vectordb.metadata.estimate import estimate
from vectordb.metadata.evaluate import evaluate
from vectordb.metadata.overlay import OverlayLog
from vectordb.metadata.postings import Postings, orderable
from vectordb.metadata.rowset import RowSet
from vectordb.metadata.runs import MetadataRuns
from vectordb.validate import check_metadata

# Few distinct values, so that conditions hit: neighbours of 2**53 that floats cannot tell apart, the ends of int64,
# equal numbers of both kinds, strings that are prefixes of each other or differ after many words.
_EDGE = 2**53
_NUMBERS = [0, -0.0, 1, 1.0, 1.5, -3, _EDGE - 1, _EDGE, _EDGE + 1, float(_EDGE), float(_EDGE + 2), -_EDGE - 1]
_NUMBERS += [2**63 - 1, -(2**63), float(2**63), -float(2**63), 1e300, -1e300, 5e-324, 2**62 + 1, float(2**62)]
_LONG = "https://example.org/a/long/path/" * 5
_STRINGS = [
    "",
    "a",
    "a\0",
    "ab",
    "abc",
    "abcdefgh",
    "abcdefgh\0",
    "b",
    "é",
    "日本",
    "\U0001f600",
    "\uffff",
    "1",
    "true",
]
_STRINGS += [_LONG, _LONG + "a", _LONG + "b", _LONG[:-1]]
_MOMENT = datetime(2026, 1, 31, 12, tzinfo=UTC)
_DATETIMES = [
    _MOMENT,
    _MOMENT + timedelta(microseconds=1),
    _MOMENT.replace(tzinfo=None),
    _MOMENT.astimezone(timezone(timedelta(hours=5))),
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999999),
]
_PATHS = ["a", "b", "c", "c.x", "c.y", "c.y.z", "nope", "a.x"]

scalars = st.sampled_from([*_NUMBERS, *_STRINGS, *_DATETIMES, True, False])
lists = st.lists(st.one_of(scalars, st.none()), max_size=3)
leaves = st.one_of(scalars, scalars, st.none(), lists)
maps = st.fixed_dictionaries(
    {},
    optional={
        "a": leaves,
        "b": leaves,
        "c": st.one_of(
            leaves,
            st.fixed_dictionaries({}, optional={"x": leaves, "y": st.fixed_dictionaries({}, optional={"z": leaves})}),
        ),
    },
)


@st.composite
def conditions(draw: st.DrawFn) -> Filter:
    field = draw(st.sampled_from(_PATHS))
    op = draw(st.sampled_from(list(Op)))
    value: Any = None
    if op in (Op.EQ, Op.NE):
        value = draw(st.one_of(scalars, st.lists(scalars, max_size=3)))
    elif op in (Op.IN, Op.NOT_IN):
        value = draw(st.lists(scalars, max_size=12))
    elif op is Op.BETWEEN:
        pool = draw(st.sampled_from([_NUMBERS, _STRINGS, _DATETIMES, [True, False]]))
        value = draw(st.tuples(st.sampled_from(pool), st.sampled_from(pool)))
    elif op is Op.STARTS_WITH:
        value = draw(st.sampled_from(_STRINGS))
    elif op not in (Op.IS_NULL, Op.EXISTS):
        value = draw(scalars)
    return Condition(field, op, value)


trees = st.recursive(
    conditions(),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda c: And(tuple(c))),
        st.lists(inner, min_size=1, max_size=3).map(lambda c: Or(tuple(c))),
        inner.map(Not),
    ),
    max_leaves=6,
)
records = st.lists(maps, max_size=40)
quick = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def encoded(rows: list[dict[str, Any]]) -> list[bytes]:
    return [encode_metadata(row) for row in rows]


def truth(tree: Filter, rows: list[dict[str, Any]]) -> set[int]:
    # As decoded: what evaluators see has been through the encoding.
    return {i for i, data in enumerate(encoded(rows)) if matches(tree, decode_metadata(data))}


def agrees(tree: Filter, postings: Postings, rows: list[dict[str, Any]]) -> None:
    expected = truth(tree, rows)
    assert postings.n == len(rows)
    assert set(evaluate(tree, postings)) == expected
    found = estimate(tree, postings)
    assert 0 <= found.low <= len(expected) <= found.high <= len(rows)
    assert found.low <= found.expected <= found.high


def values_agree(postings: Postings, rows: list[dict[str, Any]]) -> None:
    asked = np.arange(len(rows))[::-1].copy()
    for path in _PATHS:
        expected = [orderable(lookup(decode_metadata(encode_metadata(rows[i])), path)) for i in asked.tolist()]
        found = postings.values(path, asked)
        assert found == expected
        assert list(map(type, found)) == list(map(type, expected))


@quick
@given(rows=records, tree=trees)
def test_built_postings_agree_with_the_reference(rows: list[dict[str, Any]], tree: Filter) -> None:
    for row in rows:
        check_metadata(decode_metadata(encode_metadata(row)))
    postings = Postings.build(encoded(rows))
    agrees(tree, postings, rows)
    values_agree(postings, rows)


@quick
@given(parts=st.lists(records, min_size=1, max_size=4), tree=trees, data=st.data())
def test_merged_postings_agree_whatever_rows_are_dropped(
    parts: list[list[dict[str, Any]]], tree: Filter, data: st.DataObject
) -> None:
    kept = [
        data.draw(st.permutations(range(len(part))).flatmap(lambda p: st.integers(0, len(p)).map(lambda k: p[:k])))
        for part in parts
    ]
    merged = Postings.merge(
        [(Postings.build(encoded(part)), np.array(k, dtype=np.int64)) for part, k in zip(parts, kept, strict=True)]
    )
    rows = [part[i] for part, k in zip(parts, kept, strict=True) for i in k]
    agrees(tree, merged, rows)
    values_agree(merged, rows)
    again = Postings.build(encoded(rows))
    assert merged.paths() == again.paths()
    assert merged.memory_bytes == again.memory_bytes


@quick
@given(rows=records, tree=trees)
def test_saved_and_reopened_postings_agree(
    rows: list[dict[str, Any]], tree: Filter, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "postings"
    path.unlink(missing_ok=True)
    Postings.build(encoded(rows)).save(path)
    reopened = Postings.open(path)
    agrees(tree, reopened, rows)
    values_agree(reopened, rows)


@quick
@given(batches=st.lists(st.tuples(records, st.integers(1, 40)), min_size=1, max_size=5), tree=trees, data=st.data())
def test_runs_agree_at_every_length(
    batches: list[tuple[list[dict[str, Any]], int]], tree: Filter, data: st.DataObject
) -> None:
    log = MetadataRuns()
    rows: list[dict[str, Any]] = []
    views = [log.view(0)]
    for batch, repeats in batches:
        log.append(encoded(batch * repeats))
        rows += batch * repeats
        views.append(log.view(data.draw(st.integers(0, len(rows)))))
        if data.draw(st.booleans()):
            views[-1].matching(tree)
    for view in views:
        seen = rows[: view.n]
        expected = truth(tree, seen)
        assert set(view.matching(tree)) == expected
        found = view.estimate(tree)
        assert found.low <= len(expected) <= found.high <= len(seen)
        assert found.low <= found.expected <= found.high
        asked = np.arange(len(seen))
        wanted = [orderable(lookup(decode_metadata(encode_metadata(row)), "a")) for row in seen]
        assert view.values("a", asked) == wanted
    agrees(tree, views[-1].postings(), rows[: views[-1].n])


@quick
@given(
    rows=st.lists(maps, min_size=1, max_size=30),
    changes=st.lists(st.lists(st.tuples(st.integers(0, 10**6), maps), max_size=80), max_size=4),
    tree=trees,
)
def test_overlays_correct_every_answer_at_every_version(
    rows: list[dict[str, Any]], changes: list[list[tuple[int, dict[str, Any]]]], tree: Filter
) -> None:
    base = Postings.build(encoded(rows))
    log = OverlayLog()
    states = [(0, list(rows), [0] * len(rows), log.at(0))]
    for version, change in enumerate(changes, 1):
        state, versions = list(states[-1][1]), list(states[-1][2])
        for row, metadata in change:
            state[row % len(rows)] = metadata
            versions[row % len(rows)] = version
        log.append([row % len(rows) for row, _ in change], version, encoded([m for _, m in change]))
        states.append((version, state, versions, log.at(version)))
        now = states[-1][3]
        if version % 2 and now is not None:
            now.correct(tree, evaluate(tree, base))
    asked = np.arange(len(rows))
    for version, state, versions, early in states:
        # A view made at the time and one made after later changes see the same.
        for view in (early, log.at(version)):
            if view is None:
                assert not any(versions)
                continue
            expected = truth(tree, state)
            assert set(view.correct(tree, evaluate(tree, base))) == expected
            for n in (None, len(rows)):
                found = view.correct_estimate(tree, estimate(tree, base), n)
                assert found.low <= len(expected) <= found.high
                assert found.low <= found.expected <= found.high
            assert view.versions(asked, np.zeros(len(rows), np.uint64)).tolist() == versions
            assert view.entries(np.tile(asked, 70)).tolist() == view.entries(asked).tolist() * 70
            assert view.count == sum(v > 0 for v in versions)
            wanted = [orderable(lookup(decode_metadata(encode_metadata(row)), "a")) for row in state]
            assert view.values("a", asked, base.values("a", asked)) == wanted
            agrees(tree, view.folded(base), state)


@quick
@given(tree=trees)
def test_json_and_pickle_give_back_an_equal_tree(tree: Filter) -> None:
    text = json.dumps(tree.to_json())
    for again in (Filter.from_json(text), Filter.from_json(json.loads(text)), pickle.loads(pickle.dumps(tree))):
        assert again == tree
        assert hash(again) == hash(tree)
        assert again.to_json() == tree.to_json()


@quick
@given(tree=trees, rows=records)
def test_negation_is_the_exact_complement(tree: Filter, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert matches(~tree, row) is not matches(tree, row)


json_like = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(["and", "field", "==", "in", "a"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["and", "or", "not", "field", "op", "value", "$datetime"]), inner, max_size=3),
    ),
    max_leaves=10,
)


@quick
@given(source=json_like)
def test_malformed_json_is_refused_by_name(source: Any) -> None:
    try:
        tree = Filter.from_json(source)
    except InvalidFilter as refused:
        error = refused
    else:
        assert Filter.from_json(tree.to_json()) == tree
        return
    assert isinstance(error.path, str)


@pytest.fixture(scope="module")
def sound_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile") / "postings"
    rows = [
        {"a": i % 7, "b": _STRINGS[i % len(_STRINGS)], "c": {"x": [i, "t", None], "y": {"z": i / 3}}, "d": i % 2 == 0}
        for i in range(200)
    ]
    rows += [{"a": _MOMENT}, {"a": None}, {}]
    Postings.build(encoded(rows)).save(path)
    return path


@settings(max_examples=250, deadline=None)
@given(data=st.data(), tree=trees)
def test_hostile_files_raise_corruption_and_never_crash(sound_file: Path, data: st.DataObject, tree: Filter) -> None:
    content = bytearray(sound_file.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    for _ in range(data.draw(st.integers(0, 8))):
        if content:
            # Half of the damage goes to the directory, where the structure is.
            end = len(content) if data.draw(st.booleans()) else min(len(content), 3000)
            content[data.draw(st.integers(0, end - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = sound_file.with_name("hostile")
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    try:
        postings = Postings.open(path)
        found = evaluate(tree, postings)
        assert isinstance(found, RowSet)
        assert not found or found.max() < max(postings.n, 1)
        estimate(tree, postings)
        postings.values("b", np.arange(min(postings.n, 10)))
        Postings.merge([(postings, np.arange(min(postings.n, 1000)))])
    except Corruption as refused:
        error = refused
    else:
        return
    assert str(path) in error.message
