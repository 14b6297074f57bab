"""Requests of ``vectordb.requests`` as messages and back.

``x_to_message(collection, request)`` makes the message, ``x_from_message(message)`` the request; the collection's name
is the message's ``collection``. All raise ``InvalidArgument`` for what cannot be converted, naming the field.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vectordb.arguments import real, utf8, version, whole
from vectordb.errors import InvalidArgument
from vectordb.filter import Filter
from vectordb.requests import (
    CreateRequest,
    DeleteRequest,
    EraseRequest,
    Fusion,
    GetRequest,
    OptimizeRequest,
    ReindexRequest,
    Rrf,
    ScanRequest,
    SearchRequest,
    UpdateMetadataRequest,
    Weights,
    WriteMode,
    WriteRequest,
)
from vectordb.types import FilterMode
from vectordb.wire.columns import (
    MAX_DIM,
    checked_strings,
    rows_from_message,
    rows_to_message,
    vectors_from_bytes,
    vectors_to_bytes,
)
from vectordb.wire.config import (
    config_from_message,
    config_to_message,
    index_from_message,
    index_to_message,
    quantization_from_message,
    quantization_to_message,
)
from vectordb.wire.filters import filter_from_message, filter_to_message
from vectordb.wire.values import (
    enum_from_number,
    enum_to_number,
    params_from_message,
    params_to_message,
)
from vectordb_proto.v1 import filter_pb2, service_pb2


def create_to_message(request: CreateRequest) -> service_pb2.CreateCollectionRequest:
    message = service_pb2.CreateCollectionRequest(exist_ok=bool(request.exist_ok))
    config_to_message(request.config, message.config)
    _limits_to_message(request, message)
    return message


def create_from_message(message: service_pb2.CreateCollectionRequest) -> CreateRequest:
    return CreateRequest(config_from_message(message.config), message.exist_ok, _timeout(message))


def write_to_message(collection: str, request: WriteRequest) -> service_pb2.WriteRequest:
    message = service_pb2.WriteRequest(
        collection=utf8(collection, "collection"),
        mode=enum_to_number(request.mode),  # type: ignore[arg-type,unused-ignore]
        vector_name=utf8(request.vector_name, "vector_name"),
    )
    rows_to_message(request.rows, message.rows)
    _limits_to_message(request, message)
    return message


def write_from_message(message: service_pb2.WriteRequest, vectors: bytes | memoryview = b"") -> WriteRequest:
    """Args:
    vectors: The rows' vectors where the message is without them.
    """
    return WriteRequest(
        enum_from_number(WriteMode, message.mode, "mode", WriteMode.UPSERT),
        rows_from_message(message.rows, data=vectors),
        if_version=_if_version(message),
        idempotency_key=message.idempotency_key or None,
        timeout=_timeout(message),
        vector_name=message.vector_name,
    )


def update_metadata_to_message(collection: str, request: UpdateMetadataRequest) -> service_pb2.UpdateMetadataRequest:
    message = service_pb2.UpdateMetadataRequest(
        collection=utf8(collection, "collection"), unset=checked_strings(request.unset, "unset")
    )
    if request.set is not None:
        message.set = request.set
    _selectors_to_message(request, message)
    _limits_to_message(request, message)
    return message


def update_metadata_from_message(message: service_pb2.UpdateMetadataRequest) -> UpdateMetadataRequest:
    return UpdateMetadataRequest(
        ids=_selected_ids(message),
        where=_where(message),
        set=message.set if message.HasField("set") else None,
        unset=tuple(message.unset),
        if_version=_if_version(message),
        idempotency_key=message.idempotency_key or None,
        timeout=_timeout(message),
    )


def delete_to_message(collection: str, request: DeleteRequest) -> service_pb2.DeleteRequest:
    message = service_pb2.DeleteRequest(collection=utf8(collection, "collection"))
    _selectors_to_message(request, message)
    _limits_to_message(request, message)
    return message


def delete_from_message(message: service_pb2.DeleteRequest) -> DeleteRequest:
    return DeleteRequest(
        ids=_selected_ids(message),
        where=_where(message),
        if_version=_if_version(message),
        idempotency_key=message.idempotency_key or None,
        timeout=_timeout(message),
    )


def erase_to_message(collection: str, request: EraseRequest) -> service_pb2.EraseRequest:
    message = service_pb2.EraseRequest(collection=utf8(collection, "collection"))
    if request.delete is not None:
        message.delete.CopyFrom(delete_to_message(collection, request.delete))
    _limits_to_message(request, message)
    return message


def erase_from_message(message: service_pb2.EraseRequest) -> EraseRequest:
    delete = delete_from_message(message.delete) if message.HasField("delete") else None
    return EraseRequest(delete, _timeout(message))


def get_to_message(collection: str, request: GetRequest) -> service_pb2.GetRequest:
    message = service_pb2.GetRequest(
        collection=utf8(collection, "collection"),
        ids=checked_strings(request.ids, "ids"),
        include=checked_strings(request.include, "include"),
    )
    _limits_to_message(request, message)
    return message


def get_from_message(message: service_pb2.GetRequest) -> GetRequest:
    return GetRequest(list(message.ids), tuple(message.include), _timeout(message))


def count_to_message(
    collection: str, where: Filter | None = None, timeout: float | None = None
) -> service_pb2.CountRequest:
    message = service_pb2.CountRequest(collection=utf8(collection, "collection"))
    if where is not None:
        filter_to_message(where, message.where)
    if timeout is not None:
        message.timeout_seconds = real(timeout, "timeout")
    return message


def count_from_message(message: service_pb2.CountRequest) -> tuple[Filter | None, float | None]:
    """The filter and the timeout in seconds."""
    return _where(message), _timeout(message)


def scan_to_message(collection: str, request: ScanRequest) -> service_pb2.ScanRequest:
    """The message that opens a scan; the next pages are asked for with :func:`next_page_message`."""
    message = service_pb2.ScanRequest(
        collection=utf8(collection, "collection"),
        page_size=whole(request.page_size, "page_size"),
        include=checked_strings(request.include, "include"),
    )
    if request.order_by is not None:
        message.order_by = utf8(request.order_by, "order_by")
    if request.where is not None:
        filter_to_message(request.where, message.where)
    return message


def next_page_message(cursor: str) -> service_pb2.ScanRequest:
    """The message that asks for the page at ``cursor``."""
    return service_pb2.ScanRequest(cursor=cursor)


def scan_from_message(message: service_pb2.ScanRequest) -> ScanRequest:
    return ScanRequest(
        where=_where(message),
        order_by=message.order_by if message.HasField("order_by") else None,
        page_size=message.page_size,
        include=tuple(message.include),
    )


def search_to_message(collection: str, request: SearchRequest) -> service_pb2.SearchRequest:
    message = service_pb2.SearchRequest(
        collection=utf8(collection, "collection"),
        limit=whole(request.limit, "limit"),
        filter_mode=enum_to_number(request.filter_mode),  # type: ignore[arg-type,unused-ignore]
        exact=bool(request.exact),
        allow_partial=bool(request.allow_partial),
        include=checked_strings(request.include, "include"),
        vector_name=utf8(request.vector_name, "vector_name"),
    )
    vectors = request.vectors
    if vectors is not None:
        if vectors.ndim != 2 or vectors.shape[1] > MAX_DIM:
            raise InvalidArgument(f"vectors is float32[queries, dim], got shape {vectors.shape}", field="vectors")
        message.dim = vectors.shape[1]
        message.vectors = vectors_to_bytes(vectors)
    if request.texts:
        message.texts.extend(checked_texts(request.texts))
    if request.fusion is not None:
        _fusion_to_message(request.fusion, message.fusion)
    if request.where is not None:
        filter_to_message(request.where, message.where)
    if request.min_score is not None:
        message.min_score = real(request.min_score, "min_score")
    if request.params:
        params_to_message(request.params, message.params, "params")
    if request.timeout is not None:
        message.timeout_seconds = real(request.timeout, "timeout")
    return message


def search_from_message(message: service_pb2.SearchRequest) -> SearchRequest:
    """The request of a message, which is used up: its vectors are taken out."""
    vectors = None
    if message.dim or message.vectors or not message.texts:
        vectors = vectors_from_bytes(message.vectors, message.dim, "vectors")
        message.ClearField("vectors")
    return SearchRequest(vectors, *search_settings(message))


def search_settings(message: service_pb2.SearchRequest) -> tuple[Any, ...]:
    """The fields of ``SearchRequest`` after the vectors, in order. Nobody changes them."""
    return (
        message.limit,
        _where(message),
        enum_from_number(FilterMode, message.filter_mode, "filter_mode", FilterMode.AUTO),
        message.exact,
        message.min_score if message.HasField("min_score") else None,
        params_from_message(message.params, "params") if message.params else None,
        _timeout(message),
        message.allow_partial,
        tuple(message.include),
        message.vector_name,
        tuple(message.texts),
        _fusion_from_message(message.fusion) if message.HasField("fusion") else None,
    )


def checked_texts(texts: Sequence[Any]) -> Sequence[str]:
    """The texts of a search, all in UTF-8."""
    if None in texts:
        row = list(texts).index(None)
        raise InvalidArgument(f"text in row {row} is no text in UTF-8: None", field="text", row=row)
    return checked_strings(texts, "text")


def _fusion_to_message(fusion: Fusion, message: service_pb2.Fusion) -> None:
    if isinstance(fusion, Rrf):
        message.rrf.k = real(fusion.k, "fusion")
    else:
        message.weights.SetInParent()
        message.weights.weights.extend(real(weight, "fusion") for weight in fusion.weights)


def _fusion_from_message(message: service_pb2.Fusion) -> Fusion:
    kind = message.WhichOneof("kind")
    if kind == "weights":
        return Weights(tuple(message.weights.weights))
    return Rrf(message.rrf.k) if kind == "rrf" and message.rrf.HasField("k") else Rrf()


def explain_to_message(collection: str, request: SearchRequest, analyze: bool) -> service_pb2.ExplainRequest:
    return service_pb2.ExplainRequest(search=search_to_message(collection, request), analyze=bool(analyze))


def optimize_to_message(collection: str, request: OptimizeRequest) -> service_pb2.OptimizeRequest:
    message = service_pb2.OptimizeRequest(collection=utf8(collection, "collection"), wait=bool(request.wait))
    _limits_to_message(request, message)
    return message


def optimize_from_message(message: service_pb2.OptimizeRequest) -> OptimizeRequest:
    return OptimizeRequest(message.wait, _timeout(message))


def reindex_to_message(collection: str, request: ReindexRequest) -> service_pb2.ReindexRequest:
    message = service_pb2.ReindexRequest(collection=utf8(collection, "collection"), wait=bool(request.wait))
    if request.index is not None:
        index_to_message(request.index, message.index)
    quantization_to_message(request.quantization, message.quantization)
    return message


def reindex_from_message(message: service_pb2.ReindexRequest) -> ReindexRequest:
    index = index_from_message(message.index) if message.HasField("index") else None
    return ReindexRequest(index, quantization_from_message(message), message.wait)


def _limits_to_message(request: Any, message: Any) -> None:
    if request.timeout is not None:
        message.timeout_seconds = real(request.timeout, "timeout")
    if getattr(request, "if_version", None) is not None:
        message.if_version = version(request.if_version)
    if getattr(request, "idempotency_key", None) is not None:
        message.idempotency_key = utf8(request.idempotency_key, "idempotency_key")


def _selectors_to_message(request: UpdateMetadataRequest | DeleteRequest, message: Any) -> None:
    if request.ids is not None:
        # An empty list selects nothing, which is not the same as no selector.
        message.ids.SetInParent()
        message.ids.ids.extend(checked_strings(request.ids, "ids"))
    if request.where is not None:
        filter_to_message(request.where, message.where)


def _selected_ids(message: Any) -> list[str] | None:
    return list(message.ids.ids) if message.HasField("ids") else None


def _where(message: Any) -> Filter | None:
    if not message.HasField("where"):
        return None
    where: filter_pb2.Filter = message.where
    return filter_from_message(where)


def _timeout(message: Any) -> float | None:
    return message.timeout_seconds if message.HasField("timeout_seconds") else None


def _if_version(message: Any) -> int | None:
    return message.if_version if message.HasField("if_version") else None
