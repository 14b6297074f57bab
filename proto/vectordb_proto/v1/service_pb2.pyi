from vectordb_proto.v1 import filter_pb2 as _filter_pb2
from vectordb_proto.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateCollectionRequest(_message.Message):
    __slots__ = ("config", "exist_ok", "timeout_seconds")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    EXIST_OK_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    config: _types_pb2.CollectionConfig
    exist_ok: bool
    timeout_seconds: float
    def __init__(self, config: _Optional[_Union[_types_pb2.CollectionConfig, _Mapping]] = ..., exist_ok: bool = ..., timeout_seconds: _Optional[float] = ...) -> None: ...

class CreateCollectionResponse(_message.Message):
    __slots__ = ("config",)
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    config: _types_pb2.CollectionConfig
    def __init__(self, config: _Optional[_Union[_types_pb2.CollectionConfig, _Mapping]] = ...) -> None: ...

class GetCollectionRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class GetCollectionResponse(_message.Message):
    __slots__ = ("config",)
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    config: _types_pb2.CollectionConfig
    def __init__(self, config: _Optional[_Union[_types_pb2.CollectionConfig, _Mapping]] = ...) -> None: ...

class ListCollectionsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCollectionsResponse(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class DeleteCollectionRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class DeleteCollectionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetInfoResponse(_message.Message):
    __slots__ = ("info",)
    INFO_FIELD_NUMBER: _ClassVar[int]
    info: _types_pb2.DatabaseInfo
    def __init__(self, info: _Optional[_Union[_types_pb2.DatabaseInfo, _Mapping]] = ...) -> None: ...

class WriteRequest(_message.Message):
    __slots__ = ("collection", "mode", "rows", "if_version", "idempotency_key", "timeout_seconds", "vector_name")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    VECTOR_NAME_FIELD_NUMBER: _ClassVar[int]
    collection: str
    mode: _types_pb2.WriteMode
    rows: _types_pb2.Rows
    if_version: int
    idempotency_key: str
    timeout_seconds: float
    vector_name: str
    def __init__(self, collection: _Optional[str] = ..., mode: _Optional[_Union[_types_pb2.WriteMode, str]] = ..., rows: _Optional[_Union[_types_pb2.Rows, _Mapping]] = ..., if_version: _Optional[int] = ..., idempotency_key: _Optional[str] = ..., timeout_seconds: _Optional[float] = ..., vector_name: _Optional[str] = ...) -> None: ...

class WriteResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: WriteResult
    def __init__(self, result: _Optional[_Union[WriteResult, _Mapping]] = ...) -> None: ...

class WriteResult(_message.Message):
    __slots__ = ("count", "version", "ids")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    count: int
    version: int
    ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, count: _Optional[int] = ..., version: _Optional[int] = ..., ids: _Optional[_Iterable[str]] = ...) -> None: ...

class BulkWriteRequest(_message.Message):
    __slots__ = ("write",)
    WRITE_FIELD_NUMBER: _ClassVar[int]
    write: WriteRequest
    def __init__(self, write: _Optional[_Union[WriteRequest, _Mapping]] = ...) -> None: ...

class BulkWriteResponse(_message.Message):
    __slots__ = ("result",)
    RESULT_FIELD_NUMBER: _ClassVar[int]
    result: WriteResult
    def __init__(self, result: _Optional[_Union[WriteResult, _Mapping]] = ...) -> None: ...

class Ids(_message.Message):
    __slots__ = ("ids",)
    IDS_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ids: _Optional[_Iterable[str]] = ...) -> None: ...

class UpdateMetadataRequest(_message.Message):
    __slots__ = ("collection", "ids", "where", "set", "unset", "if_version", "idempotency_key", "timeout_seconds")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    SET_FIELD_NUMBER: _ClassVar[int]
    UNSET_FIELD_NUMBER: _ClassVar[int]
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: Ids
    where: _filter_pb2.Filter
    set: bytes
    unset: _containers.RepeatedScalarFieldContainer[str]
    if_version: int
    idempotency_key: str
    timeout_seconds: float
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Union[Ids, _Mapping]] = ..., where: _Optional[_Union[_filter_pb2.Filter, _Mapping]] = ..., set: _Optional[bytes] = ..., unset: _Optional[_Iterable[str]] = ..., if_version: _Optional[int] = ..., idempotency_key: _Optional[str] = ..., timeout_seconds: _Optional[float] = ...) -> None: ...

class UpdateMetadataResponse(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("collection", "ids", "where", "if_version", "idempotency_key", "timeout_seconds")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: Ids
    where: _filter_pb2.Filter
    if_version: int
    idempotency_key: str
    timeout_seconds: float
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Union[Ids, _Mapping]] = ..., where: _Optional[_Union[_filter_pb2.Filter, _Mapping]] = ..., if_version: _Optional[int] = ..., idempotency_key: _Optional[str] = ..., timeout_seconds: _Optional[float] = ...) -> None: ...

