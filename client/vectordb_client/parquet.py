"""Collections as Parquet files, and Parquet files of any origin as collections. Needs pyarrow (extra ``parquet``).

A file that was exported here has the columns ``id`` (string), ``vector`` (float32 list of the collection's dimension,
null without one), ``metadata`` (JSON text; datetimes as ``{"$datetime": "2026-01-31T12:00:00Z"}``, a dict that looks so
as ``{"$dict": {"$datetime": ...}}``) and ``text``. Its schema's metadata has, under ``vectordb.collection``, the
collection's configuration as JSON. Importing it makes an equal collection. Of another file the columns are named; those
that are neither id, vector nor text become metadata.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from vectordb.api.arrow import values_of
from vectordb.encoding import metadata_to_json
from vectordb.errors import FailedPrecondition, InvalidArgument
from vectordb.requests import CreateRequest
from vectordb.types import CollectionConfig, Record

if TYPE_CHECKING:
    from vectordb.api import Collection, Database

_CONFIG = b"vectordb.collection"
_ROWS = 1_000
_EXPORTED = ("id", "vector", "metadata", "text")
_MARKS = frozenset({"$datetime", "$dict"})


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a foreign file hold what; ``None`` for a column that it does not have."""

    id: str | None = "id"
    vector: str | None = "vector"
    text: str | None = "text"


def export_parquet(collection: Collection, path: str | os.PathLike[str], where: Any = None) -> int:
    """Writes the records of one snapshot, in order of arrival; the file appears whole or not at all.

    Args:
        where: Only records that match.

    Returns:
        How many records it has.

    Raises:
        InvalidArgument: ``path`` names no file. FailedPrecondition: pyarrow is not installed, or the file cannot be
            written.
    """
    arrow, parquet = _pyarrow()
    final = _named(path)
    vector = arrow.list_(arrow.float32(), collection.dim)
    fields = [("id", arrow.string()), ("vector", vector), ("metadata", arrow.string()), ("text", arrow.string())]
    schema = arrow.schema(fields, metadata={_CONFIG: _config_json(collection.config).encode()})
    fresh = final.with_name(f".{final.name}.{uuid4().hex}")
    count = 0
    try:
        # Checksums: else a damaged file may be read as other records.
        with parquet.ParquetWriter(fresh, schema, compression="zstd", write_page_checksum=True) as writer:
            for page in _pages(collection.scan(where=where, include=("metadata", "text", "vector"))):
                columns = [
                    arrow.array([record.id for record in page], arrow.string()),
                    arrow.array([record.vector for record in page], vector),
                    arrow.array([_metadata_json(record.metadata or {}) for record in page], arrow.string()),
                    arrow.array([record.text for record in page], arrow.string()),
                ]
                writer.write_table(arrow.Table.from_arrays(columns, schema=schema))
                count += len(page)
        fresh.replace(final)
    except OSError as error:
        raise FailedPrecondition(
            f"{str(final)!r} cannot be written: {error.strerror or error}", path=str(final)
        ) from None
    finally:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
    return count


def import_parquet(
    db: Database, path: str | os.PathLike[str], name: str | None = None, columns: Columns | None = None
) -> Collection:
    """Upserts a file's records into a collection, which is created as the file says where it does not exist.

    Args:
        name: The collection; that of the exported one by default. A foreign file needs one that exists.
        columns: Of a foreign file.

    Raises:
        InvalidArgument: It is no Parquet file that can be read to its end (what was read by then is written), has no
            such column or one of another type, or is foreign and no collection is named.
        CollectionNotFound: The file is foreign and there is no such collection. FailedPrecondition: pyarrow is not
            installed.
    """
    file, config = _opened(path)
    if config is not None and columns is None:
        _check_exported(file)
        name = name or config.name
        if name in db.list_collections():
            collection = db.collection(name)
        else:
            db._backend.create_collection(CreateRequest(replace(config, name=name)))
            collection = db.collection(name)
        records: Iterator[Any] = _exported(file, path)
    else:
        if name is None:
            raise InvalidArgument("the file was not exported here: name a collection that exists", field="name")
        collection = db.collection(name)
        records = _foreign(file, path, _places(file, columns or Columns()))
    collection.bulk_upsert(records, batch_size=_ROWS)
    return collection


def exported_config(path: str | os.PathLike[str]) -> CollectionConfig | None:
    """The configuration of the collection that was exported to a file; ``None`` of a file of another origin.

    Raises:
        InvalidArgument: It is no Parquet file, or its collection cannot be read. FailedPrecondition: pyarrow is not
            installed.
    """
    return _opened(path)[1]


def _opened(path: str | os.PathLike[str]) -> tuple[Any, CollectionConfig | None]:
    _, parquet = _pyarrow()
    path = _named(path)
    with _readable(path):
        file = parquet.ParquetFile(path, page_checksum_verification=True)
    stored = (file.schema_arrow.metadata or {}).get(_CONFIG)
    return file, None if stored is None else _config_from_json(stored)


def _named(path: Any) -> Path:
    """The path of a file; raises ``InvalidArgument`` where it is none."""
    file = Path(path) if isinstance(path, str | os.PathLike) and path else None
    if file is None or not file.name or "\0" in str(file):
        raise InvalidArgument(f"path names a file, got {path!r:.60}", field="path")
    return file


@contextmanager
def _readable(path: str | os.PathLike[str]) -> Iterator[None]:
    """Says of which file arrow could not read something: of one that is not there, too."""
    arrow, _ = _pyarrow()
    try:
        yield
    except (arrow.ArrowInvalid, OSError) as error:
        raise InvalidArgument(f"{str(path)!r} is no Parquet file that can be read: {error}", field="path") from None


