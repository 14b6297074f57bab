from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Metric(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    METRIC_UNSPECIFIED: _ClassVar[Metric]
    METRIC_COSINE: _ClassVar[Metric]
    METRIC_DOT: _ClassVar[Metric]
    METRIC_L2: _ClassVar[Metric]
    METRIC_L1: _ClassVar[Metric]

class FilterMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FILTER_MODE_UNSPECIFIED: _ClassVar[FilterMode]
    FILTER_MODE_AUTO: _ClassVar[FilterMode]
    FILTER_MODE_PRE: _ClassVar[FilterMode]
    FILTER_MODE_IN: _ClassVar[FilterMode]
    FILTER_MODE_POST: _ClassVar[FilterMode]

class FieldType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FIELD_TYPE_UNSPECIFIED: _ClassVar[FieldType]
    FIELD_TYPE_KEYWORD: _ClassVar[FieldType]
    FIELD_TYPE_TEXT: _ClassVar[FieldType]
    FIELD_TYPE_INT: _ClassVar[FieldType]
    FIELD_TYPE_FLOAT: _ClassVar[FieldType]
    FIELD_TYPE_BOOL: _ClassVar[FieldType]
    FIELD_TYPE_DATETIME: _ClassVar[FieldType]

class Durability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DURABILITY_UNSPECIFIED: _ClassVar[Durability]
    DURABILITY_SYNC: _ClassVar[Durability]
    DURABILITY_ASYNC: _ClassVar[Durability]

class WriteMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WRITE_MODE_UNSPECIFIED: _ClassVar[WriteMode]
    WRITE_MODE_UPSERT: _ClassVar[WriteMode]
    WRITE_MODE_INSERT: _ClassVar[WriteMode]
    WRITE_MODE_UPDATE: _ClassVar[WriteMode]
METRIC_UNSPECIFIED: Metric
METRIC_COSINE: Metric
METRIC_DOT: Metric
METRIC_L2: Metric
METRIC_L1: Metric
FILTER_MODE_UNSPECIFIED: FilterMode
FILTER_MODE_AUTO: FilterMode
FILTER_MODE_PRE: FilterMode
FILTER_MODE_IN: FilterMode
FILTER_MODE_POST: FilterMode
FIELD_TYPE_UNSPECIFIED: FieldType
FIELD_TYPE_KEYWORD: FieldType
FIELD_TYPE_TEXT: FieldType
FIELD_TYPE_INT: FieldType
FIELD_TYPE_FLOAT: FieldType
FIELD_TYPE_BOOL: FieldType
FIELD_TYPE_DATETIME: FieldType
DURABILITY_UNSPECIFIED: Durability
DURABILITY_SYNC: Durability
DURABILITY_ASYNC: Durability
WRITE_MODE_UNSPECIFIED: WriteMode
WRITE_MODE_UPSERT: WriteMode
WRITE_MODE_INSERT: WriteMode
WRITE_MODE_UPDATE: WriteMode

class Rows(_message.Message):
    __slots__ = ("ids", "dim", "vectors", "has_vector", "metadata", "texts", "has_text")
    IDS_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    HAS_VECTOR_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    HAS_TEXT_FIELD_NUMBER: _ClassVar[int]
    ids: _containers.RepeatedScalarFieldContainer[str]
    dim: int
    vectors: bytes
    has_vector: bytes
    metadata: _containers.RepeatedScalarFieldContainer[bytes]
    texts: _containers.RepeatedScalarFieldContainer[str]
    has_text: bytes
    def __init__(self, ids: _Optional[_Iterable[str]] = ..., dim: _Optional[int] = ..., vectors: _Optional[bytes] = ..., has_vector: _Optional[bytes] = ..., metadata: _Optional[_Iterable[bytes]] = ..., texts: _Optional[_Iterable[str]] = ..., has_text: _Optional[bytes] = ...) -> None: ...

class Records(_message.Message):
    __slots__ = ("rows", "versions")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    rows: Rows
    versions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, rows: _Optional[_Union[Rows, _Mapping]] = ..., versions: _Optional[_Iterable[int]] = ...) -> None: ...

