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
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vectordb.errors import FailedPrecondition, InvalidArgument
from vectordb.index.base import Capabilities, IndexKind, Parameter
from vectordb.metric import Metric
from vectordb.types import IndexSpec

if TYPE_CHECKING:
    from vectordb.types import QuantizationSpec

GROUP = "vectordb.indexes"
AUTO = "auto"
"""Not a kind: exact while a segment is small, then :data:`AUTO_KIND`."""
AUTO_KIND = "hnsw"

_BUILT_IN = {
    "flat": "vectordb.index.flat:FLAT",
    "hnsw": "vectordb.index.faiss_hnsw:HNSW",
}

_lock = threading.Lock()
_loaded: dict[str, IndexKind] = {}  # guarded by _lock for writing; reads are single look-ups
_entries: dict[str, importlib.metadata.EntryPoint] = {}  # guarded by _lock for writing

Value = int | float | str | bool


class Resolved(NamedTuple):
    """A checked choice: the kind's name (or ``auto``) and all its build parameters, defaults filled in."""

    kind: str
    params: dict[str, Value]


def kind_names() -> list[str]:
    """Names of all kinds that are installed, sorted; loads none of them."""
    return sorted(_entry_points())


def get_kind(name: str) -> IndexKind:
    """The kind of this name.

    Raises:
        InvalidArgument: No such kind; the message names those there are.
        FailedPrecondition: It is registered but cannot be loaded, or is not an index kind.
    """
    kind = _loaded.get(name)
    if kind is not None:
        return kind
    entry = _entry_points().get(name)
    if entry is None:
        names = ", ".join(repr(n) for n in [AUTO, *kind_names()])
        raise InvalidArgument(f"unknown index kind {name!r}; choose one of {names}", kind=name)
    try:
        loaded = entry.load()
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
    if quantization is not None and quantization.kind not in capabilities.quantizations:
        able = _alternatives(lambda c: quantization.kind in c.quantizations)
        raise InvalidArgument(
            f"index kind {name!r} does not support quantization {quantization.kind!r}; kinds that do: {able}",
            kind=name,
            quantization=quantization.kind,
        )
    if dim > capabilities.max_dim:
        raise InvalidArgument(
            f"index kind {name!r} takes at most {capabilities.max_dim} dimensions, got {dim}", kind=name, dim=dim
        )
    return Resolved(spec.kind, _checked(name, capabilities.build_params, spec.params, "index", fill=True))


def resolve_auto(metric: Metric, dim: int, params: Mapping[str, Value] | None = None) -> Resolved:
    """What ``auto`` means for a segment large enough to be worth an index.

    Args:
        metric: The collection's metric.
        dim: Its dimension.
        params: Parameters given beside ``auto``.

    Raises:
        InvalidArgument: As :func:`resolve`.
    """
    return resolve(IndexSpec(AUTO_KIND, params or {}), metric, None, dim)


def check_search_params(kind: str, params: Mapping[str, object] | None) -> dict[str, Value]:
    """Checks the per-query parameters of a search; returns those given, as plain Python values.

    Raises:
        InvalidArgument: Unknown parameter, wrong type, out of range; the message names those there are.
    """
    if not params:
        return {}
    name = AUTO_KIND if kind == AUTO else kind
    return _checked(name, get_kind(name).capabilities.search_params, params, "search", fill=False)


def clear_cache() -> None:
    """Forgets which distributions are installed and what was loaded (after installing a plug-in while running)."""
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


def _checked(
    kind: str, known: Mapping[str, Parameter], given: Mapping[str, object], purpose: str, *, fill: bool
) -> dict[str, Value]:
    for name in given:
        if name not in known:
            names = ", ".join(repr(n) for n in known) or "none"
            raise InvalidArgument(
                f"index kind {kind!r} has no {purpose} parameter {name!r}; it has: {names}", kind=kind, parameter=name
            )
    out: dict[str, Value] = {n: p.default for n, p in known.items()} if fill else {}
    for name, value in given.items():
        out[name] = _value(kind, name, known[name], value)
    return out


def _value(kind: str, name: str, parameter: Parameter, value: object) -> Value:
    plain = _as_type(parameter.type, value)
    if plain is None:
        raise InvalidArgument(
            f"parameter {name!r} of index kind {kind!r} must be {parameter.type.__name__}, got {value!r} "
            f"({type(value).__name__})",
            kind=kind,
            parameter=name,
        )
    low, high = parameter.low, parameter.high
    if isinstance(plain, (int, float)) and not (
        (low is None or plain >= low) and (high is None or plain <= high) and plain == plain
    ):
        bounds = (
            f"between {low:g} and {high:g}"
            if low is not None and high is not None
            else (f"at least {low:g}" if low is not None else f"at most {high:g}" if high is not None else "a number")
        )
        raise InvalidArgument(
            f"parameter {name!r} of index kind {kind!r} must be {bounds}, got {plain}", kind=kind, parameter=name
        )
    return plain


def _as_type(wanted: type, value: object) -> Value | None:
    """The value as a plain Python object of the wanted type, or None: a bool is no number, an int is a float."""
    if wanted is bool:
        return bool(value) if isinstance(value, (bool, np.bool_)) else None
    if isinstance(value, (bool, np.bool_)):
        return None
    if wanted is int:
        return int(value) if isinstance(value, Integral) else None
    if wanted is float:
        return float(value) if isinstance(value, Real) else None
    return value if isinstance(value, str) else None
