"""Everything that can be wrong with a request is found here, before anything happens.

Rows that pass cannot fail later on account of what the user gave.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from vectordb.arguments import flag, utf8, whole
from vectordb.encoding import decode_metadata
from vectordb.engine.text_checks import check_texts
from vectordb.errors import DimensionMismatch, InvalidArgument, InvalidVector, ResourceExhausted
from vectordb.ids import encoded_ids
from vectordb.index.quantization import NONE
from vectordb.index.registry import check_search_params, resolve
from vectordb.limits import DEFAULTS, Limits
from vectordb.metric import Metric, length, norms, prepared
from vectordb.requests import ReindexRequest, Rows, ScanRequest, SearchRequest, WriteRequest
from vectordb.storage.catalogue import Choice
from vectordb.text.analyzers import analyzer
from vectordb.types import CollectionConfig
from vectordb.validate import check_filter, check_metadata, check_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,255}")
_INCLUDES = ("metadata", "text", "vector")


@dataclass(slots=True)
class CheckedRows:
    """Rows ready to be committed.

    Attributes:
        ids: Ids as text. keys: The same as UTF-8.
        vectors: float32[n, d] as given, or None. prepared: The form that is searched.
        has_vector: bool[n] where some rows lack a vector.
        metadata: Encoded maps. texts: UTF-8, or None where the whole column is missing.
        size: Bytes of ids, vectors, metadata and texts together.
    """

    ids: list[str]
    keys: list[bytes]
    vectors: NDArray[np.float32] | None
    prepared: NDArray[np.float32] | None
    has_vector: NDArray[np.bool_] | None
    metadata: list[bytes]
    texts: list[bytes | None] | None
    size: int


def check_opening(cache_bytes: object, accept_loss: object) -> tuple[int, bool]:
    """What an engine is opened with: ``"no"`` would accept a loss, and a cache of no number fails in RocksDB."""
    size = whole(cache_bytes, "cache_bytes")
    if size < 0:
        raise InvalidArgument(f"cache_bytes is a number of bytes from 0, got {size}", field="cache_bytes")
    return size, flag(accept_loss, "accept_loss")


def check_name(name: object) -> str:
    """A collection's name."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"collection name {name!r} is not 1 to 255 of letters, digits, '_', '-', '.'", field="name"
        )
    return name


def check_config(config: CollectionConfig, limits: Limits = DEFAULTS) -> None:
    """A new collection's configuration.

    Raises:
        InvalidArgument: A value is out of range, or the index cannot do what is asked; alternatives are named.
    """
    check_name(config.name)
    if not isinstance(config.dim, int) or isinstance(config.dim, bool) or not 1 <= config.dim <= limits.max_dim:
        raise InvalidArgument(
            f"dim is a whole number from 1 to {limits.max_dim}, got {config.dim!r} (max_dim)", field="dim"
        )
    _check_index(config)
    tuning = config.tuning
    for name in ("seal_bytes", "index_bytes", "max_segment_bytes", "max_unindexed_bytes", "max_write_bytes"):
        value = getattr(tuning, name)
        if not 1 <= value <= 1 << 50:
            raise InvalidArgument(f"{name} is a number of bytes from 1 to 2^50, got {value}", field=name)
    if not 2 <= tuning.merge_factor <= 64:
        raise InvalidArgument(f"merge_factor is 2 to 64, got {tuning.merge_factor}", field="merge_factor")
    if not 0 <= tuning.build_threads <= 1024:
        raise InvalidArgument(f"build_threads is 0 to 1024, got {tuning.build_threads}", field="build_threads")
    analyzer(config.analyzer)
    for path in config.fields or ():
        if not isinstance(path, str) or not path or any(not part for part in path.split(".")):
            raise InvalidArgument(f"fields has a bad field path {path!r}; 'a' or 'a.b'", field="fields")


def check_reindex(config: CollectionConfig, request: ReindexRequest) -> Choice:
    """What a collection of this configuration is to be reindexed to.

    Raises:
        InvalidArgument: Nothing would change, or the index cannot do what is asked; alternatives are named.
    """
    index, quantization = request.index, request.quantization
    if index is None and quantization is None:
        raise InvalidArgument("give index, quantization, or both; otherwise nothing would change", field="index")
    if quantization is None:
        quantization = config.quantization
    elif quantization.kind == NONE:
        if quantization.params:
            raise InvalidArgument(f"quantization {NONE!r} takes no parameters", field="quantization")
        quantization = None
    choice = Choice(config.index if index is None else index, quantization)
    _check_index(replace(config, index=choice.index, quantization=choice.quantization))
    return choice


def _check_index(config: CollectionConfig) -> None:
    if config.index.kind == "auto" and config.index.params:
        raise InvalidArgument("index 'auto' takes no parameters; name a kind to set them", field="index")
    resolve(config.index, config.metric, config.quantization, config.dim)


