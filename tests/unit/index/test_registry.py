"""Finding kinds and checking what users ask of them."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vectordb.errors import FailedPrecondition, InvalidArgument
from vectordb.index import registry
from vectordb.index.base import Capabilities, Parameter
from vectordb.index.registry import check_search_params, get_kind, kind_names, resolve
from vectordb.metric import Metric
from vectordb.types import IndexSpec, QuantizationSpec


def kind(name: str, **capabilities: Any) -> Any:
    able = Capabilities(**{"family": "trees", "metrics": frozenset({Metric.L2}), **capabilities})
    return SimpleNamespace(name=name, capabilities=able, build=lambda *a: None, load=lambda *a: None)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Installs a plug-in that registers the given objects."""
    real = importlib.metadata.entry_points
    entries: list[importlib.metadata.EntryPoint] = []
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **asked: [*real(**asked), *entries])

    def add(**objects: Any) -> None:
        for name, value in objects.items():
            module = ModuleType(f"plug_in_{name}")
            module.KIND = value  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, module.__name__, module)
            entries.append(importlib.metadata.EntryPoint(name, f"{module.__name__}:KIND", registry.GROUP))
        registry.clear_cache()

    yield add
    registry.clear_cache()


def refused(spec: IndexSpec, metric: Metric = Metric.L2, quantization: str | None = None, dim: int = 8) -> str:
    given = None if quantization is None else QuantizationSpec(quantization)
    with pytest.raises(InvalidArgument) as error:
        resolve(spec, metric, given, dim)
    return error.value.message


def test_the_built_in_kinds_are_there() -> None:
    assert {"flat", "hnsw"} <= set(kind_names())
    assert get_kind("hnsw").capabilities.family == "graph"
    assert get_kind("flat").capabilities.exact
    assert get_kind("flat") is get_kind("flat")


def test_names_are_listed_without_loading_faiss() -> None:
    code = "import sys; from vectordb.index import registry; registry.kind_names(); print('faiss' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_built_in_kind_is_found_without_a_look_at_all_distributions(monkeypatch: pytest.MonkeyPatch) -> None:
    def scanned(**_: Any) -> Any:
        raise AssertionError("opening a folder need not wait for this")

    monkeypatch.setattr(importlib.metadata, "entry_points", scanned)
    registry.clear_cache()
    assert get_kind("hnsw").name == "hnsw"


def test_an_unknown_kind_is_refused_by_name() -> None:
    message = refused(IndexSpec("hsnw"))
    assert "'hsnw'" in message
    for name in ("'auto'", "'flat'", "'hnsw'"):
        assert name in message


def test_defaults_are_filled_in_and_numpy_numbers_made_plain() -> None:
    found = resolve(IndexSpec("hnsw", {"m": np.int64(24)}), Metric.L2, None, 8)  # type: ignore[dict-item]
    assert found == ("hnsw", {"m": 24, "ef_construction": 200}, None)
    assert type(found.params["m"]) is int
    assert resolve(IndexSpec("flat"), Metric.L1, None, 8) == ("flat", {}, None)


def test_auto_takes_the_graphs_parameters() -> None:
    assert resolve(IndexSpec("auto"), Metric.DOT, None, 8) == ("hnsw", {"m": 16, "ef_construction": 200}, None)
    assert "'depth'" in refused(IndexSpec("auto", {"depth": 1}))


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"links": 3}, ["'links'", "'m'", "'ef_construction'"]),
        ({"m": 1}, ["'m'", "between 2 and 128", "got 1"]),
        ({"m": 129}, ["'m'", "between 2 and 128", "got 129"]),
        ({"m": "16"}, ["'m'", "must be int", "'16'"]),
        ({"m": 16.0}, ["'m'", "must be int", "float"]),
        ({"m": True}, ["'m'", "must be int", "bool"]),
        ({"m": None}, ["'m'", "must be int"]),
    ],
)
def test_wrong_parameters_are_named(params: dict[str, Any], said: list[str]) -> None:
    message = refused(IndexSpec("hnsw", params))
    assert all(part in message for part in said), message


def test_parameters_where_there_are_none() -> None:
    assert "it has: none" in refused(IndexSpec("flat", {"m": 16}))


def test_a_metric_that_the_kind_cannot_do_names_those_that_can(install: Callable[..., None]) -> None:
    install(forest=kind("forest"))
    message = refused(IndexSpec("forest"), Metric.L1)
    assert "'forest'" in message
    assert "'l1'" in message
    assert "'flat', 'hnsw'" in message


def test_a_quantization_that_the_kind_cannot_do_names_those_that_can(install: Callable[..., None]) -> None:
    install(forest=kind("forest", quantizations={"sq8": frozenset({Metric.L2, Metric.L1})}), stump=kind("stump"))
    assert "'forest'" in refused(IndexSpec("stump"), quantization="sq8").partition("kinds that do:")[2]
    install(vine=kind("vine", metrics=frozenset(Metric), quantizations={"sq8": frozenset({Metric.L2})}))
    assert "'sq8' under metric 'dot'" in refused(IndexSpec("vine"), Metric.DOT, quantization="sq8")
    assert "choose one of 'fp16', 'sq8', 'pq'" in refused(IndexSpec("hnsw"), quantization="nothing")
    assert resolve(IndexSpec("forest"), Metric.L2, QuantizationSpec("sq8"), 8).kind == "forest"


