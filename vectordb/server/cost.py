"""What a call asks for, read off its message: which calls cost alike, a first guess, and what keeps it.

Calls of one *kind* (same RPC, same collection, sizes within a factor of two) take about the same time, and how long
that is, is measured (``admission.py``). The guesses here only serve the first call of its kind.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple

from vectordb.wire.search import Asked, Shape, shape_of

_GUESS = 0.002
_LIGHT_IDS = 64
"""A ``Get`` of at most so many ids is a light call."""


class Work(Enum):
    """What keeps a call: ``LIGHT`` ones nothing, ``BUSY`` ones the processor, ``WAITING`` ones the disk or others."""

    LIGHT = 0
    WAITING = 1
    BUSY = 2


class Ask(NamedTuple):
    """What one call asks for.

    Attributes:
        kind: Calls of one kind cost alike.
        guess: Seconds of a worker that the first of its kind is taken to need.
        work: What keeps it.
    """

    kind: tuple[Any, ...]
    guess: float = _GUESS
    work: Work = Work.WAITING


Reader = Callable[[Any, int], Ask]
"""From a message and its size in bytes."""


def reader_of(rpc: str) -> Reader:
    """What reads the messages of an RPC."""
    known = _READERS.get(rpc)
    if known is not None:
        return known
    other = Ask((rpc,), work=Work.LIGHT if rpc in _LIGHT else Work.WAITING)
    return lambda message, size: other


def _search(asked: Asked, size: int) -> Ask:
    request, shape = asked
    return _searched(shape, len(request.texts) if request.vectors is None else len(request.vectors))


def _searched(shape: Shape, queries: int) -> Ask:
    return _ask(shape, queries.bit_length())


@lru_cache(maxsize=1024)
def _ask(shape: Shape, bits: int) -> Ask:
    """What up to 2 ** bits queries of one shape ask for."""
    collection, exact, filtered, mode, width = shape
    guess = 0.005 if exact or filtered else 0.0002 + 2e-6 * width
    return Ask((collection, exact, filtered, mode, bits, width.bit_length()), (1 << bits) * guess, Work.BUSY)


def _explain(message: Any, size: int) -> Ask:
    search = message.search
    queries = len(search.vectors) // (4 * search.dim) if search.dim else len(search.texts)
    kind, guess, _ = _searched(shape_of(search), queries)
    return Ask(("Explain", message.analyze, *kind), guess, Work.BUSY)


def _write(message: Any, size: int) -> Ask:
    return Ask(("Write", message.collection, size.bit_length()), 0.005 + 2e-8 * size)


def _selected(message: Any, size: int) -> Ask:
    return Ask((type(message).__name__, message.collection, message.HasField("where"), size.bit_length()), 0.005)


def _get(message: Any, size: int) -> Ask:
    ids = len(message.ids)
    return Ask(
        ("Get", message.collection, ids.bit_length()), 1e-5 * ids, Work.LIGHT if ids <= _LIGHT_IDS else Work.BUSY
    )


def _count(message: Any, size: int) -> Ask:
    return Ask(("Count", message.collection, message.HasField("where")), work=Work.BUSY)


def _scan(message: Any, size: int) -> Ask:
    # A first page has the filter evaluated and the rows ordered; the next ones are read off.
    first = not message.cursor
    return Ask(("Scan", message.collection, first, message.page_size.bit_length()), 0.01, Work.BUSY)


_READERS: dict[str, Reader] = {
    "Search": _search,
    "Explain": _explain,
    "Write": _write,
    "UpdateMetadata": _selected,
    "Delete": _selected,
    "Get": _get,
    "Count": _count,
    "Scan": _scan,
}
_LIGHT = frozenset({"GetCollection", "ListCollections", "GetInfo", "CloseScan", "GetStats", "CancelReindex"})
COMPUTING = frozenset({"Search", "Explain", "Count", "Scan"})
"""Calls that are told of at their arrival (``arrivals.py``)."""
