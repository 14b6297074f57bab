"""Every operation, in any order, against a dict and brute force: embedded on a folder, in memory, and served.

Vectors are small integers, so that equal scores are common and their order by id is put to the test.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

import vectordb
from vectordb import col, errors
from vectordb.filter import Filter, matches
from vectordb.metric import Metric, distances, prepared, scores
from vectordb.types import IndexSpec
from vectordb_client import connect

DIM = 3
_FAST = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""A folder in memory, where there is one: the disk's speed is no part of this."""
_ids = st.integers(0, 25).map(lambda n: f"id-{n:02d}")
_vectors = st.lists(st.integers(-2, 2), min_size=DIM, max_size=DIM).filter(any)
_values = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([0.5, 2.0, "a", "ab", "b"]))
_metadata = st.dictionaries(st.sampled_from(["x", "y"]), st.one_of(_values, st.lists(_values, max_size=2)), max_size=2)
_records = st.lists(
    st.tuples(_ids, st.none() | _vectors, _metadata, st.none() | st.sampled_from(["", "text"])),
    min_size=1,
    max_size=8,
    unique_by=lambda record: record[0],
)
_indexes = st.sampled_from(
    [IndexSpec("flat"), IndexSpec("hnsw"), IndexSpec("hnsw", {"m": 4, "ef_construction": 16}), IndexSpec("auto")]
)
_scalars = st.one_of(st.booleans(), st.integers(-3, 3), st.sampled_from([0.5, "a", "b"]))
_conditions = st.one_of(
    st.builds(lambda f, v: col(f) == v, st.sampled_from("xy"), _scalars),
    st.builds(lambda f, v: col(f) != v, st.sampled_from("xy"), _scalars),
    st.builds(lambda f, v: col(f) >= v, st.sampled_from("xy"), st.integers(-3, 3)),
    st.builds(lambda f, v: col(f).isin(v), st.sampled_from("xy"), st.lists(_scalars, min_size=1, max_size=3)),
    st.builds(lambda f, v: col(f).contains(v), st.sampled_from("xy"), _scalars),
    st.builds(lambda f: col(f).exists(), st.sampled_from("xy")),
    st.builds(lambda f: col(f).is_null(), st.sampled_from("xy")),
)
_filters: st.SearchStrategy[Filter] = st.recursive(
    _conditions,
    lambda inner: st.one_of(inner.map(lambda f: ~f), st.builds(lambda a, b: a & b, inner, inner)),
    max_leaves=3,
)


@dataclass(frozen=True)
class Stored:
    vector: tuple[int, ...] | None
    metadata: dict[str, Any]
    text: str | None
    version: int