def test_quantizations_are_filled_in_and_checked_against_the_dimension(install: Callable[..., None]) -> None:
    install(forest=kind("forest", quantizations={name: frozenset(Metric) for name in ("pq", "sq8")}))

    def made(dim: int, **params: Any) -> Any:
        found = resolve(IndexSpec("forest"), Metric.L2, QuantizationSpec("pq", params), dim).quantization
        assert found is not None
        return found.params

    assert made(384)["m"] == 48
    assert made(384, m=96, nbits=4, oversampling=3)["m"] == 96
    assert made(384, oversampling=3)["oversampling"] == 3.0
    assert made(384, rescore=False)["oversampling"] == 1.0
    assert made(7)["m"] == 1
    for params, said in (({"m": 5}, "4, 6"), ({"nbits": 5}, "4 or 8"), ({"oversampling": 0.5}, "between 1 and 100")):
        with pytest.raises(InvalidArgument, match=said):
            made(384, **params)
    with pytest.raises(InvalidArgument, match="no parameter 'm'"):
        resolve(IndexSpec("forest"), Metric.L2, QuantizationSpec("sq8", {"m": 3}), 8)


def test_too_many_dimensions(install: Callable[..., None]) -> None:
    install(forest=kind("forest", max_dim=64))
    assert "at most 64" in refused(IndexSpec("forest"), dim=65)
    assert resolve(IndexSpec("forest"), Metric.L2, None, 64).kind == "forest"


def test_search_parameters() -> None:
    assert check_search_params("hnsw", None, {"ef": np.int32(99)}) == {"ef": 99}
    assert check_search_params("auto", None, {"ef": 99}) == {"ef": 99}
    assert check_search_params("hnsw", None, None) == {}
    assert check_search_params("hnsw", QuantizationSpec("sq8"), {"oversampling": 4}) == {"oversampling": 4.0}
    for params in ({"ef": 0}, {"ef": "wide"}, {"beam": 3}, {"ef": float("nan")}):
        with pytest.raises(InvalidArgument, match="ef"):
            check_search_params("hnsw", None, params)
    with pytest.raises(InvalidArgument, match="it has: 'target_recall'"):
        check_search_params("flat", None, {"ef": 10})


def test_search_parameters_are_told_apart_by_their_types() -> None:
    """What was judged once is not judged again, though 1 == True == 1.0."""
    found = check_search_params("hnsw", None, {"ef": 1})
    found["ef"] = 5
    assert check_search_params("hnsw", None, {"ef": 1}) == {"ef": 1}
    for wrong in (True, 1.0, [1], np.ones(2)):
        with pytest.raises(InvalidArgument, match="must be int"):
            check_search_params("hnsw", None, {"ef": wrong})  # type: ignore[dict-item]
    with pytest.raises(InvalidArgument, match="params is a dict"):
        check_search_params("hnsw", None, [("ef", 3)])  # type: ignore[arg-type]


def test_parameters_of_every_type(install: Callable[..., None]) -> None:
    known = {
        "share": Parameter(float, 0.5, 0.0, 1.0),
        "fast": Parameter(bool, False),
        "mode": Parameter(str, "plain"),
        "least": Parameter(int, 1, low=1),
        "most": Parameter(float, 1.0, high=2.0),
    }
    install(forest=kind("forest", build_params=known))
    given = {"share": 1, "fast": np.True_, "mode": "other", "least": 5, "most": -1.5}
    found = resolve(IndexSpec("forest", given), Metric.L2, None, 8).params  # type: ignore[arg-type]
    assert found == {"share": 1.0, "fast": True, "mode": "other", "least": 5, "most": -1.5}
    assert [type(value) for value in found.values()] == [float, bool, str, int, float]
    for wrong in ({"share": 1.5}, {"share": float("nan")}, {"fast": 1}, {"mode": 3}, {"least": 0}, {"most": 2.5}):
        (name,) = wrong
        assert f"'{name}'" in refused(IndexSpec("forest", wrong))
    assert "at least 1" in refused(IndexSpec("forest", {"least": 0}))
    assert "at most 2" in refused(IndexSpec("forest", {"most": 3}))


def test_a_plug_in_that_does_not_import(install: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    install(forest=kind("forest"))
    monkeypatch.delitem(sys.modules, "plug_in_forest")
    with pytest.raises(FailedPrecondition, match=r"'forest'.*cannot be loaded.*plug_in_forest"):
        get_kind("forest")
    # It does not spoil the search for alternatives.
    install(stump=kind("stump"))
    assert "'flat'" in refused(IndexSpec("stump"), Metric.L1).partition("kinds that can:")[2]


@pytest.mark.parametrize("wrong", [object(), kind("another"), SimpleNamespace(name="forest", capabilities=None)])
def test_a_plug_in_that_is_no_kind(install: Callable[..., None], wrong: Any) -> None:
    install(forest=wrong)
    with pytest.raises(FailedPrecondition, match="is not an index kind called 'forest'"):
        get_kind("forest")


def test_built_in_names_cannot_be_taken(install: Callable[..., None]) -> None:
    install(flat=kind("flat"))
    assert get_kind("flat").capabilities.family == "exact"