def _batches(file: Any, path: str | os.PathLike[str], columns: list[str] | None = None) -> Iterator[Any]:
    batches = file.iter_batches(_ROWS, columns=columns)
    while True:
        with _readable(path):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def _exported(file: Any, path: str | os.PathLike[str]) -> Iterator[Record]:
    start = 0
    for batch in _batches(file, path, list(_EXPORTED)):
        ids, metadata, texts = (values_of(batch.column(name), name) for name in ("id", "metadata", "text"))
        vectors = _vectors(batch.column("vector"))
        for row, (id_, vector, data, text) in enumerate(zip(ids, vectors, metadata, texts, strict=True), start):
            yield Record(id_, vector, _metadata_from_json(data, row), text)
        start += len(batch)


def _check_exported(file: Any) -> None:
    """That nobody took a column from an exported file, or changed its type, since."""
    arrow, _ = _pyarrow()
    _check_vectors(file, "vector")
    for name in _EXPORTED:
        if file.schema_arrow.names.count(name) != 1:
            raise InvalidArgument(
                f"the file was exported here, and has not one column {name!r} any more; to read it as one of other "
                "origin say which columns it has",
                field=name,
            )
    kind = file.schema_arrow.field("metadata").type
    if not any(is_text(kind) for is_text in (arrow.types.is_string, arrow.types.is_large_string)):
        raise InvalidArgument(f"the file's column 'metadata' holds {kind}, not JSON text", field="metadata")


def _places(file: Any, columns: Columns) -> dict[str, str]:
    """Which column of a foreign file holds what.

    Raises:
        InvalidArgument: There is no such column, it holds no vectors, or two have one name.
    """
    names = file.schema_arrow.names
    for field in ("id", "vector", "text"):
        wanted = getattr(columns, field)
        # A default that is not there is simply not there; one that was asked for is a slip.
        if wanted is not None and wanted not in names and wanted != getattr(Columns(), field):
            raise InvalidArgument(f"the file has no column {wanted!r}; it has {', '.join(names)}", field=field)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidArgument(f"the file has more than one column {twice!r}; rename them", field=twice)
    places = {name: getattr(columns, name) for name in ("id", "vector", "text") if getattr(columns, name) in names}
    if "vector" in places:
        _check_vectors(file, places["vector"])
    return places


def _check_vectors(file: Any, name: str) -> None:
    arrow, _ = _pyarrow()
    types, schema = arrow.types, file.schema_arrow
    for kind in (schema.field(place).type for place in schema.get_all_field_indices(name)):
        lists = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_null)
        if not any(is_list(kind) for is_list in lists):
            raise InvalidArgument(f"the file's column {name!r} holds {kind}, not lists of numbers", field="vector")


def _foreign(file: Any, path: str | os.PathLike[str], places: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
    others = [name for name in file.schema_arrow.names if name not in places.values()]
    for batch in _batches(file, path):
        values = {
            name: _vectors(batch.column(place)) if name == "vector" else values_of(batch.column(place), name)
            for name, place in places.items()
        }
        rest = values_of(batch.select(others), "metadata")
        for row, metadata in enumerate(rest):
            record = {name: column[row] for name, column in values.items()}
            yield {**record, "metadata": {key: value for key, value in metadata.items() if value is not None}}


def _vectors(column: Any) -> list[Any]:
    """Vectors as numpy arrays float32[d], None where there is none."""
    return [None if value is None else value.values.to_numpy(zero_copy_only=False) for value in _scalars(column)]


def _scalars(column: Any) -> Iterator[Any]:
    return (scalar if scalar.is_valid else None for scalar in column)


def _metadata_json(metadata: Mapping[str, Any]) -> str:
    def marked(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        inner = {key: marked(part) for key, part in value.items()}
        return {"$dict": inner} if len(inner) == 1 and not _MARKS.isdisjoint(inner) else inner

    return metadata_to_json({key: marked(value) for key, value in metadata.items()})


def _metadata_from_json(data: str | None, row: int) -> Any:
    def unmarked(value: Any) -> Any:
        if isinstance(value, list):
            return [unmarked(part) for part in value]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            if isinstance(text := value.get("$datetime"), str):
                with suppress(ValueError):
                    return datetime.fromisoformat(text)
            if isinstance(inner := value.get("$dict"), dict):
                value = inner
        return {key: unmarked(part) for key, part in value.items()}

    try:
        metadata = json.loads(data) if data else {}
    except ValueError as error:
        raise InvalidArgument(f"metadata in row {row} is no JSON: {error}", field="metadata", row=row) from None
    # What is no dict is refused by name where the record is made.
    return {key: unmarked(value) for key, value in metadata.items()} if isinstance(metadata, dict) else metadata


def _config_json(config: CollectionConfig) -> str:
    from google.protobuf.json_format import MessageToJson

    from vectordb.wire.config import config_to_message
    from vectordb_proto.v1 import types_pb2

    message = types_pb2.CollectionConfig()
    config_to_message(config, message)
    return str(MessageToJson(message, preserving_proto_field_name=True, indent=None))


def _config_from_json(data: bytes) -> CollectionConfig:
    from google.protobuf.json_format import Parse, ParseError

    from vectordb.wire.config import config_from_message
    from vectordb_proto.v1 import types_pb2

    try:
        # A newer release may have written fields that this one does not know.
        return config_from_message(Parse(data, types_pb2.CollectionConfig(), ignore_unknown_fields=True))
    except (ParseError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"the file's collection cannot be read: {error}", field="path") from error


def _pages(records: Iterable[Record]) -> Iterator[list[Record]]:
    source = iter(records)
    while page := list(islice(source, _ROWS)):
        yield page


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as missing:
        raise FailedPrecondition("Parquet files need pyarrow: pip install 'vectordb-engine[parquet]'") from missing
    return pyarrow, pyarrow.parquet
