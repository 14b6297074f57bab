"""A model of rows with their whole history, and what every view of them must answer at every version."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from vectordb.encoding import encode_metadata
from vectordb.filter import col, matches
from vectordb.index.base import BuildOptions, Capabilities, Neighbours, Params
from vectordb.metadata.rowset import from_rows, to_mask, to_rows
from vectordb.metric import Metric
from vectordb.segments.columns import SealOptions
from vectordb.segments.rows import RowBatch
from vectordb.segments.segment import SegmentView
from vectordb.segments.store import SegmentStore
from vectordb.segments.views import View

DIM = 6
FILTERS = [
    col("n") >= 5,
    col("tag") == "a",
    (col("n") < 3) | (col("tag") != "b"),
    ~col("tag").exists(),
    col("n").isin([1, 2, 8]) & (col("tag") == "c"),
    col("absent") == 1,
]


@dataclass
class Row:
    """One row's whole history: payloads and their versions, ascending, and the version that deleted it."""

    id: str
    vector: np.ndarray | None
    payloads: list[tuple[int, dict]]
    text: str | None = None
    deleted: int = 0

    def payload(self, version: int) -> tuple[int, dict]:
        return [p for p in self.payloads if p[0] <= version][-1]

    def alive(self, version: int) -> bool:
        return not 0 < self.deleted <= version


