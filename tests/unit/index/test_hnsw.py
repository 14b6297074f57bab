"""The kind ``hnsw`` beyond the conformance suite: storage, ranges, beams, files, copies."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from vectordb.errors import Corruption, DimensionMismatch, InvalidArgument, ResourceExhausted
from vectordb.index import hnsw_storage, native
from vectordb.index.base import BuildOptions, CannotExtend, capabilities_of
from vectordb.index.faiss_hnsw import HNSW, HnswIndex
from vectordb.index.hnsw_storage import Precision
from vectordb.metric import Metric, distances, prepared, scores
from vectordb.query.widths import candidates

METRICS = list(Metric)
LENGTHS = [metric for metric in Metric if metric is not Metric.COSINE]


def normal(rows: int, dim: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)


def build(vectors: np.ndarray, metric: Metric = Metric.L2, **options: Any) -> HnswIndex:
    return HNSW.build(vectors, metric, BuildOptions(**options))


def recall(index: HnswIndex, queries: np.ndarray, base: np.ndarray, metric: Metric, limit: int = 10) -> float:
    """Share of found rows whose final distance is as good as the true limit-th; at int8 among those that are scored."""
    good = 0
    fetched = candidates(index.capabilities, limit, None) if index.precision is Precision.BYTE else limit
    for query, rows in zip(queries, index.search(queries, fetched).rows, strict=True):
        far = distances(scores(query, base, metric), metric)
        good += min(limit, int((far[rows[rows >= 0]] <= np.sort(far)[limit - 1]).sum()))
    return good / (limit * len(queries))


@pytest.mark.parametrize("metric", METRICS)
def test_distances_rank_the_rows_of_a_query(metric: Metric) -> None:
    """Smaller is closer, under every metric; how far apart two rows are they do not tell."""
    base, queries = prepared(3 * normal(500, 16), metric), prepared(normal(20, 16, 1), metric)
    index = build(base, metric)
    found = index.search(queries, 20)
    for query, rows, far in zip(queries, found.rows, found.distances, strict=True):
        true = distances(scores(query, base[rows], metric), metric)
        assert (np.diff(far) >= 0).all()
        # Low precision blurs their order; the scores that users see are made from full vectors.
        assert (np.diff(true) >= -0.05 * np.abs(true).max()).all()
        assert true[0] < true[-1]


@pytest.mark.parametrize("metric", METRICS)
def test_low_precision_is_used_where_it_is_harmless_and_never_under_l1(metric: Metric) -> None:
    few, many = (build(prepared(normal(rows, 32), metric), metric).precision for rows in (300, 1_200))
    assert few is (Precision.SINGLE if metric is Metric.L1 else Precision.HALF)
    assert many is (Precision.SINGLE if metric is Metric.L1 else Precision.BYTE)


def clumped(spread: float) -> np.ndarray:
    return np.ascontiguousarray(np.repeat(10 + normal(60, 32), 20, axis=0) + spread * normal(1_200, 32, 1))


@pytest.mark.parametrize(("spread", "precision"), [(1e-3, Precision.SINGLE), (0.5, Precision.BYTE)])
def test_precision_is_as_high_as_the_neighbours_lie_close(spread: float, precision: Precision) -> None:
    base = clumped(spread)
    index = build(base)
    assert index.precision is precision
    assert recall(index, base[::20], base, Metric.L2) >= 0.98


def test_rows_that_differ_less_than_the_precision_in_one_place() -> None:
    """A row beside the sampled ones must not decide alone; the mean recall of the sample does."""
    base = normal(2000, 16)
    base[1000] = base[1001] + np.float32(1e-6)
    assert build(base).precision is Precision.BYTE


@pytest.mark.parametrize("metric", LENGTHS)
@pytest.mark.parametrize("size", [1e-30, 1e-15, 1.0, 1e6, 1e15, 1e30])
def test_any_size_of_vectors(metric: Metric, size: float, tmp_path: Path) -> None:
    base, queries = (np.float32(size) * normal(n, 24, n) for n in (1_200, 30))
    index = build(base, metric)
    # Bytes are for sizes that floats take as they are.
    usual = Precision.BYTE if size == 1.0 else Precision.HALF
    assert index.precision is (Precision.SINGLE if metric is Metric.L1 else usual)
    assert recall(index, queries, base, metric) >= 0.97
    index.save(tmp_path / "index")
    loaded = HNSW.load(tmp_path / "index", base, metric, BuildOptions())
    np.testing.assert_array_equal(loaded.search(queries, 10).rows, index.search(queries, 10).rows)


@pytest.mark.parametrize("size", [1e-38, 1e-25, 1e15, 1e30])
def test_inner_products_with_queries_of_any_size(size: float) -> None:
    base, queries = normal(1_200, 24), np.float32(size) * normal(30, 24, 1)
    assert recall(build(base, Metric.DOT), queries, base, Metric.DOT) >= 0.95


def test_inner_products_of_a_batch_with_queries_of_very_different_sizes() -> None:
    """Each is scaled by itself: by the largest of a batch the smaller ones vanished."""
    index = build(np.float32(1e6) * normal(600, 24), Metric.DOT)
    queries = (normal(1, 24, 1) * np.array([[1.0], [1e30], [1e-25]])).astype(np.float32)
    alone = [index.search(query[None], 10).rows[0] for query in queries]
    np.testing.assert_array_equal(index.search(queries, 10).rows, alone)


@pytest.mark.parametrize("metric", [Metric.L2, Metric.L1])
def test_a_query_too_far_off_to_rank_finds_nothing_rather_than_anything(metric: Metric) -> None:
    index = build(normal(600, 24), metric)
    assert (index.search(np.full((2, 24), 3e38, np.float32), 10).rows == -1).all()


def test_a_zero_matrix() -> None:
    for metric in LENGTHS:
        index = build(np.zeros((50, 8), np.float32), metric)
        assert (index.search(normal(3, 8), 10).rows >= 0).all()


@pytest.mark.parametrize("metric", METRICS)
def test_builds_with_one_thread_repeat(metric: Metric, tmp_path: Path) -> None:
    base = prepared(normal(800, 16), metric)
    for name in ("a", "b"):
        build(base, metric).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_graph_of_many_slices(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Levels are drawn beforehand, the highest come first, and those that extend a graph join them."""
    monkeypatch.setattr("vectordb.index.hnsw_build._SLICE_WORK", 512 * 160 * 200)
    base, queries = normal(6_000, 24), normal(60, 24, 1)
    index = build(base[:4_500], threads=threads).extended(base, BuildOptions(threads=threads))
    graph = index._graph.native.hnsw
    levels = faiss.vector_to_array(graph.levels)
    assert len(levels) == 6_000
    assert levels.max() - 1 == graph.max_level
    assert levels[graph.entry_point] == levels.max()
    for part in (levels[:4_500], levels[4_500:]):
        # One of 16 rows is on the next level, and they lie anywhere.
        upper = np.flatnonzero(part > 1)
        assert abs(len(upper) - len(part) / 16) < 5 * (len(part) / 16) ** 0.5
        assert abs(upper.mean() / len(part) - 0.5) < 0.1
    assert recall(index, queries, base, Metric.L2) >= 0.97
    assert recall(index, base[4_400:4_600:5], base, Metric.L2) >= 0.97


