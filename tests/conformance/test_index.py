"""What every index kind must do: one suite, run against each kind that is installed and against a third party's, plain
and under every quantization that it supports.

The third party is ``pivots.py``, registered the way a plug-in is: by an entry point.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conformance.case import DIM, LIMIT, QUERIES, ROWS, Case
from tests.conformance.pivots import THIRD_PARTY, PivotKind
from vectordb.index import registry
from vectordb.index.base import BuildCancelled, BuildOptions, IndexKind, Neighbours, capabilities_of, single_search
from vectordb.metric import Metric, distances, prepared, scores

OVERSAMPLING = "oversampling"  # read by the planner, not by indexes


@pytest.fixture(scope="module", autouse=True)
def third_party() -> Iterator[None]:
    """Installs the third party's distribution, as far as importlib.metadata can tell."""
    module = ModuleType("third_party_index")
    module.KIND = PivotKind()  # type: ignore[attr-defined]
    entry = importlib.metadata.EntryPoint(THIRD_PARTY, "third_party_index:KIND", registry.GROUP)
    real = importlib.metadata.entry_points

    def entry_points(**asked: Any) -> Any:
        return [*real(**asked), entry]

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "third_party_index", module)
        patch.setattr(importlib.metadata, "entry_points", entry_points)
        registry.clear_cache()
        yield
    registry.clear_cache()


def _cases() -> list[Any]:
    kinds: dict[str, IndexKind] = {name: registry.get_kind(name) for name in registry.usable_kind_names()}
    kinds[THIRD_PARTY] = PivotKind()
    plain = [
        pytest.param((name, metric, None), id=f"{name}-{metric.value}")
        for name, kind in sorted(kinds.items())
        for metric in sorted(kind.capabilities.metrics)
    ]
    coded = [
        pytest.param((name, metric, quantization), id=f"{name}-{quantization}-{metric.value}")
        for name, kind in sorted(kinds.items())
        for quantization, metrics in kind.capabilities.quantizations.items()
        for metric in sorted(metrics)
    ]
    return plain + coded


@pytest.fixture(scope="module")
def cases(third_party: None, data: ModuleType) -> Callable[[str, Metric, str | None], Case]:
    known: dict[tuple[str, Metric, str | None], Case] = {}

    def case(name: str, metric: Metric, quantization: str | None) -> Case:
        if (name, metric, quantization) not in known:
            known[name, metric, quantization] = Case(name, metric, quantization, data)
        return known[name, metric, quantization]

    return case


@pytest.fixture(params=_cases())
def case(request: pytest.FixtureRequest, cases: Callable[[str, Metric, str | None], Case]) -> Case:
    return cases(*request.param)


