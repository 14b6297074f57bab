"""Index kinds by name: found through entry points, loaded when first used, their parameters checked.

A distribution offers a kind by an entry point of the group ``vectordb.indexes`` whose name is the kind's name and
whose object is an :class:`~vectordb.index.base.IndexKind`::

    [project.entry-points."vectordb.indexes"]
    mykind = "mypackage.index:MYKIND"

The built-in kinds are registered the same way. They are also listed here, so that a source tree that was never
installed works; nobody can take their names.
"""

from __future__ import annotations

import importlib.metadata
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from vectordb.errors import FailedPrecondition, InvalidArgument
from vectordb.index.base import Capabilities, IndexKind, Parameter
from vectordb.index.parameters import Value, checked
from vectordb.index.quantization import QUANTIZATIONS
from vectordb.index.quantization import resolve as resolve_quantization
from vectordb.metric import Metric
from vectordb.types import IndexSpec, QuantizationSpec

GROUP = "vectordb.indexes"
AUTO = "auto"
"""Not a kind: exact while a segment is small, then :data:`AUTO_KIND`."""
AUTO_KIND = "hnsw"
TARGET_RECALL = "target_recall"
"""The search parameter that every kind has: the engine chooses the kind's own ones by it."""
_TARGET = Parameter(float, 0.95, 0.0, 1.0, "recall to reach, in place of the width of the search")

_BUILT_IN = {
    "flat": "vectordb.index.flat:FLAT",
    "hnsw": "vectordb.index.faiss_hnsw:HNSW",
    "ivf": "vectordb.index.ivf:IVF",
    "ivfpq": "vectordb.index.ivf:IVFPQ",
    "lsh": "vectordb.index.lsh:LSH",
    "hnswlib": "vectordb.index.hnswlib_graph:HNSWLIB",
    "annoy": "vectordb.index.annoy_trees:ANNOY",
    "scann": "vectordb.index.scann_leaves:SCANN",
    "vamana": "vectordb.index.svs_vamana:VAMANA",
}

_lock = threading.Lock()
_loaded: dict[str, IndexKind] = {}  # guarded by _lock for writing; reads are single look-ups
_entries: dict[str, importlib.metadata.EntryPoint] = {}  # guarded by _lock for writing


class Resolved(NamedTuple):
    """A checked choice: the kind's name, all its build parameters and those of the quantization, defaults filled in."""

    kind: str
    params: dict[str, Value]
    quantization: QuantizationSpec | None = None


def kind_names() -> list[str]:
    """Names of all kinds that are installed, sorted; loads none of them."""
    return sorted(_entry_points())


def usable_kind_names() -> list[str]:
    """Names of the kinds that can be used here, sorted: those whose library is installed. Loads all of them."""

    def usable(name: str) -> bool:
        try:
            get_kind(name)
        except FailedPrecondition:
            return False
        return True

    return [name for name in kind_names() if usable(name)]


def get_kind(name: str) -> IndexKind:
    """The kind of this name.

    Raises:
        InvalidArgument: No such kind; the message names those there are.
        FailedPrecondition: It is registered but cannot be loaded, or is not an index kind.
    """
    kind = _loaded.get(name)
    if kind is not None:
        return kind
    entry = _entry_point(name)
    if entry is None:
        names = ", ".join(repr(n) for n in [AUTO, *kind_names()])
        raise InvalidArgument(f"unknown index kind {name!r}; choose one of {names}", kind=name)
    try:
        loaded = entry.load()
    except FailedPrecondition:
        raise  # it says which extra is missing
    except Exception as error:
        raise FailedPrecondition(
            f"index kind {name!r} ({entry.value}) cannot be loaded: {error}; install what it needs or choose another",
            kind=name,
        ) from error
    _check_kind(name, entry.value, loaded)
    with _lock:
        return _loaded.setdefault(name, loaded)