def test_large_pages_hold_what_was_there() -> None:
    held = np.random.default_rng(0).integers(0, 256, 9 << 20, dtype=np.uint8)
    wanted = held.copy()
    for start, size in ((0, len(held)), (12_345, 3 << 20), (5, 100), (0, 0)):
        native.prefer_large_pages(held[start:].ctypes.data, size)
        np.testing.assert_array_equal(held, wanted)
    held += 1
    np.testing.assert_array_equal(held, wanted + 1)


def test_a_precision_that_will_do_is_the_last_that_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = []
    measured = hnsw_storage._Sample.recall

    def recall_of(self: Any, form: Any, cancelled: Any) -> float:
        looked_at.append(measured(self, form, cancelled))
        return looked_at[-1]

    monkeypatch.setattr(hnsw_storage._Sample, "recall", recall_of)
    assert build(normal(1_200, 32)).precision is Precision.BYTE
    assert len(looked_at) == 1
    looked_at.clear()
    assert build(clumped(1e-2)).precision is not Precision.BYTE
    assert len(looked_at) >= 1
    assert looked_at[0] < 1.0


def test_build_parameters_reach_the_graph() -> None:
    base, queries = normal(1500, 48), normal(60, 48, 1)
    lean, rich = (build(base, params={"m": m, "ef_construction": 4 * m}) for m in (2, 32))
    assert lean.memory_bytes() < rich.memory_bytes()
    few, many = (
        np.mean([len(set(a) & set(b)) for a, b in zip(i.search(queries, 10).rows, truth(base, queries), strict=True)])
        for i in (lean, rich)
    )
    assert few + 1.0 < many


def truth(base: np.ndarray, queries: np.ndarray) -> np.ndarray:
    return np.array([np.argsort(scores(query, base, Metric.L2), kind="stable")[:10] for query in queries])


