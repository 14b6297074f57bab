"""Caps on what one request may ask for, and on how many collections a database has. Each is a setting of its name.

A cap that a request goes over is named in the error, with what was asked for. What a format or the recursion of a
parser cannot hold bounds the caps themselves (``BOUNDS``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from vectordb.errors import InvalidArgument, InvalidFilter, ResourceExhausted
from vectordb.filter import MAX_DEPTH, MAX_NODES, Filter
from vectordb.ids import MAX_ID_BYTES
from vectordb.validate import MAX_BYTES


@dataclass(frozen=True, slots=True)
class Limits:
    """The caps of one database; immutable.

    Attributes:
        max_dim: Dimensions of a new collection.
        max_limit: Hits a query, and records a page of a scan.
        max_queries: Queries of one search.
        max_batch_rows: Records of one write (its bytes: ``max_write_bytes`` of the collection).
        max_get_ids: Ids of one ``get``.
        max_text_bytes: UTF-8 of one record's text.
        max_metadata_bytes: One record's metadata, encoded.
        max_id_bytes: UTF-8 of one id.
        max_filter_depth: Levels of one filter. max_filter_nodes: Conditions and connectives in it.
        max_collections: Collections of the database.

    Raises:
        InvalidArgument: A cap is out of ``BOUNDS``.
    """

    max_dim: int = 65_536
    max_limit: int = 10_000
    max_queries: int = 10_000
    max_batch_rows: int = 10_000_000
    max_get_ids: int = 1_000_000
    max_text_bytes: int = 16 << 20
    max_metadata_bytes: int = MAX_BYTES
    max_id_bytes: int = MAX_ID_BYTES
    max_filter_depth: int = MAX_DEPTH
    max_filter_nodes: int = MAX_NODES
    max_collections: int = 10_000

    def __post_init__(self) -> None:
        for field in fields(self):
            value, most = getattr(self, field.name), BOUNDS[field.name]
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
                raise InvalidArgument(
                    f"{field.name} is a whole number from 1 to {most}, got {value!r}", field=field.name
                )

    def check_filter(self, where: Filter | None) -> None:
        """Raises:
        InvalidFilter: It is too deep or too large.
        """
        if where is None:
            return
        for got, cap, what in (
            (where.depth, "max_filter_depth", "levels"),
            (where.nodes, "max_filter_nodes", "conditions"),
        ):
            most = getattr(self, cap)
            if got > most:
                raise InvalidFilter(
                    f"the filter has {got} {what}, at most {most} are allowed ({cap}); use .isin([...]), or split it",
                    path="",
                    limit=most,
                    got=got,
                )

    def check_count(self, cap: str, got: int, what: str) -> None:
        """Raises:
        ResourceExhausted: ``got`` is more than the cap of that name allows.
        """
        most = getattr(self, cap)
        if got > most:
            raise ResourceExhausted(
                f"{what}: {got}, at most {most} are allowed ({cap}); split the call, or raise it", limit=most, got=got
            )


BOUNDS: Mapping[str, int] = MappingProxyType(
    {
        "max_dim": 65_536,
        "max_limit": 1_000_000,
        "max_queries": 1_000_000,
        "max_batch_rows": 1 << 31,
        "max_get_ids": 1 << 31,
        "max_text_bytes": 1 << 30,
        "max_metadata_bytes": 256 << 20,
        "max_id_bytes": MAX_ID_BYTES,
        "max_filter_depth": MAX_DEPTH,
        "max_filter_nodes": MAX_NODES,
        "max_collections": 10_000_000,
    }
)
"""The most that each cap may be. The dimension, ids and filters are bounded by the formats of files and messages."""

DEFAULTS = Limits()


def limits_of(given: Mapping[str, Any]) -> Limits:
    """The caps, of which some are given by name.

    Raises:
        InvalidArgument: An unknown name, or a cap out of bounds.
    """
    for name in given:
        if name not in BOUNDS:
            raise InvalidArgument(
                f"unknown option {name!r}; the caps are {', '.join(BOUNDS)}", field=name, known=list(BOUNDS)
            )
    return Limits(**given)