class ParamValue(_message.Message):
    __slots__ = ("int_value", "double_value", "bool_value", "string_value")
    INT_VALUE_FIELD_NUMBER: _ClassVar[int]
    DOUBLE_VALUE_FIELD_NUMBER: _ClassVar[int]
    BOOL_VALUE_FIELD_NUMBER: _ClassVar[int]
    STRING_VALUE_FIELD_NUMBER: _ClassVar[int]
    int_value: int
    double_value: float
    bool_value: bool
    string_value: str
    def __init__(self, int_value: _Optional[int] = ..., double_value: _Optional[float] = ..., bool_value: bool = ..., string_value: _Optional[str] = ...) -> None: ...

class IndexSpec(_message.Message):
    __slots__ = ("kind", "params")
    class ParamsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ParamValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ParamValue, _Mapping]] = ...) -> None: ...
    KIND_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    params: _containers.MessageMap[str, ParamValue]
    def __init__(self, kind: _Optional[str] = ..., params: _Optional[_Mapping[str, ParamValue]] = ...) -> None: ...

class QuantizationSpec(_message.Message):
    __slots__ = ("kind", "params")
    class ParamsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ParamValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ParamValue, _Mapping]] = ...) -> None: ...
    KIND_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    params: _containers.MessageMap[str, ParamValue]
    def __init__(self, kind: _Optional[str] = ..., params: _Optional[_Mapping[str, ParamValue]] = ...) -> None: ...

class FieldSpec(_message.Message):
    __slots__ = ("type", "unindexed")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    UNINDEXED_FIELD_NUMBER: _ClassVar[int]
    type: FieldType
    unindexed: bool
    def __init__(self, type: _Optional[_Union[FieldType, str]] = ..., unindexed: bool = ...) -> None: ...

class FieldSpecs(_message.Message):
    __slots__ = ("fields",)
    class FieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: FieldSpec
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[FieldSpec, _Mapping]] = ...) -> None: ...
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    fields: _containers.MessageMap[str, FieldSpec]
    def __init__(self, fields: _Optional[_Mapping[str, FieldSpec]] = ...) -> None: ...

class Tuning(_message.Message):
    __slots__ = ("seal_bytes", "index_bytes", "max_segment_bytes", "max_unindexed_bytes", "max_write_bytes", "merge_factor", "build_threads", "durability")
    SEAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    INDEX_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_SEGMENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_UNINDEXED_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_WRITE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MERGE_FACTOR_FIELD_NUMBER: _ClassVar[int]
    BUILD_THREADS_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    seal_bytes: int
    index_bytes: int
    max_segment_bytes: int
    max_unindexed_bytes: int
    max_write_bytes: int
    merge_factor: int
    build_threads: int
    durability: Durability
    def __init__(self, seal_bytes: _Optional[int] = ..., index_bytes: _Optional[int] = ..., max_segment_bytes: _Optional[int] = ..., max_unindexed_bytes: _Optional[int] = ..., max_write_bytes: _Optional[int] = ..., merge_factor: _Optional[int] = ..., build_threads: _Optional[int] = ..., durability: _Optional[_Union[Durability, str]] = ...) -> None: ...

class CollectionConfig(_message.Message):
    __slots__ = ("name", "dim", "metric", "index", "quantization", "fields", "tuning", "analyzer")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    TUNING_FIELD_NUMBER: _ClassVar[int]
    ANALYZER_FIELD_NUMBER: _ClassVar[int]
    name: str
    dim: int
    metric: Metric
    index: IndexSpec
    quantization: QuantizationSpec
    fields: FieldSpecs
    tuning: Tuning
    analyzer: str
    def __init__(self, name: _Optional[str] = ..., dim: _Optional[int] = ..., metric: _Optional[_Union[Metric, str]] = ..., index: _Optional[_Union[IndexSpec, _Mapping]] = ..., quantization: _Optional[_Union[QuantizationSpec, _Mapping]] = ..., fields: _Optional[_Union[FieldSpecs, _Mapping]] = ..., tuning: _Optional[_Union[Tuning, _Mapping]] = ..., analyzer: _Optional[str] = ...) -> None: ...