class DeleteResponse(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("collection", "ids", "include", "timeout_seconds")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: _containers.RepeatedScalarFieldContainer[str]
    include: _containers.RepeatedScalarFieldContainer[str]
    timeout_seconds: float
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Iterable[str]] = ..., include: _Optional[_Iterable[str]] = ..., timeout_seconds: _Optional[float] = ...) -> None: ...

class GetResponse(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _types_pb2.Records
    def __init__(self, records: _Optional[_Union[_types_pb2.Records, _Mapping]] = ...) -> None: ...

class CountRequest(_message.Message):
    __slots__ = ("collection", "where", "timeout_seconds")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    where: _filter_pb2.Filter
    timeout_seconds: float
    def __init__(self, collection: _Optional[str] = ..., where: _Optional[_Union[_filter_pb2.Filter, _Mapping]] = ..., timeout_seconds: _Optional[float] = ...) -> None: ...

class CountResponse(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class ScanRequest(_message.Message):
    __slots__ = ("collection", "where", "order_by", "page_size", "include", "cursor")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    ORDER_BY_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    collection: str
    where: _filter_pb2.Filter
    order_by: str
    page_size: int
    include: _containers.RepeatedScalarFieldContainer[str]
    cursor: str
    def __init__(self, collection: _Optional[str] = ..., where: _Optional[_Union[_filter_pb2.Filter, _Mapping]] = ..., order_by: _Optional[str] = ..., page_size: _Optional[int] = ..., include: _Optional[_Iterable[str]] = ..., cursor: _Optional[str] = ...) -> None: ...

class ScanResponse(_message.Message):
    __slots__ = ("records", "next_cursor")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    NEXT_CURSOR_FIELD_NUMBER: _ClassVar[int]
    records: _types_pb2.Records
    next_cursor: str
    def __init__(self, records: _Optional[_Union[_types_pb2.Records, _Mapping]] = ..., next_cursor: _Optional[str] = ...) -> None: ...

class CloseScanRequest(_message.Message):
    __slots__ = ("cursor",)
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    cursor: str
    def __init__(self, cursor: _Optional[str] = ...) -> None: ...

class CloseScanResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SearchRequest(_message.Message):
    __slots__ = ("collection", "dim", "vectors", "limit", "where", "filter_mode", "exact", "min_score", "params", "timeout_seconds", "allow_partial", "include", "vector_name", "texts", "fusion")
    class ParamsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _types_pb2.ParamValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_types_pb2.ParamValue, _Mapping]] = ...) -> None: ...
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    WHERE_FIELD_NUMBER: _ClassVar[int]
    FILTER_MODE_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    MIN_SCORE_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ALLOW_PARTIAL_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_FIELD_NUMBER: _ClassVar[int]
    VECTOR_NAME_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    FUSION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    dim: int
    vectors: bytes
    limit: int
    where: _filter_pb2.Filter
    filter_mode: _types_pb2.FilterMode
    exact: bool
    min_score: float
    params: _containers.MessageMap[str, _types_pb2.ParamValue]
    timeout_seconds: float
    allow_partial: bool
    include: _containers.RepeatedScalarFieldContainer[str]
    vector_name: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    fusion: Fusion
    def __init__(self, collection: _Optional[str] = ..., dim: _Optional[int] = ..., vectors: _Optional[bytes] = ..., limit: _Optional[int] = ..., where: _Optional[_Union[_filter_pb2.Filter, _Mapping]] = ..., filter_mode: _Optional[_Union[_types_pb2.FilterMode, str]] = ..., exact: bool = ..., min_score: _Optional[float] = ..., params: _Optional[_Mapping[str, _types_pb2.ParamValue]] = ..., timeout_seconds: _Optional[float] = ..., allow_partial: bool = ..., include: _Optional[_Iterable[str]] = ..., vector_name: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ..., fusion: _Optional[_Union[Fusion, _Mapping]] = ...) -> None: ...