def bits(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.packbits(mask, bitorder="little")


def assert_well_formed(found: Neighbours, queries: int, limit: int, rows: int) -> None:
    assert found.rows.shape == found.distances.shape == (queries, limit)
    assert found.rows.dtype == np.int64
    assert found.distances.dtype == np.float32
    assert ((found.rows >= -1) & (found.rows < rows)).all()
    assert found.scored >= 0
    assert (np.isposinf(found.distances) | (found.rows >= 0)).all(), "padding has infinite distance"
    assert not np.isnan(found.distances).any()
    for row, far in zip(found.rows, found.distances, strict=True):
        real = row[row >= 0]
        assert len(set(real.tolist())) == len(real), "a row twice"
        assert (row[: len(real)] >= 0).all(), "padding before a row"
        assert (np.diff(far[: len(real)]) >= 0).all(), "not ascending"


@pytest.mark.parametrize("queries", [1, 2, QUERIES])
@pytest.mark.parametrize("limit", [1, LIMIT])
def test_answers_have_the_promised_form(case: Case, queries: int, limit: int) -> None:
    found = case.index.search(case.queries[:queries], limit)
    assert_well_formed(found, queries, limit, ROWS)
    assert (found.rows >= 0).all()
    assert found.scored > 0


def test_no_queries_no_answers(case: Case) -> None:
    assert_well_formed(case.index.search(case.queries[:0], LIMIT), 0, LIMIT, ROWS)


def test_a_batch_answers_like_its_queries_one_by_one(case: Case) -> None:
    together = case.index.search(case.queries, LIMIT)
    alone = [case.index.search(case.queries[i : i + 1], LIMIT).rows[0] for i in range(QUERIES)]
    # Sums may be taken in another order for batches, which may swap near-equal rows at the cut.
    assert case.recall(together.rows, np.array(alone)) >= 0.99


@pytest.mark.parametrize("limit", [1, LIMIT, ROWS + 1])
def test_a_search_that_is_repeated_answers_like_any(case: Case, limit: int) -> None:
    search = single_search(case.index, limit, None)
    for query in case.queries[:8]:
        rows, scored = search(query[None])
        expected = case.index.search(query[None], limit)
        np.testing.assert_array_equal(rows, expected.rows[0])
        assert scored == expected.scored


def test_recall_on_clusters(case: Case) -> None:
    assert case.recall(case.best(case.index, case.queries, LIMIT, case.base)) >= (1.0 if case.able.exact else 0.95)


def test_a_limit_beyond_the_rows_is_padded(case: Case) -> None:
    index = case.built(case.base[:7])
    found = index.search(case.queries, 20)
    assert_well_formed(found, QUERIES, 20, 7)
    assert (np.sort(found.rows[:, :7]) == np.arange(7)).all()


def test_an_empty_matrix(case: Case, tmp_path: Path) -> None:
    empty = case.base[:0]
    index = case.built(empty)
    for each in (index, case.loaded(index, empty, tmp_path / "index")):
        found = each.search(case.queries, LIMIT)
        assert_well_formed(found, QUERIES, LIMIT, 0)
        assert (found.rows == -1).all()


def test_a_single_row(case: Case, tmp_path: Path) -> None:
    one = case.base[:1]
    index = case.built(one)
    for each in (index, case.loaded(index, one, tmp_path / "index")):
        found = each.search(case.queries, 3)
        assert_well_formed(found, QUERIES, 3, 1)
        assert (found.rows[:, 0] == 0).all()


def test_a_filter_is_never_broken(case: Case, data: ModuleType) -> None:
    if not case.able.filtered:
        return
    mask = np.random.default_rng(5).random(ROWS) < 0.5
    found = case.index.search(case.queries, LIMIT, allowed=bits(mask))
    assert_well_formed(found, QUERIES, LIMIT, ROWS)
    assert mask[found.rows].all()
    rows = np.flatnonzero(mask)
    metric = "dot" if case.metric is Metric.COSINE else case.metric.value
    truth = rows[data.brute_force(case.queries, case.base[rows], LIMIT, metric=metric)]
    best = case.best(case.index, case.queries, LIMIT, case.base, allowed=bits(mask))
    assert case.recall(best, truth) >= (1.0 if case.able.exact else 0.95)


def test_a_filter_at_the_least_selectivity_that_the_kind_claims(case: Case, data: ModuleType) -> None:
    if not case.able.filtered:
        return
    mask = np.random.default_rng(6).random(ROWS) < max(0.02, case.able.min_filtered_selectivity)
    found = case.best(case.index, case.queries, LIMIT, case.base, allowed=bits(mask))
    assert mask[found[found >= 0]].all()
    rows = np.flatnonzero(mask)
    metric = "dot" if case.metric is Metric.COSINE else case.metric.value
    truth = rows[data.brute_force(case.queries, case.base[rows], LIMIT, metric=metric)]
    assert case.recall(found, truth) >= (1.0 if case.able.exact else 0.9)


def test_a_filter_of_nothing_and_of_everything(case: Case) -> None:
    if not case.able.filtered:
        return
    nothing = case.index.search(case.queries, LIMIT, allowed=bits(np.zeros(ROWS, bool)))
    assert_well_formed(nothing, QUERIES, LIMIT, ROWS)
    assert (nothing.rows == -1).all()
    everything = case.index.search(case.queries, LIMIT, allowed=bits(np.ones(ROWS, bool)))
    assert_well_formed(everything, QUERIES, LIMIT, ROWS)
    best = case.best(case.index, case.queries, LIMIT, case.base, allowed=bits(np.ones(ROWS, bool)))
    assert case.recall(best) >= (1.0 if case.able.exact else 0.95)


def test_saved_and_loaded_it_answers_alike(case: Case, tmp_path: Path) -> None:
    before = case.index.search(case.queries, LIMIT)
    loaded = case.loaded(case.index, case.base, tmp_path / "index")
    after = loaded.search(case.queries, LIMIT)
    np.testing.assert_array_equal(after.rows, before.rows)
    np.testing.assert_array_equal(after.distances, before.distances)
    assert loaded.memory_bytes() >= 0
    # Saved again from the loaded one: the same file.
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "index").read_bytes()


