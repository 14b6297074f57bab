"""The kinds that other libraries make: what their libraries do not check, and what they do not share."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from vectordb.errors import Corruption, FailedPrecondition, InvalidArgument, ResourceExhausted
from vectordb.index import envelope
from vectordb.index.base import BuildOptions, CannotExtend, capabilities_of
from vectordb.index.registry import get_kind, resolve
from vectordb.metric import Metric
from vectordb.types import IndexSpec

KINDS = ["annoy", "hnswlib", "scann", "vamana"]
ROWS, DIM = 1_300, 24
PACKAGES = {"annoy": "annoy", "hnswlib": "hnswlib", "scann": "scann", "vamana": "svs"}
EXTRAS = {**PACKAGES, "vamana": "svs"}


@pytest.fixture(scope="module")
def base(data: ModuleType) -> np.ndarray:
    vectors, _ = data.clustered(ROWS, DIM, 40, seed=5)
    return vectors


@pytest.fixture(scope="module")
def saved(base: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A file of each kind over ``base`` under cosine."""
    folder = tmp_path_factory.mktemp("saved")
    for name in KINDS:
        get_kind(name).build(base, Metric.COSINE, BuildOptions()).save(folder / name)
    return {name: (folder / name).read_bytes() for name in KINDS}


def load(name: str, data: bytes, folder: Path, base: np.ndarray, metric: Metric = Metric.COSINE) -> Any:
    path = folder / "index"
    path.write_bytes(data)
    return get_kind(name).load(path, base, metric, BuildOptions())


@pytest.mark.parametrize("name", KINDS)
def test_a_file_for_something_else_is_told(
    name: str, base: np.ndarray, saved: dict[str, bytes], tmp_path: Path
) -> None:
    data = saved[name]
    assert load(name, data, tmp_path, base).search(base[:3], 1).rows[:, 0].tolist() == [0, 1, 2]
    other = KINDS[KINDS.index(name) - 1]
    for what, content, rows, metric in (
        ("another matrix", data, base[1:], Metric.COSINE),
        ("another dimension", data, np.ascontiguousarray(base[:, 1:]), Metric.COSINE),
        ("another metric", data, base, Metric.L2),
        ("another kind", saved[other], base, Metric.COSINE),
        ("an empty file", b"", base, Metric.COSINE),
        ("a part of the frame", data[:40], base, Metric.COSINE),
        ("zeros", bytes(len(data)), base, Metric.COSINE),
    ):
        with pytest.raises(Corruption, match="delete it to have it rebuilt"):
            load(name, content, tmp_path, rows, metric)
        assert what


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.9999])
def test_a_truncated_file_is_told(
    name: str, share: float, base: np.ndarray, saved: dict[str, bytes], tmp_path: Path
) -> None:
    data = saved[name]
    with pytest.raises(Corruption):
        load(name, data[: int(share * len(data))], tmp_path, base)
    with pytest.raises(Corruption):
        load(name, data + b"more", tmp_path, base)


@pytest.mark.parametrize("name", ["hnswlib", "vamana"])
def test_links_to_nowhere_are_told_before_they_are_followed(
    name: str, base: np.ndarray, saved: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "index"
    path.write_bytes(saved[name])
    sections = envelope.read_sections(path, name, base.shape, Metric.COSINE).sections
    part = "level0" if name == "hnswlib" else "graph"
    at = saved[name].index(bytes(sections[part]))
    # Past the count of the first node's links, for SVS also past its head.
    first = at + 4 + (0 if name == "hnswlib" else 1_024)
    data = bytearray(saved[name])
    data[first : first + 4] = (ROWS + 7).to_bytes(4, "little")
    with pytest.raises(Corruption, match="nodes that are not there"):
        load(name, bytes(data), tmp_path, base)
    data = bytearray(saved[name])
    data[first - 4 : first] = (60_000).to_bytes(4, "little")
    with pytest.raises(Corruption, match="nodes that are not there"):
        load(name, bytes(data), tmp_path, base)


@pytest.mark.parametrize("name", KINDS)
def test_a_disk_that_refuses_the_file_is_told(name: str, base: np.ndarray, tmp_path: Path) -> None:
    index = get_kind(name).build(base, Metric.COSINE, BuildOptions())
    with pytest.raises(ResourceExhausted, match="cannot write"):
        index.save(tmp_path / "absent" / "index")


@pytest.mark.parametrize("name", KINDS)
def test_without_its_package_the_error_has_the_line_that_installs_it(name: str) -> None:
    program = f"""
import sys
sys.modules[{PACKAGES[name]!r}] = None
import vectordb
from vectordb import errors
with vectordb.Database(":memory:") as db:
    try:
        db.create_collection("c", 8, index={name!r})
    except errors.FailedPrecondition as error:
        print(error.message)
    db.create_collection("c", 8, index="hnsw")
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert f"pip install 'vectordb-engine[{EXTRAS[name]}]'" in run.stdout
    assert name in run.stdout


def test_a_package_that_does_not_load_here_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    from vectordb.index import extras

    def broken(name: str) -> Any:
        raise ImportError("libmystery.so: cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(FailedPrecondition, match=r"libmystery.*vectordb-engine\[svs\]"):
        extras.library("vamana", "svs", "svs")


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("hnswlib", {"m": 1}),
        ("hnswlib", {"nlist": 10}),
        ("annoy", {"n_trees": 0}),
        ("scann", {"block": 9}),
        ("scann", {"leaves": "many"}),
        ("vamana", {"degree": 2}),
        ("vamana", {"build_window": 1.5}),
    ],
)
def test_parameters_that_cannot_be_are_refused(name: str, params: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(params))):
        resolve(IndexSpec(name, params), Metric.COSINE, None, 16)


def test_hnswlib_answers_by_each_search_s_own_width(base: np.ndarray) -> None:
    """Its width is a setting of the whole index; threads with different ones must not see each other's."""
    index = get_kind("hnswlib").build(base, Metric.COSINE, BuildOptions())
    queries = base[:60] + np.float32(0.05)
    wanted = {ef: index.search(queries, 5, params={"ef": ef}).rows for ef in (5, 40, 200)}
    assert (wanted[5] != wanted[200]).any()

    def work(ef: int) -> bool:
        return all(
            (index.search(queries[i : i + 1], 5, params={"ef": ef}).rows == wanted[ef][i]).all()
            for _ in range(5)
            for i in range(len(queries))
        )

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(work, [5, 40, 200, 5, 40, 200]))


