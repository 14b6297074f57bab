"""What codes and clusters made by faiss promise beyond the conformance suite: files, growth, learning, range."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest

from vectordb.errors import Corruption, DimensionMismatch, InvalidArgument, ResourceExhausted
from vectordb.index import registry
from vectordb.index.base import BuildCancelled, BuildOptions, CannotExtend, capabilities_of
from vectordb.index.hnsw_storage import Precision
from vectordb.index.kmeans import kmeans
from vectordb.index.quantization import resolve
from vectordb.index.rotation import projection, rotation
from vectordb.index.space import Space
from vectordb.metric import Metric, distances, prepared, scores
from vectordb.types import IndexSpec, QuantizationSpec

DIM = 32
CASES = [
    ("flat", "fp16"),
    ("flat", "sq8"),
    ("flat", "pq"),
    ("flat", "rabitq"),
    ("flat", "binary"),
    ("hnsw", "fp16"),
    ("hnsw", "sq8"),
    ("hnsw", "pq"),
    ("hnsw", "rabitq"),
    ("ivf", None),
    ("ivf", "fp16"),
    ("ivf", "sq8"),
    ("ivf", "pq"),
    ("ivf", "rabitq"),
    ("ivfpq", None),
    ("lsh", None),
]
LEARNING = [case for case in CASES if case[1] not in ("fp16", None) or case[0] in ("ivf", "ivfpq", "lsh")]


class Made(NamedTuple):
    """A kind with its options, to build and load by."""

    kind: Any
    metric: Metric
    quantization: QuantizationSpec | None
    params: dict[str, Any]

    def options(self, **more: Any) -> BuildOptions:
        return BuildOptions(params=self.params, quantization=self.quantization, **more)

    def build(self, vectors: Any, **more: Any) -> Any:
        return self.kind.build(vectors, self.metric, self.options(**more))

    def load(self, path: Path, vectors: Any) -> Any:
        return self.kind.load(path, vectors, self.metric, self.options())


def made(name: str, quantization: str | None, metric: Metric = Metric.COSINE, **params: Any) -> Made:
    spec = None
    if quantization is not None:
        spec = resolve(QuantizationSpec(quantization, {"m": DIM // 4} if quantization == "pq" else {}), DIM)
    if name == "ivfpq":
        params["m"] = DIM // 4
    return Made(registry.get_kind(name), metric, spec, params)


def recall(index: Any, kind: Any, base: Any, queries: Any, metric: Metric) -> float:
    """Of the 10 nearest, after the best of as many candidates as the index asks for are scored."""
    wide = min(len(base), round(10 * capabilities_of(index, kind).oversampling) + 4)
    found = index.search(queries, wide).rows
    hits = 0
    for query, rows in zip(queries, found, strict=True):
        truth = np.sort(distances(scores(query, base, metric), metric))[9]
        near = rows[rows >= 0]
        hits += min(10, int((distances(scores(query, base[near], metric), metric) <= truth).sum()))
    return hits / (10 * len(queries))


@pytest.fixture(scope="module")
def base(data: ModuleType) -> Any:
    return prepared(data.clustered(2_000, DIM, 40, seed=3)[0], Metric.COSINE)


@pytest.fixture(scope="module")
def queries(data: ModuleType) -> Any:
    return prepared(data.clustered(30, DIM, 40, seed=4)[0], Metric.COSINE)


@pytest.mark.parametrize(("name", "quantization"), CASES)
class TestFile:
    def test_a_damaged_or_foreign_file_is_refused(
        self, name: str, quantization: str | None, base: Any, tmp_path: Path
    ) -> None:
        ours, path = made(name, quantization), tmp_path / "index"
        ours.build(base[:300]).save(path)
        data = path.read_bytes()
        assert ours.load(path, base[:300]).search(base[:3], 5).rows.min() >= 0
        for vectors, metric in ((base[:299], Metric.COSINE), (base[:300, :16], Metric.COSINE), (base[:300], Metric.L2)):
            with pytest.raises(Corruption, match="300 rows of dim 32 under cosine"):
                ours._replace(metric=metric).load(path, np.ascontiguousarray(vectors))
        for damaged in (b"", data[:10], data[:-1], data[1:], data + b"x", data[:500] + data[-40:], b"X" * len(data)):
            path.write_bytes(damaged)
            with pytest.raises(Corruption, match="delete it to have it rebuilt"):
                ours.load(path, base[:300])
        with pytest.raises(ResourceExhausted, match="cannot write"):
            ours.build(base[:20]).save(tmp_path / "missing" / "index")

    def test_arguments(self, name: str, quantization: str | None, base: Any) -> None:
        index = made(name, quantization).build(base[:60])
        with pytest.raises(DimensionMismatch, match="dim 32, got 31"):
            index.search(np.ascontiguousarray(base[:1, :31]), 3)
        with pytest.raises(InvalidArgument, match=r"cannot search with a filter|16 bits"):
            index.search(base[:1], 3, allowed=np.full(2, 255, np.uint8))
        assert index.memory_bytes() > 0


def test_an_index_of_another_quantization_is_refused(base: Any, tmp_path: Path) -> None:
    for name, first, second in (("flat", "sq8", "fp16"), ("hnsw", "sq8", None), ("ivf", None, "rabitq")):
        made(name, first).build(base[:300]).save(tmp_path / "index")
        with pytest.raises(Corruption, match="keeps rows as"):
            made(name, second).load(tmp_path / "index", base[:300])


@pytest.mark.parametrize(("name", "quantization"), LEARNING)
def test_rows_of_another_kind_need_a_rebuild(name: str, quantization: str | None, base: Any) -> None:
    ours = made(name, quantization, Metric.COSINE)
    index = ours.build(base[:1_000])
    assert len(index.extended(base[:1_300], BuildOptions()).search(base[:1], 5).rows[0]) == 5
    # All in one corner, which what was learned does not tell apart.
    corner = np.random.default_rng(0).standard_normal((900, DIM)).astype(np.float32) * 0.05
    corner[:, 0] += 1.0
    other = prepared(corner, Metric.COSINE)
    if (name, quantization) == ("flat", "rabitq") or name == "hnsw":
        return  # Nearly all that these learn is the mean; rows in a corner lie as far from it as others.
    with pytest.raises(CannotExtend):
        index.extended(np.concatenate([base[:1_000], other]), BuildOptions())


@pytest.mark.parametrize(("name", "quantization"), CASES)
def test_an_empty_index_is_rebuilt(name: str, quantization: str | None, base: Any) -> None:
    with pytest.raises(CannotExtend, match=r"empty|nothing"):
        made(name, quantization).build(base[:0]).extended(base[:5], BuildOptions())


@pytest.mark.parametrize("name", ["flat", "ivf"])
def test_values_beyond_the_range_need_a_rebuild(name: str, base: Any) -> None:
    index = made(name, "fp16", Metric.L2).build(base[:300])
    with pytest.raises(CannotExtend, match="range"):
        index.extended(np.concatenate([base[:300], 1e6 * base[:200]]), BuildOptions())


def test_codewords_learned_from_few_rows_are_outgrown(base: Any) -> None:
    index = made("flat", "pq").build(base[:400])
    with pytest.raises(CannotExtend, match="many more rows"):
        index.extended(base, BuildOptions())


def test_lists_are_outgrown(base: Any) -> None:
    with pytest.raises(CannotExtend, match="lists"):
        made("ivf", None).build(base[:100]).extended(base, BuildOptions())
    few = made("ivf", None, nlist=7)
    longer = few.build(base[:1_000]).extended(base, BuildOptions())
    assert longer.parts.native.nlist == 7
    assert longer.rows == 2_000


@pytest.mark.parametrize(("name", "quantization"), LEARNING)
def test_what_was_learned_is_taken_over_while_it_fits(
    name: str, quantization: str | None, base: Any, queries: Any, tmp_path: Path
) -> None:
    ours = made(name, quantization)
    ours.build(base[:1_200]).save(tmp_path / "earlier")
    fresh, reused = ours.build(base), ours.build(base, trained=tmp_path / "earlier")
    assert recall(reused, ours.kind, base, queries, Metric.COSINE) >= 0.9
    for index, alike in ((fresh, False), (reused, True)):
        index.save(tmp_path / "index")
        assert (b'"learned":1200' in (tmp_path / "index").read_bytes()) == alike
    for other in (
        made(name, quantization, Metric.L2),
        made("flat", None),
        ours._replace(params={"nlist": 9, "nbits": 8}),
    ):
        if other.metric is Metric.L2 and other.metric not in ours.kind.capabilities.quantizations.get(
            quantization or "", ours.kind.capabilities.metrics
        ):
            continue
        other.build(base).save(tmp_path / "foreign")
        again = ours.build(base, trained=tmp_path / "foreign")
        again.save(tmp_path / "index")
        assert b'"learned":2000' in (tmp_path / "index").read_bytes()
    (tmp_path / "foreign").write_bytes(b"nothing of the kind")
    assert ours.build(base, trained=tmp_path / "foreign").search(base[:1], 3).rows.min() >= 0


@pytest.mark.parametrize(("name", "quantization"), [case for case in CASES if case[1] != "binary"])
@pytest.mark.parametrize("factor", [1e18, 1e-18])
def test_huge_and_tiny_values(name: str, quantization: str | None, factor: float, base: Any, queries: Any) -> None:
    for metric in (Metric.L2, Metric.DOT):
        ours = made(name, quantization, metric)
        able = ours.kind.capabilities
        if metric not in (able.metrics if quantization is None else able.quantizations[quantization]):
            continue
        rows = np.ascontiguousarray(factor * base, np.float32)
        # Of a few dimensions one bit each tells little apart.
        floor = 0.8 if quantization == "rabitq" else 0.9
        asked = queries if metric is Metric.DOT else np.ascontiguousarray(factor * queries, np.float32)
        assert recall(ours.build(rows), ours.kind, rows, asked, metric) >= floor


def test_a_query_too_far_off_to_rank_rows_finds_nothing(base: Any) -> None:
    for name, quantization in (("flat", "sq8"), ("ivf", None)):
        found = made(name, quantization, Metric.L2).build(base).search(np.full((1, DIM), 1e20, np.float32), 5)
        assert (found.rows == -1).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("quantization", ["fp16", "rabitq"])
@pytest.mark.parametrize("largest", [1.0, 1e30])
def test_inner_products_of_a_batch_with_very_different_queries(
    quantization: str, largest: float, base: Any, queries: Any
) -> None:
    index = made("flat", quantization, Metric.DOT).build(base)
    mixed = np.concatenate([queries[:1], queries[1:2] * largest, queries[2:3] * 1e-30]).astype(np.float32)
    assert (index.search(mixed, 5).rows >= 0).all()
    alone = [index.search(q[None], 5).rows[0] for q in mixed]
    np.testing.assert_array_equal(index.search(mixed, 5).rows, alone)


@pytest.mark.filterwarnings("error")
def test_a_query_far_off_tiny_rows_finds_nothing_and_overflows_nowhere(base: Any) -> None:
    tiny = np.ascontiguousarray(1e-38 * base, np.float32)
    for name, quantization in (("flat", "fp16"), ("hnsw", None)):
        found = made(name, quantization, Metric.L2).build(tiny).search(np.full((1, DIM), 1e6, np.float32), 5)
        assert (found.rows == -1).all()


def test_half_precision_that_was_asked_for_is_kept_whatever_it_loses() -> None:
    clumped = 1.0 + 1e-4 * np.random.default_rng(0).standard_normal((300, DIM)).astype(np.float32)
    assert made("hnsw", None, Metric.L2).build(clumped).precision is Precision.SINGLE
    assert made("hnsw", "fp16", Metric.L2).build(clumped).precision is Precision.HALF


@pytest.mark.parametrize(("name", "most"), [("flat", 8), ("ivf", 8), ("ivfpq", 8), ("hnsw", 7)])
def test_bytes_of_product_quantization(name: str, most: int, wordnet5k: Any) -> None:
    """48 bytes a vector of 384 dimensions; the index at most an eighth of the vectors, but for a graph's links. What is
    learned weighs as much as 5,000 codes, and is once in a segment."""
    kind, rows = registry.get_kind(name), wordnet5k.base[:2_000]
    spec = None if name == "ivfpq" else resolve(QuantizationSpec("pq"), 384)
    assert spec is None or spec.params["m"] * spec.params["nbits"] == 48 * 8
    index = kind.build(rows, Metric.COSINE, BuildOptions(quantization=spec))
    lists = 4 * 384 * index.parts.native.nlist if name.startswith("ivf") else 0
    learned = lists + 4 * 384 * (16 if name == "ivfpq" else 256)
    assert (index.memory_bytes() - learned) * most <= rows.nbytes


@pytest.mark.parametrize(
    ("spec", "quantization", "metric", "said"),
    [
        (IndexSpec("ivfpq", {"m": 5}), None, Metric.L2, "divides dim = 32"),
        (IndexSpec("ivfpq", {"nbits": 5}), None, Metric.L2, "4 or 8"),
        (IndexSpec("ivfpq"), None, Metric.L1, "'flat'"),
        (IndexSpec("ivfpq"), "sq8", Metric.L2, "kinds that do: 'flat'"),
        (IndexSpec("lsh"), None, Metric.DOT, "kinds that can: "),
        (IndexSpec("lsh", {"nbits": 99_999}), None, Metric.L2, "between 0 and 16384"),
        (IndexSpec("flat"), "binary", Metric.DOT, "under metric 'dot'; kinds that do: none"),
        (IndexSpec("hnsw"), "fp16", Metric.L1, "under metric 'l1'; kinds that do: none"),
        (IndexSpec("ivf"), "binary", Metric.COSINE, "kinds that do: 'flat'"),
        (IndexSpec("ivf", {"m": 3}), None, Metric.L2, "it has: 'nlist'"),
    ],
)
def test_what_cannot_be_is_refused_at_creation(
    spec: IndexSpec, quantization: str | None, metric: Metric, said: str
) -> None:
    with pytest.raises(InvalidArgument, match=said):
        registry.resolve(spec, metric, None if quantization is None else QuantizationSpec(quantization), DIM)


def test_rows_to_learn_from_and_to_measure_with_are_never_the_same() -> None:
    for rows, count in ((0, 10), (1, 10), (9, 9), (20, 5), (3_000, 375), (3_000, 3_000), (20_000, 1_024)):
        numbers = np.arange(rows, dtype=np.float32)[:, None]
        space = Space(Metric.L2, 1)
        learned, held = space.sample(numbers, count).ravel(), space.held_out(numbers).ravel()
        assert not set(learned) & set(held)
        assert len(learned) == min(count, rows - len(held))
        assert len(held) == min(1_024, rows // 8)


class TestKmeans:
    def test_finds_what_is_there(self) -> None:
        centres = 10.0 * np.random.default_rng(0).standard_normal((8, 6)).astype(np.float32)
        rows = (
            np.repeat(centres, 50, axis=0) + np.random.default_rng(1).standard_normal((400, 6)).astype(np.float32) * 0.1
        )
        found = kmeans(rows, 24, 10, lambda: False)
        nearest = np.linalg.norm(centres[:, None] - found[None], axis=2).min(axis=1)
        assert nearest.max() < 0.2
        np.testing.assert_array_equal(found, kmeans(rows, 24, 10, lambda: False))

    def test_empty_clusters_are_filled(self) -> None:
        rows = np.zeros((100, 4), np.float32)
        rows[:50] += 1.0
        found = kmeans(rows, 5, 3, lambda: False)
        assert np.isfinite(found).all()
        assert np.linalg.norm(found[:, None] - rows[[0, 99]][None], axis=2).min(axis=0).max() < 0.01

    def test_few_rows_or_none(self) -> None:
        rows = np.arange(6, dtype=np.float32).reshape(3, 2)
        np.testing.assert_array_equal(kmeans(rows, 5, 3, lambda: False), rows[[0, 1, 2, 0, 1]])
        assert not kmeans(rows[:0], 2, 3, lambda: False).any()

    def test_it_is_cancelled(self) -> None:
        with pytest.raises(BuildCancelled):
            kmeans(np.ones((50, 2), np.float32), 3, 5, lambda: True)


class TestRotation:
    @pytest.mark.parametrize("dim", [1, 2, 7, 96, 383, 1500])
    def test_keeps_lengths_and_angles(self, dim: int) -> None:
        rows = np.random.default_rng(0).standard_normal((5, dim)).astype(np.float32)
        turned = rotation(dim).apply(rows)
        assert turned.shape == rows.shape
        np.testing.assert_allclose(turned @ turned.T, rows @ rows.T, rtol=1e-4, atol=1e-3)

    def test_spreads_one_dimension_over_all(self) -> None:
        turned = rotation(384).apply(np.eye(384, dtype=np.float32)[:1])
        assert np.abs(turned).max() < 6 / np.sqrt(384)

    def test_is_the_same_in_every_version(self) -> None:
        """What is stored was turned by it: it must never change."""
        turned = rotation(12).apply(np.arange(1, 13, dtype=np.float32)[None])[0]
        np.testing.assert_allclose(turned[:4], FIRST_FOUR, rtol=1e-5)

    def test_planes_come_in_orthogonal_sets(self) -> None:
        planes = projection(24, 60)
        assert planes.shape == (60, 24)
        for first in (0, 24):
            some = planes[first : first + 24]
            np.testing.assert_allclose(some @ some.T, np.eye(24), atol=1e-5)
        assert np.abs(planes[:24] @ planes[24:48].T).max() < 0.99


FIRST_FOUR = [-1.38756, 4.18414, 8.25152, 16.84036]