class TestBeam:
    def test_what_is_asked_for_is_taken_but_never_below_the_limit(self) -> None:
        index = build(normal(100, 8))
        assert index.beam(10, {"ef": 33}) == 33
        assert index.beam(10, {"ef": 33}, selectivity=0.1) == 33
        assert index.beam(40, {"ef": 33}) == 40

    def test_the_default_grows_with_limit_and_selectivity(self) -> None:
        index = build(normal(100, 8))
        assert index.beam(10) == 64
        assert index.beam(100) == 198
        assert index.beam(10) < index.beam(10, selectivity=0.5) < index.beam(10, selectivity=0.1) < 200
        assert index.beam(200_000) >= 200_000

    def test_inner_products_get_a_wider_one_and_say_so(self) -> None:
        index = build(normal(100, 8), Metric.DOT)
        assert index.beam(10) > 64
        assert capabilities_of(index, HNSW).search_params["ef"].default == index.beam(10)
        assert HNSW.capabilities.search_params["ef"].default == 64

    def test_a_wider_one_compares_more_rows(self) -> None:
        base, queries = normal(3000, 24), normal(20, 24, 1)
        index = build(base)
        scored = [index.search(queries, 10, params={"ef": ef}).scored for ef in (10, 50, 250)]
        assert scored == sorted(scored)
        assert scored[0] * 3 < scored[2]
        assert scored[2] <= 20 * 3000


class TestArguments:
    def test_another_dimension_is_refused(self) -> None:
        with pytest.raises(DimensionMismatch, match="dim 8, got 9"):
            build(normal(20, 8)).search(normal(1, 9), 3)

    def test_too_short_a_bitmap_is_refused(self) -> None:
        index = build(normal(20, 8))
        with pytest.raises(InvalidArgument, match="16 bits"):
            index.search(normal(1, 8), 3, allowed=np.full(2, 255, np.uint8))
        assert (index.search(normal(1, 8), 3, allowed=np.full(3, 255, np.uint8)).rows >= 0).all()

    def test_queries_in_another_layout_or_precision(self) -> None:
        index, queries = build(normal(200, 8)), normal(10, 8, 1)
        wanted = index.search(queries, 5).rows
        np.testing.assert_array_equal(index.search(np.asfortranarray(queries), 5).rows, wanted)
        np.testing.assert_array_equal(index.search(queries.astype(np.float64), 5).rows, wanted)  # type: ignore[arg-type]

    def test_a_filter_that_few_rows_meet_never_returns_others(self) -> None:
        index = build(normal(3000, 24))
        mask = np.zeros(3000, bool)
        mask[[5, 1500]] = True
        found = index.search(normal(20, 24, 1), 10, allowed=np.packbits(mask, bitorder="little"))
        assert set(found.rows.ravel().tolist()) <= {-1, 5, 1500}


class TestCopies:
    """Equal rows stand once in the graph and are all found."""

    base = np.repeat(normal(60, 24), 25, axis=0)[np.random.default_rng(3).permutation(1500)]
    queries = normal(40, 24, 1)

    @pytest.mark.parametrize("metric", METRICS)
    def test_islands_of_copies_are_no_trap(self, metric: Metric, tmp_path: Path) -> None:
        base, queries = prepared(self.base, metric), prepared(self.queries, metric)
        index = build(base, metric)
        assert recall(index, queries, base, metric, 60) == 1.0
        index.save(tmp_path / "index")
        loaded = HNSW.load(tmp_path / "index", base, metric, BuildOptions())
        for each in (index, loaded):
            assert recall(each, queries, base, metric, 60) == 1.0
            mask = np.random.default_rng(4).random(1500) < 0.3
            found = each.search(queries, 60, allowed=np.packbits(mask, bitorder="little"))
            assert mask[found.rows].all()
            for query, rows in zip(queries, found.rows, strict=True):
                far = distances(scores(query, base, metric), metric)
                assert len(set(rows.tolist())) == 60
                assert far[rows].max() <= np.sort(far[mask])[59] + 1e-5

    def test_ten_thousand_of_one_row(self) -> None:
        base = np.concatenate([normal(500, 24), np.repeat(normal(1, 24, 9), 10_000, axis=0)])
        index = build(base)
        assert recall(index, self.queries, base, Metric.L2) >= 0.98
        assert recall(index, base[-1:], base, Metric.L2) == 1.0
        assert index.memory_bytes() < 500 * 24 * 4 + 10_500 * 60

    @pytest.mark.parametrize("loaded", [False, True])
    def test_extending_joins_old_copies_and_makes_new_ones(self, loaded: bool, tmp_path: Path) -> None:
        index = build(self.base[:700])
        if loaded:
            index.save(tmp_path / "index")
            index = HNSW.load(tmp_path / "index", self.base[:700], Metric.L2, BuildOptions())
        both = np.concatenate([self.base, normal(100, 24, 7)])
        longer = index.extended(both, BuildOptions())
        assert recall(longer, self.queries, both, Metric.L2, 60) >= 0.99
        again = longer.extended(np.concatenate([both, both[:50]]), BuildOptions())
        found = again.search(both[:1], 200).rows[0]
        same = np.flatnonzero((np.concatenate([both, both[:50]]) == both[0]).all(axis=1))
        assert set(same.tolist()) <= set(found.tolist())

    def test_extending_a_graph_without_copies_by_many(self) -> None:
        plain = normal(300, 24, 8)
        both = np.concatenate([plain, np.repeat(plain[:5], 40, axis=0)])
        longer = build(plain).extended(both, BuildOptions())
        assert recall(longer, self.queries, both, Metric.L2, 50) >= 0.98