@dataclass
class World:
    """Rows by offset, and random changes to them. ``holders`` are given every change."""

    rng: np.random.Generator
    missing_vectors: bool = True
    holes: bool = False
    version: int = 0
    next_offset: int = 0
    rows: dict[int, Row] = field(default_factory=dict)
    holders: list = field(default_factory=list)

    def metadata(self) -> dict:
        made: dict = {}
        if self.rng.random() < 0.9:
            made["n"] = int(self.rng.integers(10))
        if self.rng.random() < 0.8:
            made["tag"] = str(self.rng.choice(["a", "b", "c"]))
        return made

    def batch(self, count: int) -> RowBatch:
        self.version += 1
        gaps = self.rng.integers(0, 3, count) if self.holes else np.zeros(count, np.int64)
        offsets = self.next_offset + np.arange(count) + np.cumsum(gaps)
        self.next_offset = int(offsets[-1]) + 1
        vectors = self.rng.random((count, DIM)).astype(np.float32)
        mask = self.rng.random(count) < 0.8 if self.missing_vectors else np.ones(count, np.bool_)
        metadata = [self.metadata() for _ in range(count)]
        # Some ids beyond ASCII, of one to four bytes a character.
        ids = [f"{'é€😀x'[o % 4]}-{o}" if self.holes else f"id-{o}" for o in offsets.tolist()]
        for i, offset in enumerate(offsets.tolist()):
            vector = vectors[i] if mask[i] else None
            self.rows[offset] = Row(ids[i], vector, [(self.version, metadata[i])], text_of(offset))
        versions = np.full(count, self.version, np.uint64)
        encoded = [encode_metadata(m) for m in metadata]
        texts = [None if (text := text_of(offset)) is None else text.encode() for offset in offsets.tolist()]
        present = None if mask.all() else mask
        return RowBatch(offsets.astype(np.uint64), ids, versions, encoded, vectors, present, texts)

    def delete(self, count: int) -> None:
        self.delete_these(self._some(count))

    def delete_these(self, offsets: list[int]) -> None:
        self.version += 1
        for holder in self.holders:
            holder.mark_deleted(np.array(offsets, np.uint64), self.version)
        for offset in offsets:
            self.rows[offset].deleted = self.rows[offset].deleted or self.version

    def overlay(self, count: int) -> None:
        self.version += 1
        offsets = self._some(count)
        made = [self.metadata() for _ in offsets]
        for holder in self.holders:
            holder.overlay(np.array(offsets, np.uint64), self.version, [encode_metadata(m) for m in made])
        for offset, metadata in zip(offsets, made, strict=True):
            self.rows[offset].payloads.append((self.version, metadata))

    def churn(self, times: int) -> None:
        for _ in range(times):
            (self.delete if self.rng.random() < 0.5 else self.overlay)(int(self.rng.integers(1, 6)))

    def _some(self, count: int) -> list[int]:
        return self.rng.choice(sorted(self.rows), min(count, len(self.rows)), replace=False).tolist()

    def alive(self, version: int, lo: int = 0, hi: int = 1 << 60) -> list[int]:
        return [o for o, row in sorted(self.rows.items()) if lo <= o < hi and row.alive(version)]

    def check(self, view: View, *, exactly: list[int] | None = None) -> None:
        """Every answer of the view, against the model. ``exactly``: the offsets it must hold."""
        every = np.arange(view.rows)
        offsets = view.offsets(every)
        if exactly is not None:
            assert offsets.tolist() == exactly
        assert (np.diff(offsets.astype(np.int64)) > 0).all()
        rows = [self.rows[o] for o in offsets.tolist()]
        version = view.version
        assert view.ids(every) == [row.id for row in rows]
        alive = [row.alive(version) for row in rows]
        assert view.alive(every).tolist() == alive
        assert to_rows(view.dead_rows()).tolist() == np.flatnonzero(~np.array(alive, np.bool_)).tolist()
        assert view.dead == alive.count(False)
        assert view.payload_versions(every).tolist() == [row.payload(version)[0] for row in rows]
        self._check_metadata(view, [encode_metadata(row.payload(version)[1]) for row in rows])
        self._check_vectors(view, rows)
        self._check_texts(view, rows, alive)
        self._check_filters(view, [row.payload(version)[1] for row in rows])
        self._check_selections(view, rows)
        assert view.rows_at(offsets).tolist() == every.tolist()
        assert view.rows_at(offsets + np.uint64(1 << 40)).tolist() == [-1] * view.rows
        shuffled = self.rng.permutation(view.rows)[:100]
        assert view.ids(shuffled) == [rows[i].id for i in shuffled.tolist()]
        assert view.offsets(shuffled).tolist() == offsets[shuffled].tolist()
        assert view.payload_versions(shuffled).tolist() == [rows[i].payload(version)[0] for i in shuffled.tolist()]

    def _check_metadata(self, view: View, expected: list[bytes]) -> None:
        """Segments in memory have no such column: there storage is as near."""
        every = np.arange(view.rows)
        found = view.metadata(every)
        if isinstance(view, SegmentView) and view._data.vectors.path is None:
            assert found is None
            assert view.metadata_pieces(every) is None
            return
        assert found == expected
        shuffled = self.rng.permutation(view.rows)[: int(self.rng.integers(1, 100))]
        assert view.metadata(shuffled) == [expected[i] for i in shuffled.tolist()]
        for rows in (every, every[::3], every[1:-1]):
            pieces = view.metadata_pieces(rows)
            assert pieces is not None
            lengths, data = [], b""
            for piece in pieces:
                lengths += piece.lengths.tolist()
                data += piece.data.tobytes()
            assert lengths == [len(expected[i]) for i in rows.tolist()]
            assert data == b"".join(expected[i] for i in rows.tolist())

    def _check_vectors(self, view: View, rows: list[Row]) -> None:
        having = np.array([i for i, row in enumerate(rows) if row.vector is not None], np.int64)
        assert view.vector_count == len(having)
        expected = np.array([rows[i].vector for i in having.tolist()], np.float32).reshape(-1, DIM)
        assert view.vectors_at(having).tolist() == expected.tolist()
        assert view.vectors_at(having[::-1][:5]).tolist() == expected[::-1][:5].tolist()
        for max_bytes in (1 if view.rows < 40 else 700, 1 << 20):
            found_rows, found = [], []
            for block in view.blocks(max_bytes):
                n = len(block.vectors)
                assert 0 < n <= max(1, max_bytes // (4 * DIM))
                assert block.vectors.flags.c_contiguous
                found_rows += (np.arange(n) + block.first_row if block.rows is None else block.rows).tolist()
                found += block.vectors.tolist()
            assert found_rows == having.tolist()
            assert found == expected.tolist()
        positions = np.append(np.arange(len(having)), -1)
        assert view.rows_of(positions).tolist() == [*having.tolist(), -1]
        asked = from_rows(np.arange(0, view.rows, 2))
        assert to_rows(view.with_vector(asked)).tolist() == [i for i in having.tolist() if i % 2 == 0]
        bits = np.unpackbits(view.allowed_positions(asked), count=len(having), bitorder="little")
        assert bits.tolist() == [int(i % 2 == 0) for i in having.tolist()]

    def _check_selections(self, view: View, rows: list[Row]) -> None:
        having = np.array([row.vector is not None for row in rows], np.bool_)
        for where in FILTERS:
            living = [row.alive(view.version) and matches(where, row.payload(view.version)[1]) for row in rows]
            expected = np.array(living, np.bool_) & having
            # Twice: made, and kept from a view of this or another version.
            for selection in (view.selection(where), view.selection(where)):
                assert selection.rows().tolist() == np.flatnonzero(expected).tolist()
                assert len(selection) == int(expected.sum())
                assert selection.matched == (sum(living) if having.any() else 0)
                bits = np.unpackbits(selection.bits(view), count=int(having.sum()), bitorder="little")
                assert bits.tolist() == expected[having].astype(int).tolist()

    def _check_texts(self, view: View, rows: list[Row], alive: list[bool]) -> None:
        words = [(row.text or "").split() for row in rows]
        found: list[list[str]] = [[] for _ in rows]
        for text, start, shown in view.text():
            for number in range(len(text.words)):
                for row in text.arrays.rows[text.arrays.starts[number] : text.arrays.starts[number + 1]].tolist():
                    if row < shown:
                        found[start + row].append(text.words[number].decode())
        assert found == [sorted(of) for of in words]
        living = [len(of) for of, there in zip(words, alive, strict=True) if of and there]
        assert view.text_totals() == (len(living), sum(living))

    def _check_filters(self, view: View, metadata: list[dict]) -> None:
        for where in FILTERS:
            expected = [matches(where, m) for m in metadata]
            assert to_mask(view.matching(where), view.rows).tolist() == expected, where
            estimate = view.estimate(where)
            assert estimate.low <= sum(expected) <= estimate.high
        every = np.arange(view.rows)
        assert view.sort_keys("n", every) == [(1, m["n"]) if "n" in m else None for m in metadata]


def text_of(offset: int) -> str | None:
    """The text of a row: some have none, some an empty one."""
    return None if offset % 5 == 0 else "" if offset % 7 == 0 else f"all w{offset % 3} x{offset}"


class PlainIndex:
    """Exact search over a copy of the vectors, stored as their bytes."""

    def __init__(self, vectors: np.ndarray, grown: int = 0) -> None:
        self.vectors = np.array(vectors)
        self.grown = grown

    def search(self, queries: np.ndarray, limit: int, *, allowed=None, params: Params | None = None) -> Neighbours:
        distances = ((queries[:, None, :] - self.vectors[None]) ** 2).sum(axis=2).astype(np.float32)
        if allowed is not None:
            distances[:, ~np.unpackbits(allowed, count=len(self.vectors), bitorder="little").astype(bool)] = np.inf
        order = np.argsort(distances, axis=1)[:, :limit]
        best = np.take_along_axis(distances, order, axis=1)
        return Neighbours(np.where(np.isinf(best), -1, order), best, distances.size)

    def save(self, path: Path) -> None:
        path.write_bytes(self.vectors.tobytes())

    def memory_bytes(self) -> int:
        return self.vectors.nbytes

    def extended(self, vectors: np.ndarray, build: BuildOptions) -> PlainIndex:
        assert np.array_equal(vectors[: len(self.vectors)], self.vectors)
        return PlainIndex(vectors, self.grown + 1)


class PlainKind:
    """A kind that can do all that segments ask of one."""

    name = "plain"
    capabilities = Capabilities("exact", frozenset(Metric), filtered=True, extends=True)

    def build(self, vectors: np.ndarray, metric: Metric, options: BuildOptions) -> PlainIndex:
        return PlainIndex(vectors)

    def load(self, path: Path, vectors: np.ndarray, metric: Metric, options: BuildOptions) -> PlainIndex:
        return PlainIndex(np.frombuffer(path.read_bytes(), np.float32).reshape(-1, vectors.shape[1]))


@pytest.fixture
def kind(monkeypatch: pytest.MonkeyPatch) -> PlainKind:
    """An extendable kind, also found by name."""
    made = PlainKind()
    monkeypatch.setattr("vectordb.segments.opening.get_kind", lambda name: {"plain": made}[name])
    return made


@pytest.fixture
def options() -> SealOptions:
    return SealOptions(collection=1, dim=DIM, metric=Metric.L2)


@pytest.fixture
def store(tmp_path: Path) -> SegmentStore:
    return SegmentStore(tmp_path / "segments")


@pytest.fixture(params=["disk", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> SegmentStore | None:
    """Where segments go: a store, or memory."""
    return SegmentStore(tmp_path / "segments") if request.param == "disk" else None


@pytest.fixture
def make_world() -> Callable[..., World]:
    """Makes a world from a seed."""
    return lambda seed=0, **kwargs: World(np.random.default_rng(seed), **kwargs)
