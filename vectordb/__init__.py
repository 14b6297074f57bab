"""vectordb: an embeddable vector database. ``vectordb.Database("./data")`` runs the engine in this process.

For one API over this engine and over servers use ``vectordb_client.connect``. Importing this package loads neither
grpc nor the native libraries; ``Database`` brings the latter in on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vectordb import errors
from vectordb.filter import Filter, col
from vectordb.metric import Metric
from vectordb.reports import Erasure, RepairReport, VerifyReport
from vectordb.results import Alternative, Hit, Plan, SearchResult, SegmentPlan
from vectordb.stats import CollectionStats, DatabaseInfo
from vectordb.types import CollectionConfig, FilterMode, Record, Tuning, WriteResult

if TYPE_CHECKING:
    from vectordb.api.collection import Collection
    from vectordb.engine.database import Database

__version__ = "0.1.0"

__all__ = [
    "Alternative",
    "Collection",
    "CollectionConfig",
    "CollectionStats",
    "Database",
    "DatabaseInfo",
    "Erasure",
    "Filter",
    "FilterMode",
    "Hit",
    "Metric",
    "Plan",
    "Record",
    "RepairReport",
    "SearchResult",
    "SegmentPlan",
    "Tuning",
    "VerifyReport",
    "WriteResult",
    "__version__",
    "col",
    "errors",
]


def __getattr__(name: str) -> Any:
    if name == "Database":
        from vectordb.engine.database import Database

        return Database
    if name == "Collection":
        from vectordb.api.collection import Collection

        return Collection
    raise AttributeError(f"module 'vectordb' has no attribute {name!r}")