def check_write(config: CollectionConfig, request: WriteRequest, size: int, limits: Limits = DEFAULTS) -> CheckedRows:
    """The rows of one write, of ``size`` bytes, checked in full and in the form that is committed.

    Raises:
        InvalidArgument, DimensionMismatch, InvalidVector, ResourceExhausted: The row is named; nothing was done.
    """
    check_vector_name(request.vector_name)
    rows = request.rows
    n = len(rows)
    if n == 0:
        raise InvalidArgument("the write has no rows; give at least one record", field="ids")
    if size > config.tuning.max_write_bytes:
        raise ResourceExhausted(
            f"the write has {size} bytes, more than max_write_bytes = {config.tuning.max_write_bytes}; "
            "split it, or use bulk_upsert",
            limit=config.tuning.max_write_bytes,
            got=size,
        )
    limits.check_count("max_batch_rows", n, "records of one write")
    _check_lengths(rows)
    keys = encoded_ids(rows.ids, max_bytes=limits.max_id_bytes)
    vectors = None if rows.vectors is None else _check_vectors(config, rows.vectors, rows.has_vector)
    metadata = rows.metadata if rows.metadata is not None else [b""] * n
    if rows.metadata is not None:
        _check_metadata(config, metadata, limits)
    texts = None if rows.texts is None else _encoded_texts(rows.texts, limits.max_text_bytes)
    searched = None if vectors is None else prepared(vectors, config.metric)
    has_vector = rows.has_vector if vectors is not None and rows.has_vector is not None else None
    if has_vector is not None and has_vector.all():
        has_vector = None
    return CheckedRows(rows.ids, keys, vectors, searched, has_vector, metadata, texts, size)


def _check_lengths(rows: Rows) -> None:
    n = len(rows)
    for name in ("vectors", "has_vector", "metadata", "texts"):
        column = getattr(rows, name)
        if column is not None and len(column) != n:
            raise InvalidArgument(f"{name} has {len(column)} rows, ids has {n}; they must agree", field=name)


def _check_vectors(
    config: CollectionConfig, vectors: NDArray[np.float32], has_vector: NDArray[np.bool_] | None
) -> NDArray[np.float32]:
    _check_dim(config, vectors)
    bad = _first_bad(config.metric, vectors, has_vector)
    if bad is not None:
        raise _invalid_vector(config, vectors[bad], bad, "row")
    return vectors


def _check_dim(config: CollectionConfig, vectors: NDArray[np.float32]) -> None:
    if vectors.ndim != 2 or vectors.shape[1] != config.dim:
        got = vectors.shape[1] if vectors.ndim == 2 else int(vectors.size)
        raise DimensionMismatch(
            f"collection {config.name!r} has dim {config.dim}, got {got} in row 0",
            collection=config.name,
            expected=config.dim,
            got=got,
            row=0,
        )


def _first_bad(metric: Metric, vectors: NDArray[np.float32], has_vector: NDArray[np.bool_] | None) -> int | None:
    """The first row that cannot be searched, or None."""
    # The sum is finite for finite rows of sane size; only else is each element looked at.
    with np.errstate(over="ignore", invalid="ignore"):
        suspicious = not np.isfinite(vectors.sum())
    if suspicious:
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            return int(np.argmin(finite))
    if metric is Metric.COSINE:
        nonzero = vectors.any(axis=1)
        if has_vector is not None:
            nonzero |= ~has_vector
        if not nonzero.all():
            return int(np.argmin(nonzero))
    return None


def _invalid_vector(config: CollectionConfig, vector: NDArray[np.float32], row: int, where: str) -> InvalidVector:
    finite = np.isfinite(vector)
    if finite.all():
        return InvalidVector(
            f"vector in {where} {row} is zero and has no direction; collection {config.name!r} compares by cosine",
            collection=config.name,
            row=row,
            position=0,
        )
    position = int(np.argmin(finite))
    what = "NaN" if np.isnan(vector[position]) else "infinite (or beyond float32)"
    return InvalidVector(
        f"vector in {where} {row} is {what} at position {position}; collection {config.name!r} needs finite numbers",
        collection=config.name,
        row=row,
        position=position,
    )


def _check_metadata(config: CollectionConfig, metadata: list[bytes], limits: Limits) -> None:
    for row, data in enumerate(metadata):
        if data:
            check_metadata(decoded(data, row), config.fields, row=row, max_bytes=limits.max_metadata_bytes)


def decoded(data: bytes, row: int) -> dict[str, object]:
    """Encoded metadata from a client as a map, or InvalidArgument that names the row."""
    try:
        value = decode_metadata(data)
    except ValueError as error:
        raise InvalidArgument(f"metadata in row {row} is not MessagePack: {error}", field="metadata", row=row) from None
    if not isinstance(value, dict):
        raise InvalidArgument(f"metadata in row {row} is {type(value).__name__}, not a map", field="metadata", row=row)
    return value