class Machine(RuleBasedStateMachine):
    """One collection under all operations. Subclasses say where it lives."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[str, Stored] = {}
        self.forms: list[IndexSpec] = []  # what serves, or may after a reindex that nobody waited for
        self.version = 0
        self.start()

    def start(self) -> None:
        raise AssertionError("subclasses say")

    def restart(self) -> None:
        raise AssertionError("subclasses say")

    @initialize(metric=st.sampled_from(list(Metric)), index=st.sampled_from(["flat", "hnsw"]))
    def create(self, metric: Metric, index: str) -> None:
        self.metric = metric
        self.collection = self.db.create_collection(
            "c", DIM, metric=metric, index=index, seal_bytes=DIM * 4 * 10, merge_factor=2
        )
        self.forms = [self.collection.index]

    def _done(self, version: int) -> None:
        assert version > self.version
        self.version = version

    @rule(records=_records, mode=st.sampled_from(["upsert", "insert", "update"]))
    def write(self, records: list[Any], mode: str) -> None:
        ids = [r[0] for r in records]
        there = [i for i in ids if i in self.model]
        arguments = ids, [r[1] for r in records], [r[2] for r in records], [r[3] for r in records]
        call = getattr(self.collection, mode)
        if mode == "insert" and there:
            with pytest.raises(errors.AlreadyExists, match=there[0]):
                call(*arguments)
            return
        if mode == "update" and len(there) < len(ids):
            with pytest.raises(errors.NotFound):
                call(*arguments)
            return
        result = call(*arguments)
        assert (result.count, result.ids) == (len(ids), ids)
        self._done(result.version)
        for id_, vector, metadata, text in records:
            self.model[id_] = Stored(None if vector is None else tuple(vector), metadata, text, result.version)

    @rule(records=_records, bad=st.integers(0, 7))
    def write_with_a_bad_row(self, records: list[Any], bad: int) -> None:
        row = bad % len(records)
        vectors = np.ones((len(records), DIM))
        vectors[row, 1] = np.nan
        with pytest.raises(errors.InvalidVector) as caught:
            self.collection.upsert([r[0] for r in records], vectors)
        assert caught.value.row == row

    @rule(id_=_ids, vector=_vectors, right=st.booleans())
    def write_if_version(self, id_: str, vector: list[int], right: bool) -> None:
        now = self.model[id_].version if id_ in self.model else 0
        if not right:
            with pytest.raises(errors.FailedPrecondition):
                self.collection.upsert([id_], [vector], if_version=now + 1)
            return
        result = self.collection.upsert([id_], [vector], if_version=now)
        self._done(result.version)
        self.model[id_] = Stored(tuple(vector), {}, None, result.version)

    @rule(id_=_ids, vector=_vectors, key=st.uuids())
    def write_twice_with_one_key(self, id_: str, vector: list[int], key: Any) -> None:
        first = self.collection.upsert([id_], [vector], idempotency_key=str(key))
        self.collection.upsert([id_], [vector], [{"x": 1}])
        again = self.collection.upsert([id_], [vector], idempotency_key=str(key))
        assert again.version == first.version
        self._done(first.version + 1)
        self.model[id_] = Stored(tuple(vector), {"x": 1}, None, first.version + 1)

    def _selected(self, ids: list[str] | None, where: Filter | None) -> list[str]:
        return [
            i
            for i, s in self.model.items()
            if (ids is None or i in ids) and (where is None or matches(where, s.metadata))
        ]

    @rule(ids=st.none() | st.lists(_ids, max_size=5, unique=True), where=st.none() | _filters)
    def delete(self, ids: list[str] | None, where: Filter | None) -> None:
        if ids is None and where is None:
            with pytest.raises(errors.InvalidArgument):
                self.collection.delete()
            return
        gone = self._selected(ids, where)
        assert self.collection.delete(ids, where) == len(gone)
        for id_ in gone:
            del self.model[id_]
        self.version += bool(gone)

    @rule(ids=st.none() | st.lists(_ids, min_size=1, max_size=5, unique=True), where=_filters, value=_values)
    def update_metadata(self, ids: list[str] | None, where: Filter, value: Any) -> None:
        changed = self._selected(ids, where)
        assert self.collection.update_metadata(ids, where, set={"x": value}, unset="y") == len(changed)
        self.version += bool(changed)
        for id_ in changed:
            metadata = {k: v for k, v in self.model[id_].metadata.items() if k != "y"} | {"x": value}
            self.model[id_] = replace(self.model[id_], metadata=metadata, version=self.version)

    @rule()
    def optimize(self) -> None:
        self.collection.optimize()
        # A reindex ends before what it holds is merged.
        self._settled(self.forms[-1])
        stats = self.collection.stats()
        assert (stats.rows, stats.tail_rows, stats.deleted) == (len(self.model), 0, 0)

    @rule(index=_indexes, wait=st.booleans())
    def reindex(self, index: IndexSpec, wait: bool) -> None:
        self.collection.reindex(index, wait=wait)
        self.forms.append(index)
        if wait:
            self._settled(index)

    @rule()
    def cancel_reindex(self) -> None:
        self.collection.cancel_reindex()
        stats = self.collection.stats()
        assert stats.optimizer.state != "reindexing"
        assert stats.index in self.forms
        self.forms = [stats.index]

    def _settled(self, index: IndexSpec) -> None:
        self.forms = [index]
        stats = self.collection.stats()
        assert self.collection.index == stats.index == index
        assert index.kind != "flat" or stats.indexed_rows == 0

    @rule()
    def close_and_open(self) -> None:
        self.restart()
        self.collection = self.db.collection("c")

    @rule(where=st.none() | _filters)
    def count(self, where: Filter | None) -> None:
        assert self.collection.count(where) == len(self._selected(None, where))

    @rule(ids=st.lists(_ids, max_size=6))
    def get(self, ids: list[str]) -> None:
        records = self.collection.get(ids, include=("metadata", "text", "vector"))
        assert [r.id for r in records] == [i for i in ids if i in self.model]
        for record in records:
            self._check_record(record)

    def _check_record(self, record: Any) -> None:
        stored = self.model[record.id]
        vector = None if record.vector is None else tuple(record.vector.tolist())
        assert (vector, record.metadata, record.text) == (stored.vector, stored.metadata, stored.text)
        assert record.version == stored.version

    @rule(where=st.none() | _filters, order=st.sampled_from([None, "x", "-x"]))
    def scan(self, where: Filter | None, order: str | None) -> None:
        records = list(self.collection.scan(where, order, page_size=3, include=("metadata", "text", "vector")))
        assert sorted(r.id for r in records) == sorted(self._selected(None, where))
        for record in records:
            self._check_record(record)
        alone = {r.id: (r.metadata, r.version) for r in self.collection.scan(where, include=("metadata",))}
        assert alone == {r.id: (r.metadata, r.version) for r in records}
        if order is not None:
            there = [r for r in records if isinstance(r.metadata.get("x"), (bool, int, float, str))]
            assert records[: len(there)] == there
            keys = [_rank(r.metadata["x"]) for r in there]
            assert keys == sorted(keys, reverse=order == "-x")
            for same in (
                records[len(there) :],
                *([r for r, k in zip(there, keys, strict=True) if k == key] for key in keys),
            ):
                assert [r.id for r in same] == sorted(r.id for r in same)

    @rule(target=held, texts=st.booleans())
    def hold_a_scan(self, texts: bool) -> Any:
        scan = self.collection.scan(page_size=2, include=("metadata", "text") if texts else ("metadata",))
        model = {i: (s.metadata, s.text if texts else None, s.version) for i, s in self.model.items()}
        return SimpleNamespace(scan=scan, model=model, collection=self.collection)

    @rule(held=held)
    def finish_a_scan(self, held: Any) -> None:
        if held.scan is None or held.collection is not self.collection:
            return
        found = {r.id: (r.metadata, r.text, r.version) for r in held.scan}
        assert found == held.model
        held.scan = None

    @rule(
        vector=_vectors,
        limit=st.integers(1, 30),
        where=st.none() | _filters,
        mode=st.sampled_from(["auto", "pre", "in", "post"]),
        exact=st.booleans(),
    )
    def search(self, vector: list[int], limit: int, where: Filter | None, mode: str, exact: bool) -> None:
        result = self.collection.search(vector, limit, where, mode, exact)
        expected = self._nearest(vector, where)
        assert result.complete
        assert len(result) == min(limit, len(expected))
        assert len({h.id for h in result}) == len(result)
        by_id = {i: score for score, i in expected}
        for hit in result:
            assert hit.score == by_id[hit.id]
            assert hit.metadata == self.model[hit.id].metadata
        if exact or all(form.kind == "flat" for form in self.forms):
            assert [(h.score, h.id) for h in result] == expected[:limit]

    @rule(vectors=st.lists(_vectors, min_size=1, max_size=3), where=st.none() | _filters)
    def search_batch(self, vectors: list[list[int]], where: Filter | None) -> None:
        results = self.collection.search_batch(vectors, limit=5, where=where, exact=True)
        for vector, result in zip(vectors, results, strict=True):
            assert [(h.score, h.id) for h in result] == self._nearest(vector, where)[:5]
            assert [h.metadata for h in result] == [self.model[h.id].metadata for h in result]

    def _nearest(self, vector: list[int], where: Filter | None) -> list[tuple[float, str]]:
        ids = [i for i in self._selected(None, where) if self.model[i].vector is not None]
        if not ids:
            return []
        rows = prepared(np.array([self.model[i].vector for i in ids], np.float32), self.metric)
        query = prepared(np.array([vector], np.float32), self.metric)[0]
        found = scores(query, rows, self.metric)
        order = sorted(
            zip(distances(found, self.metric).tolist(), found.tolist(), ids, strict=True), key=lambda t: (t[0], t[2])
        )
        return [(score, i) for _, score, i in order]

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "collection"):
            stats = self.collection.stats()
            assert (stats.rows, stats.version) == (len(self.model), self.version)
            assert stats.index in self.forms
            assert stats.optimizer.state != "failed"


def _rank(value: Any) -> tuple[int, Any]:
    return (0 if isinstance(value, bool) else 3 if isinstance(value, str) else 1), value


class OnFolder(Machine):
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="vectordb-machine-", dir=_FAST))
        self.db: Any = vectordb.Database(self.folder / "db")

    def restart(self) -> None:
        self.db.close()
        self.db = vectordb.Database(self.folder / "db")

    def teardown(self) -> None:
        self.db.close()
        shutil.rmtree(self.folder)


class InMemory(Machine):
    def start(self) -> None:
        self.db = vectordb.Database(":memory:")

    def restart(self) -> None:
        """Nothing would be left."""

    def teardown(self) -> None:
        self.db.close()


class Served(OnFolder):
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="vectordb-machine-", dir=_FAST))
        self._serve()

    def _serve(self) -> None:
        from vectordb.engine.database import Engine
        from vectordb.server.app import Server
        from vectordb.server.config import load

        config = load({"data": str(self.folder / "db"), "listen": "127.0.0.1:0"}, None, {})
        self.server = Server(lambda: Engine(self.folder / "db"), config)
        self.db = connect(self.server.start())

    def restart(self) -> None:
        self.db.close()
        self.server.stop()
        self._serve()

    def teardown(self) -> None:
        self.db.close()
        self.server.stop()
        shutil.rmtree(self.folder)


def _run(machine: type[Machine], round: Any) -> None:
    """Ten runs of 30 operations each, and the shortest that fails where one does."""
    seeded = seed(round.seed)(type(machine.__name__, (machine,), {}))
    run_state_machine_as_test(seeded, settings=_PROFILE)


_PROFILE = settings(
    max_examples=10, stateful_step_count=30, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.rounds(6, 400)
def test_on_a_folder(rounds: Any) -> None:
    for round in rounds:
        _run(OnFolder, round)


@pytest.mark.rounds(7, 400)
def test_in_memory(rounds: Any) -> None:
    for round in rounds:
        _run(InMemory, round)


@pytest.mark.rounds(2, 200)
def test_served(rounds: Any) -> None:
    for round in rounds:
        _run(Served, round)
