"""The faces that users hold, the same for every target: they turn arguments into requests for a backend."""

from vectordb.api.collection import Collection
from vectordb.api.database import Database

__all__ = ["Collection", "Database"]