class SegmentPlan(_message.Message):
    __slots__ = ("segment", "strategy", "rows", "estimated", "matched", "rows_scored", "fallback_reason", "filtered", "params", "reason", "cost_us", "alternatives")
    class ParamsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ParamValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ParamValue, _Mapping]] = ...) -> None: ...
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_FIELD_NUMBER: _ClassVar[int]
    MATCHED_FIELD_NUMBER: _ClassVar[int]
    ROWS_SCORED_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_REASON_FIELD_NUMBER: _ClassVar[int]
    FILTERED_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    COST_US_FIELD_NUMBER: _ClassVar[int]
    ALTERNATIVES_FIELD_NUMBER: _ClassVar[int]
    segment: str
    strategy: str
    rows: int
    estimated: int
    matched: int
    rows_scored: int
    fallback_reason: str
    filtered: bool
    params: _containers.MessageMap[str, ParamValue]
    reason: str
    cost_us: float
    alternatives: _containers.RepeatedCompositeFieldContainer[Alternative]
    def __init__(self, segment: _Optional[str] = ..., strategy: _Optional[str] = ..., rows: _Optional[int] = ..., estimated: _Optional[int] = ..., matched: _Optional[int] = ..., rows_scored: _Optional[int] = ..., fallback_reason: _Optional[str] = ..., filtered: bool = ..., params: _Optional[_Mapping[str, ParamValue]] = ..., reason: _Optional[str] = ..., cost_us: _Optional[float] = ..., alternatives: _Optional[_Iterable[_Union[Alternative, _Mapping]]] = ...) -> None: ...

