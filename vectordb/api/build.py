"""Requests from users' arguments, shared by the synchronous and the asynchronous face."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vectordb.api.columns import encoded, query_matrix, rows_from, rows_from_records
from vectordb.arguments import BEYOND, collection_name, flag, names, parameters, real, whole
from vectordb.errors import InvalidArgument
from vectordb.filter import as_filter
from vectordb.ids import as_ids
from vectordb.metric import Metric
from vectordb.requests import (
    DEFAULT_INCLUDE,
    DeleteRequest,
    Fusion,
    GetRequest,
    ReindexRequest,
    Rrf,
    ScanRequest,
    SearchRequest,
    UpdateMetadataRequest,
    Weights,
    WriteMode,
    WriteRequest,
)
from vectordb.types import (
    CollectionConfig,
    Durability,
    FieldSpec,
    FieldType,
    FilterMode,
    IndexSpec,
    QuantizationSpec,
    Tuning,
)

_OPTIONS = ("metric", "index", "quantization", "fields", "exist_ok", "analyzer")
_TUNING = tuple(Tuning.__dataclass_fields__)


def choice(enum: Any, value: Any, field: str) -> Any:
    """A member of a string enum, or InvalidArgument that lists the members."""
    try:
        return enum(value)
    except ValueError:
        known = ", ".join(repr(str(m.value)) for m in enum)
        raise InvalidArgument(f"{field} {value!r} is unknown; one of {known}", field=field) from None


def include_of(include: Any) -> tuple[str, ...]:
    # The usual ones need no look: this runs for every search.
    if type(include) is tuple and (not include or include == DEFAULT_INCLUDE):
        return include
    return names(include, "include", "'metadata', 'text', 'vector'")


def write_request(
    config: CollectionConfig, mode: WriteMode, columns: tuple[Any, Any, Any, Any], **options: Any
) -> WriteRequest:
    """``columns``: the call's (ids, vectors, metadata, texts)."""
    return WriteRequest(mode, rows_from(*columns, config), **options)


def records_request(config: CollectionConfig, records: Sequence[Any]) -> WriteRequest:
    """An upsert of ``Record``s or dicts, and of nothing else."""
    return WriteRequest(WriteMode.UPSERT, rows_from_records(records, config))


def update_metadata_request(
    ids: Any, where: Any, set: Mapping[str, Any] | None, unset: Any, **options: Any
) -> UpdateMetadataRequest:
    return UpdateMetadataRequest(
        ids=None if ids is None else as_ids(ids),
        where=as_filter(where),
        set=encoded(set) if set else None,
        unset=names(unset, "unset", "field paths such as 'a' or 'a.b'"),
        **options,
    )


def delete_request(ids: Any, where: Any, **options: Any) -> DeleteRequest:
    return DeleteRequest(None if ids is None else as_ids(ids), as_filter(where), **options)


def get_request(ids: Any, include: Any, timeout: float | None) -> GetRequest:
    return GetRequest(as_ids(ids), include_of(include), timeout)


def scan_request(where: Any, order_by: str | None, page_size: int, include: Any) -> ScanRequest:
    return ScanRequest(as_filter(where), order_by, whole(page_size, "page_size"), include_of(include))


def search_request(
    config: CollectionConfig,
    vectors: Any,
    given: SearchRequest,
    *,
    single: bool,
    text: Any = None,
    target_recall: float | None = None,
) -> SearchRequest:
    """``given``: the other arguments of a search as the user gave them, which are put into the engine's forms."""
    given.vectors = query_matrix(vectors, config, single=single)
    _check_types(given)
    if given.exact is not False:
        given.exact = flag(given.exact, "exact")
    if given.params is not None and not isinstance(given.params, Mapping):
        raise InvalidArgument(
            f"params is a dict of the index's parameters, such as {{'ef': 128}}, got {given.params!r:.60}",
            field="params",
        )
    if given.where is not None:
        given.where = as_filter(given.where)
    if type(given.filter_mode) is not FilterMode:
        given.filter_mode = choice(FilterMode, given.filter_mode, "filter_mode")
    given.include = include_of(given.include)
    if text is not None:
        given.texts = _texts(text, len(given.vectors))
    if given.fusion is not None:
        given.fusion = fusion_of(given.fusion)
    if target_recall is not None:
        given.params = _with_target(given.params, target_recall)
    if given.params:
        parameters(given.params, "params")
    return given


def text_request(text: Any, where: Any, include: Any, **options: Any) -> SearchRequest:
    """``options``: the other keyword arguments of ``Collection.search_text``."""
    request = SearchRequest(None, where=as_filter(where), include=include_of(include), texts=(text,), **options)
    _check_types(request)
    return request


def _check_types(given: SearchRequest) -> None:
    """Puts what both kinds of search take into Python's types. The usual ones first: this runs for every search."""
    if type(given.limit) is not int or not -BEYOND <= given.limit < BEYOND:
        given.limit = whole(given.limit, "limit")
    if given.min_score is not None and type(given.min_score) is not float:
        given.min_score = real(given.min_score, "min_score")
    if given.allow_partial is not False:
        given.allow_partial = flag(given.allow_partial, "allow_partial")