class Fusion(_message.Message):
    __slots__ = ("rrf", "weights")
    class Rrf(_message.Message):
        __slots__ = ("k",)
        K_FIELD_NUMBER: _ClassVar[int]
        k: float
        def __init__(self, k: _Optional[float] = ...) -> None: ...
    class Weights(_message.Message):
        __slots__ = ("weights",)
        WEIGHTS_FIELD_NUMBER: _ClassVar[int]
        weights: _containers.RepeatedScalarFieldContainer[float]
        def __init__(self, weights: _Optional[_Iterable[float]] = ...) -> None: ...
    RRF_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    rrf: Fusion.Rrf
    weights: Fusion.Weights
    def __init__(self, rrf: _Optional[_Union[Fusion.Rrf, _Mapping]] = ..., weights: _Optional[_Union[Fusion.Weights, _Mapping]] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ("results", "plans")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    PLANS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[_types_pb2.SearchResult]
    plans: _containers.RepeatedCompositeFieldContainer[_types_pb2.Plan]
    def __init__(self, results: _Optional[_Iterable[_Union[_types_pb2.SearchResult, _Mapping]]] = ..., plans: _Optional[_Iterable[_Union[_types_pb2.Plan, _Mapping]]] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("search", "analyze")
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    ANALYZE_FIELD_NUMBER: _ClassVar[int]
    search: SearchRequest
    analyze: bool
    def __init__(self, search: _Optional[_Union[SearchRequest, _Mapping]] = ..., analyze: bool = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("plan",)
    PLAN_FIELD_NUMBER: _ClassVar[int]
    plan: _types_pb2.Plan
    def __init__(self, plan: _Optional[_Union[_types_pb2.Plan, _Mapping]] = ...) -> None: ...

class OptimizeRequest(_message.Message):
    __slots__ = ("collection", "wait", "timeout_seconds")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    wait: bool
    timeout_seconds: float
    def __init__(self, collection: _Optional[str] = ..., wait: bool = ..., timeout_seconds: _Optional[float] = ...) -> None: ...

class OptimizeResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReindexRequest(_message.Message):
    __slots__ = ("collection", "index", "quantization", "wait")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    collection: str
    index: _types_pb2.IndexSpec
    quantization: _types_pb2.QuantizationSpec
    wait: bool
    def __init__(self, collection: _Optional[str] = ..., index: _Optional[_Union[_types_pb2.IndexSpec, _Mapping]] = ..., quantization: _Optional[_Union[_types_pb2.QuantizationSpec, _Mapping]] = ..., wait: bool = ...) -> None: ...

class ReindexResponse(_message.Message):
    __slots__ = ("config",)
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    config: _types_pb2.CollectionConfig
    def __init__(self, config: _Optional[_Union[_types_pb2.CollectionConfig, _Mapping]] = ...) -> None: ...

class CancelReindexRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class CancelReindexResponse(_message.Message):
    __slots__ = ("cancelled",)
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    cancelled: bool
    def __init__(self, cancelled: bool = ...) -> None: ...

class GetStatsRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class GetStatsResponse(_message.Message):
    __slots__ = ("stats",)
    STATS_FIELD_NUMBER: _ClassVar[int]
    stats: _types_pb2.CollectionStats
    def __init__(self, stats: _Optional[_Union[_types_pb2.CollectionStats, _Mapping]] = ...) -> None: ...

class BackupRequest(_message.Message):
    __slots__ = ("destination",)
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    destination: str
    def __init__(self, destination: _Optional[str] = ...) -> None: ...

class BackupResponse(_message.Message):
    __slots__ = ("backup",)
    BACKUP_FIELD_NUMBER: _ClassVar[int]
    backup: _types_pb2.BackupInfo
    def __init__(self, backup: _Optional[_Union[_types_pb2.BackupInfo, _Mapping]] = ...) -> None: ...

class VerifyRequest(_message.Message):
    __slots__ = ("searches",)
    SEARCHES_FIELD_NUMBER: _ClassVar[int]
    searches: int
    def __init__(self, searches: _Optional[int] = ...) -> None: ...

class VerifyResponse(_message.Message):
    __slots__ = ("report",)
    REPORT_FIELD_NUMBER: _ClassVar[int]
    report: _types_pb2.VerifyReport
    def __init__(self, report: _Optional[_Union[_types_pb2.VerifyReport, _Mapping]] = ...) -> None: ...

class RepairRequest(_message.Message):
    __slots__ = ("dry_run",)
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    dry_run: bool
    def __init__(self, dry_run: bool = ...) -> None: ...

class RepairResponse(_message.Message):
    __slots__ = ("report",)
    REPORT_FIELD_NUMBER: _ClassVar[int]
    report: _types_pb2.RepairReport
    def __init__(self, report: _Optional[_Union[_types_pb2.RepairReport, _Mapping]] = ...) -> None: ...

class EraseRequest(_message.Message):
    __slots__ = ("collection", "delete", "timeout_seconds")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    DELETE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    delete: DeleteRequest
    timeout_seconds: float
    def __init__(self, collection: _Optional[str] = ..., delete: _Optional[_Union[DeleteRequest, _Mapping]] = ..., timeout_seconds: _Optional[float] = ...) -> None: ...

class EraseResponse(_message.Message):
    __slots__ = ("erasure",)
    ERASURE_FIELD_NUMBER: _ClassVar[int]
    erasure: _types_pb2.Erasure
    def __init__(self, erasure: _Optional[_Union[_types_pb2.Erasure, _Mapping]] = ...) -> None: ...
