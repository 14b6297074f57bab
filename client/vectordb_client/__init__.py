"""The client: one API for a database embedded in this process or behind a server.

    from vectordb_client import connect, col

    db = connect("./data")              # embedded: the engine runs here, on that folder
    db = connect("localhost:50051")     # served

Importing this loads neither the engine nor grpc; ``connect`` loads the one that its target needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vectordb import errors
from vectordb.api import Collection, Database
from vectordb.errors import (
    AlreadyExists,
    Closed,
    CollectionNotFound,
    Corruption,
    DeadlineExceeded,
    DimensionMismatch,
    DirectoryLocked,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    InvalidFilter,
    InvalidVector,
    ModelMismatch,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    VectorDBError,
)
from vectordb.filter import Filter, col
from vectordb.reports import Erasure, RepairReport, VerifyReport
from vectordb.results import Hit, Plan, SearchResult
from vectordb.types import Record, WriteResult
from vectordb_client.client import connect, connect_async

if TYPE_CHECKING:
    from vectordb_client.aio import AsyncCollection, AsyncDatabase

__all__ = [
    "AlreadyExists",
    "AsyncCollection",
    "AsyncDatabase",
    "Closed",
    "Collection",
    "CollectionNotFound",
    "Corruption",
    "Database",
    "DeadlineExceeded",
    "DimensionMismatch",
    "DirectoryLocked",
    "Erasure",
    "FailedPrecondition",
    "Filter",
    "Hit",
    "Internal",
    "InvalidArgument",
    "InvalidFilter",
    "InvalidVector",
    "ModelMismatch",
    "NotFound",
    "PermissionDenied",
    "Plan",
    "Record",
    "RepairReport",
    "ResourceExhausted",
    "SearchResult",
    "Unauthenticated",
    "Unavailable",
    "VectorDBError",
    "VerifyReport",
    "WriteResult",
    "col",
    "connect",
    "connect_async",
    "errors",
]


def __getattr__(name: str) -> Any:
    # asyncio alone would double the time of the import.
    if name in ("AsyncCollection", "AsyncDatabase"):
        from vectordb_client import aio

        return getattr(aio, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
