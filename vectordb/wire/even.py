"""Results of a batch that differ in the ids and scores of their hits alone, which are as many and as long: a table.

Then all of them have one size in the message, and numpy writes and reads them by column, without a step of Python for
each query. So are most batches, where no metadata is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from vectordb.results import HitColumns
from vectordb.wire.varints import varint, varint_at
from vectordb_proto.v1 import types_pb2

_RESULT, _HITS, _ID, _SCORES = 0x0A, 0x0A, 0x0A, 0x12
"""Tags of ``SearchResponse.results``, ``SearchResult.hits``, ``Rows.ids`` and ``SearchResult.scores``."""
_LONGEST = 127
"""Bytes of an id whose length is told in one byte."""


class Even(NamedTuple):
    """Ids and scores by query, so many hits each."""

    hits: int
    ids: list[list[str]]
    scores: list[list[float]]


class _Layout(NamedTuple):
    """Bytes of one result: tags and sizes, ids, the tag and size of the scores, scores, and what follows them."""

    head: int
    ids: int
    middle: int
    hits: int
    end: int

    @property
    def dtype(self) -> np.dtype[np.void]:
        return np.dtype(
            [
                ("head", "u1", (self.head,)), ("ids", "u1", (self.ids,)), ("middle", "u1", (self.middle,)),
                ("scores", "<f4", (self.hits,)), ("end", "u1", (self.end,)),
            ]
        )  # fmt: skip


def even_to_bytes(columns: Sequence[HitColumns], end: bytes) -> bytes | None:
    """The results of a batch as the first fields of a ``SearchResponse``; ``None`` where they are no table.

    Args:
        end: What follows the scores of each.
    """
    queries, hits = len(columns), len(columns[0].ids)
    ids = list(chain.from_iterable(found.ids for found in columns))
    if not hits or any(len(found.ids) != hits for found in columns):
        return None
    cells = _cells(types_pb2.Rows(ids=ids).SerializeToString(), len(ids))
    if cells is None:
        return None
    size = hits * cells.shape[1]
    middle = bytes((_SCORES,)) + varint(4 * hits)
    inner = bytes((_HITS,)) + varint(size)
    head = bytes((_RESULT,)) + varint(len(inner) + size + len(middle) + 4 * hits + len(end)) + inner
    table = np.empty(queries, _Layout(len(head), size, len(middle), hits, len(end)).dtype)
    table["ids"] = cells.reshape(queries, size)
    scores = chain.from_iterable(found.scores for found in columns)
    table["scores"] = np.fromiter(scores, np.float32, len(ids)).reshape(queries, hits)
    for name, data in (("head", head), ("middle", middle), ("end", end)):
        table[name] = np.frombuffer(data, np.uint8)
    return table.tobytes()


def even_from_bytes(data: bytes, queries: int) -> Even | None:
    """The results of so many queries, which a ``SearchResponse`` begins with; ``None`` where they are no table.

    The fields that are alike are compared with the first result's and otherwise not looked at: whether it has what it
    seems to have is to be seen from its message.
    """
    layout = _layout(data)
    if layout is None or queries * layout.dtype.itemsize > len(data):
        return None
    table = np.frombuffer(data, layout.dtype, queries)
    if any((table[name] != table[name][0]).any() for name in ("head", "middle", "end")):
        return None
    cells = _cells(table["ids"].tobytes(), queries * layout.hits)
    # numpy's text is of four bytes a character, and loses zeros at its end.
    if cells is None or cells.max() > 127 or not cells.all():
        return None
    text = np.ascontiguousarray(cells[:, 2:], "<u4").view(f"<U{cells.shape[1] - 2}")
    return Even(layout.hits, text.reshape(queries, layout.hits).tolist(), table["scores"].tolist())


def _layout(data: bytes) -> _Layout | None:
    """That of the first result, if it is one."""
    try:
        size, first = varint_at(data, 1)
        after = first + size
        length, ids = varint_at(data, first + 1)
        hits, odd = divmod(length, 2 + data[ids + 1])
        middle = ids + length
        packed, scores = varint_at(data, middle + 1)
        tags = data[0], data[first], data[ids], data[middle]
    except IndexError:
        return None
    end = after - scores - packed
    if tags != (_RESULT, _HITS, _ID, _SCORES) or odd or packed != 4 * hits or end < 0:
        return None
    return _Layout(ids, length, scores - middle, hits, end)


def _cells(data: bytes, number: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]] | None:
    """So many serialized ids, one a row with the tag and the length before it; ``None`` if they differ in length."""
    size, odd = divmod(len(data), number)
    if odd or not 2 < size <= 2 + _LONGEST:
        return None
    cells = np.frombuffer(data, np.uint8).reshape(number, size)
    # What begins with its tag and its length ends where the next one begins.
    return None if (cells[:, :2] != (_ID, size - 2)).any() else cells