class TestExtending:
    def test_rows_beyond_the_stored_range_need_a_rebuild(self) -> None:
        base = normal(300, 24)
        with pytest.raises(CannotExtend, match="range"):
            build(base).extended(np.concatenate([base, 1e6 * base]), BuildOptions())

    def test_rows_too_close_for_the_precision_need_a_rebuild(self) -> None:
        base = 15 * normal(1_200, 32)
        index = build(base)
        assert index.precision is Precision.BYTE
        with pytest.raises(CannotExtend, match="more than the precision of int8"):
            index.extended(np.concatenate([base, clumped(1e-3)]), BuildOptions())

    def test_an_empty_graph_is_rebuilt(self) -> None:
        with pytest.raises(CannotExtend, match="empty"):
            build(normal(0, 8)).extended(normal(5, 8), BuildOptions())

    def test_by_nothing(self) -> None:
        base = normal(300, 24)
        index = build(base)
        longer = index.extended(base, BuildOptions())
        np.testing.assert_array_equal(longer.search(base, 3).rows, index.search(base, 3).rows)


class TestFile:
    def test_a_damaged_or_foreign_file_is_refused(self, tmp_path: Path) -> None:
        path, base = tmp_path / "index", normal(200, 8)
        build(base).save(path)
        data = path.read_bytes()
        for vectors, metric in ((base[:199], Metric.L2), (normal(200, 9), Metric.L2), (base, Metric.DOT)):
            with pytest.raises(Corruption, match="200 rows of dim 8"):
                HNSW.load(path, vectors, metric, BuildOptions())
        for damaged in (b"", data[:10], data[:-1], data[1:], data + b"x", data[:1000] + data[-56:], b"X" * len(data)):
            path.write_bytes(damaged)
            with pytest.raises(Corruption, match="delete it to have it rebuilt"):
                HNSW.load(path, base, Metric.L2, BuildOptions())
        path.unlink()
        with pytest.raises(Corruption, match="cannot be read"):
            HNSW.load(path, base, Metric.L2, BuildOptions())

    def test_impossible_groups_are_refused(self, tmp_path: Path) -> None:
        path, base = tmp_path / "index", np.repeat(normal(10, 8), 10, axis=0)
        build(base).save(path)
        data = bytearray(path.read_bytes())
        assert HNSW.load(path, base, Metric.L2, BuildOptions()).search(base[:1], 10).rows.min() >= 0
        facts = int.from_bytes(data[-16:-8], "little")
        data[-40 - facts - 4 : -40 - facts] = b"\xff\xff\xff\xff"
        path.write_bytes(data)
        with pytest.raises(Corruption, match="impossible groups"):
            HNSW.load(path, base, Metric.L2, BuildOptions())

    def test_a_file_that_cannot_be_written(self, tmp_path: Path) -> None:
        with pytest.raises(ResourceExhausted, match="cannot write"):
            build(normal(5, 8)).save(tmp_path / "missing" / "index")


def test_every_searching_thread_is_set_to_one_native_thread() -> None:
    index, seen = build(normal(50, 8)), []

    def work() -> None:
        faiss.omp_set_num_threads(4)
        index.search(normal(1, 8), 1)
        seen.append(faiss.omp_get_max_threads())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [1]


def test_a_builder_gives_its_threads_back() -> None:
    with native.native_threads(3):
        assert faiss.omp_get_max_threads() == 3
    assert faiss.omp_get_max_threads() == 1
    build(normal(50, 8), threads=2)
    assert faiss.omp_get_max_threads() == 1


def test_a_single_search_owns_what_faiss_writes_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others allocate while it runs: what nobody holds is theirs by then, and written over."""
    rows = np.random.default_rng(3).standard_normal((2_000, 32)).astype(np.float32)
    index = HNSW.build(prepared(rows, Metric.COSINE), Metric.COSINE, BuildOptions())
    inner, spoilt = index._search_c, list[int]()

    def search_c(*given: object) -> None:
        others = [np.full(15, 7.0, np.float32) for _ in range(64)]
        others += [np.full(15, 7, np.int64) for _ in range(64)]
        inner(*given)
        spoilt.append(sum(not (other == 7).all() for other in others))

    monkeypatch.setattr(index, "_search_c", search_c)
    search = index.single(15, None)
    assert search is not None
    for query in prepared(rows[:5], Metric.COSINE):
        found, _ = search(query[None])
        assert found[0] >= 0
    assert spoilt == [0] * 5