def test_hnswlib_where_fewer_are_reached_than_asked_for(base: np.ndarray) -> None:
    """hnswlib raises then, for the whole batch; islands of rows cannot be reached from one another."""
    far = np.concatenate([base[:300], base[:300] + np.float32(500.0)])
    index = get_kind("hnswlib").build(far, Metric.L2, BuildOptions(params={"m": 2, "ef_construction": 8}))
    found = index.search(base[:20], 600)
    reached = (found.rows >= 0).sum(axis=1)
    assert (reached >= 1).all()
    for row, count in zip(found.rows, reached, strict=True):
        assert (row[:count] >= 0).all()
        assert len(set(row[:count].tolist())) == count


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_hnswlib_keeps_its_recall_under_selective_filters(base: np.ndarray, data: ModuleType, share: float) -> None:
    index = get_kind("hnswlib").build(base, Metric.COSINE, BuildOptions())
    mask = np.random.default_rng(3).random(ROWS) < share
    rows = np.flatnonzero(mask)
    queries = base[::20] + np.random.default_rng(4).normal(0, 0.05, base[::20].shape).astype(np.float32)
    truth = rows[data.brute_force(queries, base[rows], 5)]
    found = index.search(queries, 5, allowed=np.packbits(mask, bitorder="little")).rows
    hits = sum(len(set(f) & set(t)) for f, t in zip(found.tolist(), truth.tolist(), strict=True))
    assert mask[found[found >= 0]].all()
    assert hits >= 0.97 * truth.size


def test_hnswlib_is_not_extended_by_rows_out_of_range(base: np.ndarray) -> None:
    index = get_kind("hnswlib").build(base, Metric.L2, BuildOptions())
    longer = np.concatenate([base, np.full((1, DIM), 1e18, np.float32)])
    with pytest.raises(CannotExtend, match="range"):
        index.extended(longer, BuildOptions())
    empty = get_kind("hnswlib").build(base[:0], Metric.L2, BuildOptions())
    with pytest.raises(CannotExtend, match="empty"):
        empty.extended(base, BuildOptions())


def test_the_defaults_grow_with_the_rows(base: np.ndarray) -> None:
    few = capabilities_of(get_kind("annoy").build(base, Metric.COSINE, BuildOptions()), get_kind("annoy"))
    assert 1_500 < int(few.search_params["search_k"].default) < 3_000
    leaves = capabilities_of(get_kind("scann").build(base, Metric.DOT, BuildOptions()), get_kind("scann"))
    assert int(leaves.search_params["leaves_to_search"].default) < 45
    assert leaves.oversampling > capabilities_of(object(), get_kind("scann")).oversampling  # type: ignore[arg-type]


def test_vamana_stores_what_suits_the_rows(base: np.ndarray) -> None:
    kind: Any = get_kind("vamana")
    assert kind.build(base, Metric.COSINE, BuildOptions()).dtype == "float16"
    close = (np.float32(1.0) + 1e-5 * np.arange(400, dtype=np.float32))[:, None] * np.ones((1, 4), np.float32)
    assert kind.build(close, Metric.L2, BuildOptions()).dtype == "float32"


def test_a_query_too_far_away_to_be_ranked_is_left_to_exact_search(base: np.ndarray) -> None:
    for name in KINDS:
        index = get_kind(name).build(base, Metric.L2, BuildOptions())
        assert (index.search(np.full((2, DIM), 1e30, np.float32), 3).rows == -1).all(), name