def _texts(text: Any, queries: int) -> tuple[Any, ...]:
    """One text for all queries, or one each; contents are checked by the engine."""
    return tuple(text) if isinstance(text, list | tuple) else (text,) * queries


def fusion_of(value: Any) -> Fusion:
    """``"rrf"``, ``{"rrf": {"k": 60}}`` or ``{"weights": [0.7, 0.3]}``; values are checked by the engine.

    Raises:
        InvalidArgument: It is something else; ``field`` is ``fusion``.
    """
    if isinstance(value, Rrf | Weights):
        return value
    if value == "rrf":
        return Rrf()
    try:
        if isinstance(value, Mapping) and len(value) == 1:
            (name, given), *_ = value.items()
            if name == "rrf" and isinstance(given, Mapping) and set(given) <= {"k"}:
                return Rrf(**{key: float(number) for key, number in given.items()})
            if name == "weights" and not isinstance(given, str | bytes):
                return Weights(tuple(map(float, given)))
    except (TypeError, ValueError, OverflowError):
        pass
    raise InvalidArgument(
        f"fusion {value!r:.60} is unknown; 'rrf', {{'rrf': {{'k': 60}}}} or {{'weights': [0.7, 0.3]}}", field="fusion"
    )


def reindex_request(index: Any, quantization: Any, wait: bool) -> ReindexRequest:
    wanted = None if index is None else _index_spec(index)
    return ReindexRequest(wanted, _quantization_spec(quantization), flag(wait, "wait"))


def _with_target(params: Mapping[str, Any] | None, target: float) -> dict[str, Any]:
    """The search parameters with the target recall among them; the engine checks both."""
    if params and params.get("target_recall", target) != target:
        raise InvalidArgument(
            f"target_recall is {target!r} and {params['target_recall']!r} in params; give it once",
            field="target_recall",
        )
    return {**(params or {}), "target_recall": target}


def collection_config(
    name: str, dim: int, metric: Any, index: Any, quantization: Any, fields: Any, options: Mapping[str, Any]
) -> CollectionConfig:
    """The configuration that ``create_collection`` describes; contents are checked by the engine."""
    tuning = dict(options)
    analyzer = tuning.pop("analyzer", "standard")
    if not isinstance(analyzer, str):
        raise InvalidArgument(f"analyzer is a name such as 'standard' or 'english', got {analyzer!r}", field="analyzer")
    return CollectionConfig(
        name=collection_name(name),
        dim=whole(dim, "dim"),
        metric=choice(Metric, metric, "metric"),
        index=_index_spec(index),
        quantization=_quantization_spec(quantization),
        fields=_field_specs(fields),
        tuning=_tuning(tuning),
        analyzer=analyzer,
    )


def _kind_and_params(value: Any, field: str) -> tuple[str, dict[str, Any]]:
    kind = value.get("kind") if isinstance(value, Mapping) else value
    # Not the empty name: on the wire it is the default.
    if isinstance(kind, str) and kind:
        given = {name: setting for name, setting in value.items() if name != "kind"} if value is not kind else {}
        parameters(given, field)
        return kind, given
    raise InvalidArgument(
        f"{field} is a kind's name or a dict with 'kind' and its parameters, got {value!r}", field=field
    )


def _index_spec(value: Any) -> IndexSpec:
    return value if isinstance(value, IndexSpec) else IndexSpec(*_kind_and_params(value, "index"))


def _quantization_spec(value: Any) -> QuantizationSpec | None:
    if value is None or isinstance(value, QuantizationSpec):
        return value
    return QuantizationSpec(*_kind_and_params(value, "quantization"))


def _field_specs(fields: Any) -> dict[str, FieldSpec] | None:
    if fields is None:
        return None
    if not isinstance(fields, Mapping):
        raise InvalidArgument("fields is a dict of field names to types", field="fields")
    specs = {}
    for name, value in fields.items():
        if not isinstance(name, str):
            raise InvalidArgument(f"fields has a bad field path {name!r:.60}; 'a' or 'a.b'", field="fields")
        if isinstance(value, FieldSpec):
            specs[name] = value
            continue
        spec = value if isinstance(value, Mapping) else {"type": value}
        unknown = sorted(set(spec) - {"type", "indexed"})
        if unknown or "type" not in spec:
            raise InvalidArgument(
                f"fields[{name!r}] is a type or a dict with 'type' and 'indexed', got {value!r}", field=f"fields.{name}"
            )
        indexed = flag(spec.get("indexed", True), f"fields.{name}.indexed")
        specs[name] = FieldSpec(choice(FieldType, spec["type"], f"fields.{name}"), indexed)
    return specs


def _tuning(options: Mapping[str, Any]) -> Tuning:
    values = dict(options)
    for name, value in options.items():
        if name not in _TUNING:
            known = ", ".join((*_OPTIONS, *_TUNING))
            raise InvalidArgument(f"create_collection has no option {name!r}; known are {known}", field=name)
        if name != "durability":
            values[name] = whole(value, name)
    if values.get("durability") is not None:
        values["durability"] = choice(Durability, values["durability"], "durability")
    return Tuning(**values)