def _encoded_texts(texts: list[str | None], most: int) -> list[bytes | None]:
    encoded: list[bytes | None] = []
    for row, text in enumerate(texts):
        try:
            data = None if text is None else text.encode()
        except UnicodeEncodeError:
            raise InvalidArgument(
                f"texts in row {row} is no text in UTF-8: {text!r:.60}", field="texts", row=row
            ) from None
        if data is not None and len(data) > most:
            raise InvalidArgument(
                f"text in row {row} has {len(data)} bytes, more than {most} (max_text_bytes); split it",
                field="texts",
                row=row,
                limit=most,
            )
        encoded.append(data)
    return encoded


def check_vector_name(name: str) -> None:
    """Only the default vector exists so far."""
    utf8(name, "vector_name")
    if name != "":
        raise InvalidArgument(f"vector_name {name!r} is unknown; the default vector is ''", field="vector_name")


def check_selectors(ids: object, where: object) -> None:
    """Updates and deletes need a selector, so that a forgotten argument does not touch everything."""
    if ids is None and where is None:
        raise InvalidArgument("give ids, where, or both; without a selector nothing is changed", field="ids")


def check_include(include: Sequence[str]) -> None:
    """Names of record parts to return."""
    for name in include:
        if name not in _INCLUDES:
            raise InvalidArgument(f"include has {name!r}; known are 'metadata', 'text', 'vector'", field="include")


def check_timeout(timeout: float | None) -> None:
    if isinstance(timeout, str | bytes):
        raise InvalidArgument(f"timeout is a number, got {timeout!r}", field="timeout")
    if timeout is not None and not timeout > 0:
        raise InvalidArgument(f"timeout is seconds greater than 0, got {float(timeout)!r}", field="timeout")


def check_scan(config: CollectionConfig, request: ScanRequest, limits: Limits = DEFAULTS) -> None:
    check_include(request.include)
    limits.check_filter(request.where)
    check_filter(request.where, config.fields)
    if not 1 <= request.page_size <= limits.max_limit:
        raise InvalidArgument(
            f"page_size is 1 to {limits.max_limit}, got {request.page_size} (max_limit)", field="page_size"
        )
    if request.order_by is not None:
        utf8(request.order_by, "order_by")
        check_order(request.order_by.removeprefix("-"), config.fields)


def check_search(config: CollectionConfig, request: SearchRequest, limits: Limits = DEFAULTS) -> NDArray[np.float32]:
    """Checks a search and returns its prepared queries float32[q, d]; of a search by text alone float32[0, d]."""
    if request.vector_name != "":
        check_vector_name(request.vector_name)
    limit = request.limit
    if type(limit) is not int or not 1 <= limit <= limits.max_limit:
        raise InvalidArgument(
            f"limit is a whole number from 1 to {limits.max_limit}, got {limit!r} (max_limit)", field="limit"
        )
    if request.texts or request.fusion is not None or request.vectors is None:
        check_texts(request)
    vectors = np.empty((0, config.dim), np.float32) if request.vectors is None else request.vectors
    _check_dim(config, vectors)
    number = len(vectors) if request.vectors is not None else len(request.texts)
    if not 1 <= number <= limits.max_queries:
        raise InvalidArgument(
            f"a search has 1 to {limits.max_queries} queries, got {number} (max_queries)", field="vectors"
        )
    queries = _prepared_query(config, vectors) if len(vectors) == 1 else _prepared_queries(config, vectors)
    if request.min_score is not None and not math.isfinite(request.min_score):
        raise InvalidArgument(f"min_score is a finite number, got {request.min_score!r}", field="min_score")
    check_timeout(request.timeout)
    check_include(request.include)
    if request.where is not None:
        limits.check_filter(request.where)
        check_filter(request.where, config.fields)
    if request.params:
        request.params = check_search_params(config.index.kind, config.quantization, request.params)
    return queries


def _prepared_queries(config: CollectionConfig, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Checked queries float32[q, d] in the form that is compared."""
    # One pass finds NaN, infinity and zero rows alike: their length is not a positive finite number.
    lengths = norms(vectors)
    if not ((lengths > 0.0).all() and np.isfinite(lengths).all()):
        _check_queries(config, vectors)
    return (vectors / lengths[:, None]).astype(np.float32) if config.metric is Metric.COSINE else vectors


def _prepared_query(config: CollectionConfig, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same for float32[1, d], the commonest search, with fewer calls of numpy and equal to the last bit."""
    norm, wide = length(vectors)
    if not 0.0 < norm < math.inf:
        _check_queries(config, vectors)
    return np.divide(wide, norm, out=wide).astype(np.float32) if config.metric is Metric.COSINE else vectors


def _check_queries(config: CollectionConfig, vectors: NDArray[np.float32]) -> None:
    bad = _first_bad(config.metric, vectors, None)
    if bad is not None:
        raise _invalid_vector(config, vectors[bad], bad, "query")


def check_idempotency_key(key: str | None) -> None:
    """At most 512 bytes of UTF-8, like an id."""
    if key is not None:
        utf8(key, "idempotency_key")
    if key is not None and not 0 < len(key.encode("utf-8", "surrogatepass")) <= 512:
        raise InvalidArgument("idempotency_key has 1 to 512 bytes of UTF-8", field="idempotency_key")