def resolve(spec: IndexSpec, metric: Metric, quantization: QuantizationSpec | None, dim: int) -> Resolved:
    """Checks a collection's choice of index before anything is created.

    Args:
        spec: The kind and its parameters; under ``auto`` the parameters are those of :data:`AUTO_KIND`.
        metric: The collection's metric.
        quantization: Its quantization, or None.
        dim: Its dimension.

    Raises:
        InvalidArgument: Unknown kind or parameter, a value of the wrong type or out of range, or a metric,
            quantization or dimension that the kind cannot do; the message names what would do.
        FailedPrecondition: The kind cannot be loaded.
    """
    name = AUTO_KIND if spec.kind == AUTO else spec.kind
    capabilities = get_kind(name).capabilities
    if metric not in capabilities.metrics:
        able = _alternatives(lambda c: metric in c.metrics)
        supported = ", ".join(sorted(capabilities.metrics))
        raise InvalidArgument(
            f"index kind {name!r} cannot index metric {metric.value!r} (only {supported}); kinds that can: {able}",
            kind=name,
            metric=metric.value,
        )
    full = None if quantization is None else resolve_quantization(quantization, dim)
    if full is not None and metric not in capabilities.quantizations.get(full.kind, ()):
        able = _alternatives(lambda c: metric in c.quantizations.get(full.kind, ()))
        raise InvalidArgument(
            f"index kind {name!r} does not support quantization {full.kind!r} under metric {metric.value!r}; kinds "
            f"that do: {able}",
            kind=name,
            metric=metric.value,
            quantization=full.kind,
        )
    if dim > capabilities.max_dim:
        raise InvalidArgument(
            f"index kind {name!r} takes at most {capabilities.max_dim} dimensions, got {dim}", kind=name, dim=dim
        )
    params = checked(f"index kind {name!r}", capabilities.build_params, spec.params, "index ", fill=True)
    check = getattr(get_kind(name), "check", None)
    if check is not None:
        check(params, dim)
    return Resolved(name, params, full)


def check_search_params(
    kind: str, quantization: QuantizationSpec | None, params: Mapping[str, object] | None
) -> dict[str, Value]:
    """Checks the per-query parameters of a search; returns those given, as plain Python values.

    Raises:
        InvalidArgument: Unknown parameter, wrong type, out of range; the message names those there are. Or a target
            recall together with the settings that it chooses.
    """
    if not params:
        return {}
    if not isinstance(params, Mapping):
        raise InvalidArgument(f"params is a dict such as {{'ef': 128}}, got {params!r:.80}", field="params")
    # The types too, since 1 == True == 1.0.
    given = (*params.items(), *map(type, params.values()))
    try:
        return dict(_search_params(kind, None if quantization is None else quantization.kind, given))
    except TypeError:  # no hash: no value that a parameter could have
        return _search_params.__wrapped__(kind, None if quantization is None else quantization.kind, given)


@lru_cache(maxsize=512)
def _search_params(kind: str, quantization: str | None, given: tuple[Any, ...]) -> dict[str, Value]:
    """The checked parameters, once for all searches that give the same ones. ``given``: items, then types."""
    params = dict(given[: len(given) // 2])
    name = AUTO_KIND if kind == AUTO else kind
    known = dict(get_kind(name).capabilities.search_params)
    if quantization is not None:
        known["oversampling"] = QUANTIZATIONS[quantization]["oversampling"]
    known[TARGET_RECALL] = _TARGET
    found = checked(f"index kind {name!r}", known, params, "search ", fill=False)
    if TARGET_RECALL in found:
        _check_target(found, (get_kind(name).capabilities.width, "oversampling"))
    return found


def _check_target(params: Mapping[str, Value], settings: Sequence[str | None]) -> None:
    if params[TARGET_RECALL] == 0.0:
        raise InvalidArgument(
            f"parameter {TARGET_RECALL!r} is greater than 0 and at most 1, got 0", parameter=TARGET_RECALL
        )
    for name in settings:
        if name in params:
            raise InvalidArgument(
                f"{TARGET_RECALL!r} chooses {name!r} by the index's calibration; give one of them", parameter=name
            )


def clear_cache() -> None:
    """Forgets which distributions are installed and what was loaded (after installing a plug-in while running)."""
    _search_params.cache_clear()
    with _lock:
        _loaded.clear()
        _entries.clear()


def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    with _lock:
        if not _entries:
            for entry in importlib.metadata.entry_points(group=GROUP):
                _entries[entry.name] = entry
            for name, value in _BUILT_IN.items():
                _entries[name] = importlib.metadata.EntryPoint(name, value, GROUP)
        return _entries


def _entry_point(name: str) -> importlib.metadata.EntryPoint | None:
    """That of a kind; of one that comes along without a look at all the distributions that are installed, which takes
    milliseconds, the longer the more there are, and every opening of a folder would wait for it."""
    own = _BUILT_IN.get(name)
    return _entry_points().get(name) if own is None else importlib.metadata.EntryPoint(name, own, GROUP)


def _check_kind(name: str, where: str, loaded: object) -> None:
    capabilities = getattr(loaded, "capabilities", None)
    able = all(callable(getattr(loaded, method, None)) for method in ("build", "load"))
    if getattr(loaded, "name", None) != name or not isinstance(capabilities, Capabilities) or not able:
        raise FailedPrecondition(
            f"entry point {name!r} of group {GROUP!r} names {where}, which is not an index kind called {name!r}: it "
            "needs name, capabilities, build and load",
            kind=name,
        )


def _alternatives(able: Callable[[Capabilities], bool]) -> str:
    found = []
    for name in kind_names():
        try:
            if able(get_kind(name).capabilities):
                found.append(repr(name))
        except FailedPrecondition:
            continue
    return ", ".join(found) or "none"