class Alternative(_message.Message):
    __slots__ = ("strategy", "cost_us", "reason")
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    COST_US_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    strategy: str
    cost_us: float
    reason: str
    def __init__(self, strategy: _Optional[str] = ..., cost_us: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...

class Plan(_message.Message):
    __slots__ = ("segments", "filter_mode", "version", "timings_ms", "recall", "recall_low", "recall_sampled")
    class TimingsMsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    FILTER_MODE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_MS_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    RECALL_LOW_FIELD_NUMBER: _ClassVar[int]
    RECALL_SAMPLED_FIELD_NUMBER: _ClassVar[int]
    segments: _containers.RepeatedCompositeFieldContainer[SegmentPlan]
    filter_mode: FilterMode
    version: int
    timings_ms: _containers.ScalarMap[str, float]
    recall: float
    recall_low: float
    recall_sampled: float
    def __init__(self, segments: _Optional[_Iterable[_Union[SegmentPlan, _Mapping]]] = ..., filter_mode: _Optional[_Union[FilterMode, str]] = ..., version: _Optional[int] = ..., timings_ms: _Optional[_Mapping[str, float]] = ..., recall: _Optional[float] = ..., recall_low: _Optional[float] = ..., recall_sampled: _Optional[float] = ...) -> None: ...

class SearchResult(_message.Message):
    __slots__ = ("hits", "scores", "complete", "incomplete_reason", "searched_fraction", "took_ms", "plan")
    HITS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    INCOMPLETE_REASON_FIELD_NUMBER: _ClassVar[int]
    SEARCHED_FRACTION_FIELD_NUMBER: _ClassVar[int]
    TOOK_MS_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    hits: Rows
    scores: _containers.RepeatedScalarFieldContainer[float]
    complete: bool
    incomplete_reason: str
    searched_fraction: float
    took_ms: float
    plan: int
    def __init__(self, hits: _Optional[_Union[Rows, _Mapping]] = ..., scores: _Optional[_Iterable[float]] = ..., complete: bool = ..., incomplete_reason: _Optional[str] = ..., searched_fraction: _Optional[float] = ..., took_ms: _Optional[float] = ..., plan: _Optional[int] = ...) -> None: ...

class SegmentStats(_message.Message):
    __slots__ = ("name", "rows", "deleted", "index", "memory_bytes", "disk_bytes", "quantization")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    name: str
    rows: int
    deleted: int
    index: str
    memory_bytes: int
    disk_bytes: int
    quantization: str
    def __init__(self, name: _Optional[str] = ..., rows: _Optional[int] = ..., deleted: _Optional[int] = ..., index: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., disk_bytes: _Optional[int] = ..., quantization: _Optional[str] = ...) -> None: ...

class OptimizerStats(_message.Message):
    __slots__ = ("state", "progress", "pending_bytes", "error")
    STATE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    PENDING_BYTES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    state: str
    progress: float
    pending_bytes: int
    error: str
    def __init__(self, state: _Optional[str] = ..., progress: _Optional[float] = ..., pending_bytes: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...

class CollectionStats(_message.Message):
    __slots__ = ("rows", "deleted", "indexed_rows", "tail_rows", "version", "memory_bytes", "disk_bytes", "index", "segments", "optimizer", "quantization", "scrub", "memory")
    class MemoryEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ROWS_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    INDEXED_ROWS_FIELD_NUMBER: _ClassVar[int]
    TAIL_ROWS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZER_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    SCRUB_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    rows: int
    deleted: int
    indexed_rows: int
    tail_rows: int
    version: int
    memory_bytes: int
    disk_bytes: int
    index: IndexSpec
    segments: _containers.RepeatedCompositeFieldContainer[SegmentStats]
    optimizer: OptimizerStats
    quantization: QuantizationSpec
    scrub: ScrubStats
    memory: _containers.ScalarMap[str, int]
    def __init__(self, rows: _Optional[int] = ..., deleted: _Optional[int] = ..., indexed_rows: _Optional[int] = ..., tail_rows: _Optional[int] = ..., version: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., disk_bytes: _Optional[int] = ..., index: _Optional[_Union[IndexSpec, _Mapping]] = ..., segments: _Optional[_Iterable[_Union[SegmentStats, _Mapping]]] = ..., optimizer: _Optional[_Union[OptimizerStats, _Mapping]] = ..., quantization: _Optional[_Union[QuantizationSpec, _Mapping]] = ..., scrub: _Optional[_Union[ScrubStats, _Mapping]] = ..., memory: _Optional[_Mapping[str, int]] = ...) -> None: ...

class ScrubStats(_message.Message):
    __slots__ = ("passes", "bytes", "damaged", "rebuilt", "error")
    PASSES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    DAMAGED_FIELD_NUMBER: _ClassVar[int]
    REBUILT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    passes: int
    bytes: int
    damaged: int
    rebuilt: int
    error: str
    def __init__(self, passes: _Optional[int] = ..., bytes: _Optional[int] = ..., damaged: _Optional[int] = ..., rebuilt: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...

class DatabaseInfo(_message.Message):
    __slots__ = ("version", "format_version", "path", "collections", "durability", "read_only_reason", "memory", "memory_limit")
    class MemoryEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FORMAT_VERSION_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_REASON_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    MEMORY_LIMIT_FIELD_NUMBER: _ClassVar[int]
    version: str
    format_version: int
    path: str
    collections: _containers.RepeatedScalarFieldContainer[str]
    durability: Durability
    read_only_reason: str
    memory: _containers.ScalarMap[str, int]
    memory_limit: int
    def __init__(self, version: _Optional[str] = ..., format_version: _Optional[int] = ..., path: _Optional[str] = ..., collections: _Optional[_Iterable[str]] = ..., durability: _Optional[_Union[Durability, str]] = ..., read_only_reason: _Optional[str] = ..., memory: _Optional[_Mapping[str, int]] = ..., memory_limit: _Optional[int] = ...) -> None: ...

class BackupInfo(_message.Message):
    __slots__ = ("id", "created", "collections", "files", "total_bytes", "new_bytes")
    class CollectionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    NEW_BYTES_FIELD_NUMBER: _ClassVar[int]
    id: str
    created: str
    collections: _containers.ScalarMap[str, int]
    files: int
    total_bytes: int
    new_bytes: int
    def __init__(self, id: _Optional[str] = ..., created: _Optional[str] = ..., collections: _Optional[_Mapping[str, int]] = ..., files: _Optional[int] = ..., total_bytes: _Optional[int] = ..., new_bytes: _Optional[int] = ...) -> None: ...

class Problem(_message.Message):
    __slots__ = ("kind", "message", "collection", "subject")
    KIND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    kind: str
    message: str
    collection: str
    subject: str
    def __init__(self, kind: _Optional[str] = ..., message: _Optional[str] = ..., collection: _Optional[str] = ..., subject: _Optional[str] = ...) -> None: ...

class CheckedCollection(_message.Message):
    __slots__ = ("name", "version", "records", "segments", "searches", "recall")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    SEARCHES_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    records: int
    segments: int
    searches: int
    recall: float
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., records: _Optional[int] = ..., segments: _Optional[int] = ..., searches: _Optional[int] = ..., recall: _Optional[float] = ...) -> None: ...

class VerifyReport(_message.Message):
    __slots__ = ("path", "problems", "notes", "collections", "files", "bytes")
    PATH_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    path: str
    problems: _containers.RepeatedCompositeFieldContainer[Problem]
    notes: _containers.RepeatedScalarFieldContainer[str]
    collections: _containers.RepeatedCompositeFieldContainer[CheckedCollection]
    files: int
    bytes: int
    def __init__(self, path: _Optional[str] = ..., problems: _Optional[_Iterable[_Union[Problem, _Mapping]]] = ..., notes: _Optional[_Iterable[str]] = ..., collections: _Optional[_Iterable[_Union[CheckedCollection, _Mapping]]] = ..., files: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class Lost(_message.Message):
    __slots__ = ("kind", "message", "collection", "count", "ids")
    KIND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    message: str
    collection: str
    count: int
    ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, kind: _Optional[str] = ..., message: _Optional[str] = ..., collection: _Optional[str] = ..., count: _Optional[int] = ..., ids: _Optional[_Iterable[str]] = ...) -> None: ...

class RepairReport(_message.Message):
    __slots__ = ("path", "dry_run", "rebuilt", "quarantined", "lost", "problems")
    PATH_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    REBUILT_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    path: str
    dry_run: bool
    rebuilt: _containers.RepeatedScalarFieldContainer[str]
    quarantined: _containers.RepeatedScalarFieldContainer[str]
    lost: _containers.RepeatedCompositeFieldContainer[Lost]
    problems: _containers.RepeatedCompositeFieldContainer[Problem]
    def __init__(self, path: _Optional[str] = ..., dry_run: bool = ..., rebuilt: _Optional[_Iterable[str]] = ..., quarantined: _Optional[_Iterable[str]] = ..., lost: _Optional[_Iterable[_Union[Lost, _Mapping]]] = ..., problems: _Optional[_Iterable[_Union[Problem, _Mapping]]] = ...) -> None: ...

class Erasure(_message.Message):
    __slots__ = ("count", "collection", "ids", "version", "rows", "segments", "files", "remaining", "started", "finished")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    count: int
    collection: str
    ids: _containers.RepeatedScalarFieldContainer[str]
    version: int
    rows: int
    segments: _containers.RepeatedScalarFieldContainer[str]
    files: _containers.RepeatedScalarFieldContainer[str]
    remaining: _containers.RepeatedScalarFieldContainer[str]
    started: str
    finished: str
    def __init__(self, count: _Optional[int] = ..., collection: _Optional[str] = ..., ids: _Optional[_Iterable[str]] = ..., version: _Optional[int] = ..., rows: _Optional[int] = ..., segments: _Optional[_Iterable[str]] = ..., files: _Optional[_Iterable[str]] = ..., remaining: _Optional[_Iterable[str]] = ..., started: _Optional[str] = ..., finished: _Optional[str] = ...) -> None: ...