def test_one_file_and_no_other(case: Case, tmp_path: Path) -> None:
    case.index.save(tmp_path / "index")
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_loaded_it_is_searched_from_four_threads(case: Case, tmp_path: Path) -> None:
    loaded = case.loaded(case.index, case.base, tmp_path / "index")
    wanted = [case.index.search(case.queries[i : i + 1], LIMIT).rows for i in range(QUERIES)]
    mask = np.arange(ROWS) % 2 == 0

    def work(worker: int) -> list[Any]:
        out = []
        for turn in range(3 * QUERIES):
            i = (turn * 7 + worker) % QUERIES
            if case.able.filtered and turn % 3 == 0:
                rows = loaded.search(case.queries[i : i + 1], LIMIT, allowed=bits(mask)).rows
                assert mask[rows[rows >= 0]].all()
            else:
                out.append((i, loaded.search(case.queries[i : i + 1], LIMIT).rows))
        return out

    with ThreadPoolExecutor(4) as pool:
        for answers in pool.map(work, range(4)):
            for i, rows in answers:
                np.testing.assert_array_equal(rows, wanted[i])


@pytest.mark.parametrize("loaded", [False, True])
def test_extended_it_finds_every_row(case: Case, tmp_path: Path, loaded: bool) -> None:
    if not case.able.extends:
        assert not hasattr(case.index, "extended")
        return
    half = case.base[: ROWS // 2]
    index: Any = case.built(half)
    if loaded:
        index = case.loaded(index, half, tmp_path / "index")
    before = index.search(case.queries, LIMIT).rows
    seen: list[float] = []
    longer = index.extended(case.base, BuildOptions(progress=seen.append))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    np.testing.assert_array_equal(index.search(case.queries, LIMIT).rows, before)
    assert case.recall(case.best(longer, case.queries, LIMIT, case.base)) >= (1.0 if case.able.exact else 0.95)
    if case.metric is not Metric.DOT:  # the row nearest to a row by inner product is often another, longer one
        assert (case.best(longer, case.base, 1, case.base)[:, 0] == np.arange(ROWS)).mean() >= 0.99
    again = case.loaded(longer, case.base, tmp_path / "longer")
    np.testing.assert_array_equal(again.search(case.queries, LIMIT).rows, longer.search(case.queries, LIMIT).rows)
    with pytest.raises(BuildCancelled):
        index.extended(case.base, BuildOptions(cancelled=lambda: True))


def test_a_build_ends_soon_after_it_is_cancelled(case: Case) -> None:
    with pytest.raises(BuildCancelled):
        case.built(case.base, cancelled=lambda: True)
    polls = 0

    def third_time() -> bool:
        nonlocal polls
        polls += 1
        return polls == 3

    wide = np.tile(case.base, (8, 8))
    with pytest.raises(BuildCancelled):
        case.built(wide, cancelled=third_time)
    assert polls == 3


def test_a_build_polls_and_reports(case: Case) -> None:
    seen = case.progress
    if not case.able.builds_apart:  # those are built in a process that is killed
        assert np.diff(case.polled).max() < 1.0, "seconds of work between two polls"
    assert seen == sorted(seen)
    assert all(0.0 <= fraction <= 1.0 for fraction in seen)
    assert seen[-1] == 1.0


def test_parameters_have_sound_defaults(case: Case) -> None:
    for able in (case.able, capabilities_of(case.index, case.kind)):
        for parameter in (*able.build_params.values(), *able.search_params.values()):
            assert isinstance(parameter.default, parameter.type)
            if parameter.low is not None:
                assert float(parameter.default) >= parameter.low
            if parameter.high is not None:
                assert float(parameter.default) <= parameter.high


def test_a_wider_search_finds_no_less(case: Case) -> None:
    for name, parameter in case.kind.capabilities.search_params.items():
        if name == OVERSAMPLING:
            continue
        assert parameter.low is not None, "a search parameter of a number has a least value"
        least, default = int(parameter.low), int(parameter.default)
        found = [
            case.recall(case.best(case.index, case.queries, LIMIT, case.base, params={name: value}))
            for value in (least, default, 8 * default)
        ]
        assert found[0] <= found[1] + 0.01
        assert found[1] <= found[2] + 0.01
        assert found[2] >= (0.99 if case.quantization is None else 0.98)
        scored = [case.index.search(case.queries, LIMIT, params={name: v}).scored for v in (default, 4 * default)]
        assert scored[0] < scored[1]


def test_equal_rows_do_no_harm(case: Case) -> None:
    rows = np.concatenate([np.repeat(case.base[:1], 600, axis=0), case.base[:400]])
    index = case.built(rows)
    found = index.search(case.queries, LIMIT)
    assert_well_formed(found, QUERIES, LIMIT, 1000)
    assert (found.rows >= 0).all()
    best = [np.sort(distances(scores(query, rows, case.metric), case.metric))[LIMIT - 1] for query in case.queries]
    ended = case.best(index, case.queries, LIMIT, rows)
    got = [
        distances(scores(query, rows[near], case.metric), case.metric)
        for query, near in zip(case.queries, ended, strict=True)
    ]
    # Where codes order rows roughly, the copies of one row crowd out others that are nearer.
    floor = 0.95 if case.able.oversampling <= 2.0 else 0.85
    assert np.mean([g <= b + 1e-6 for g, b in zip(got, best, strict=True)]) >= floor


def test_nothing_but_equal_rows(case: Case) -> None:
    rows = np.repeat(case.base[:1], 3000, axis=0)
    found = case.built(rows).search(case.queries, LIMIT)
    assert_well_formed(found, QUERIES, LIMIT, 3000)
    assert (found.rows >= 0).all()


def test_it_builds_over_a_mapped_read_only_matrix(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "vectors.f32"
    case.base.tofile(path)
    mapped = np.memmap(path, np.float32, "r", shape=case.base.shape)
    index = case.kind.build(mapped, case.metric, case.options(DIM))
    assert case.recall(case.best(index, case.queries, LIMIT, mapped)) >= (1.0 if case.able.exact else 0.95)


def test_real_embeddings(case: Case, wordnet5k: Any, data: ModuleType) -> None:
    base = prepared(wordnet5k.base[:2500], case.metric)
    queries = prepared(wordnet5k.queries[:60], case.metric)
    metric = "dot" if case.metric is Metric.COSINE else case.metric.value
    truth = data.brute_force(queries, base, LIMIT, metric=metric)
    index = case.built(base, threads=2)
    floor = 1.0 if case.able.exact else 0.95 if wordnet5k.real else 0.9
    if case.kind.name == THIRD_PARTY:
        found = case.best(index, queries, LIMIT, base, params={"probes": 24})
    else:
        found = case.best(index, queries, LIMIT, base)
    assert case.recall(found, truth) >= floor
