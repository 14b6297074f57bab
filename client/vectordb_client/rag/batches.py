"""Cutting iterables into batches (``itertools.batched`` is not in Python 3.11)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size`` items in order, the last one perhaps shorter; none where there are no items."""
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch
