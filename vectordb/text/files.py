"""A text index in one file that is mapped, not read.

Layout, all numbers little-endian::

    0   8 bytes   magic "VDBTEXT1"
    8   uint64    length h of the directory in bytes
    16  h bytes   directory, JSON
    ..            arrays, each at a multiple of 64 bytes after the directory's end (itself rounded up)

The directory: ``{"fingerprint", "size", "arrays": {name: [dtype, offset after the directory, count]}}``, with the names
of :class:`vectordb.text.index.Arrays`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vectordb.errors import Corruption
from vectordb.text.index import Arrays, TextIndex

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAGIC = b"VDBTEXT1"
_ALIGN = 64
_NARROW = ("|u1", "<u2", "<u4")
_DTYPES: dict[str, tuple[str, ...]] = {
    "blob": ("|u1",),
    "bounds": ("<u8",),
    "starts": ("<i8",),
    "rows": ("<u4",),
    "frequencies": _NARROW,
    "place_starts": ("<i8",),
    "places": _NARROW,
    "lengths": ("<u4",),
    "sizes": ("|u1",),
    "letters": ("<u8",),
}


def encoded(index: TextIndex) -> Iterator[bytes | NDArray[Any]]:
    """The bytes of the file, in pieces."""
    stored = {
        name: np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        for name, array in index.arrays._asdict().items()
    }
    places: dict[str, list[Any]] = {}
    size = 0
    for name, array in stored.items():
        places[name] = [array.dtype.str, size, len(array)]
        size += array.nbytes + _padding(array.nbytes)
    header = {"fingerprint": index.fingerprint, "size": size, "arrays": places}
    directory = json.dumps(header, separators=(",", ":")).encode()
    yield MAGIC + len(directory).to_bytes(8, "little") + directory + bytes(_padding(16 + len(directory)))
    for array in stored.values():
        yield array
        yield bytes(_padding(array.nbytes))


def open_index(path: Path) -> TextIndex:
    """The index of a file, mapped.

    Raises:
        Corruption: The file is not one, or damaged in a way that shows without reading its arrays.
        OSError: It cannot be read.
    """
    try:
        return _open(path)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise Corruption(f"text file {path} is damaged: {type(error).__name__}: {error}", path=str(path)) from None


def _open(path: Path) -> TextIndex:
    data = np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
    if len(data) < 16 or bytes(data[:8]) != MAGIC:
        raise ValueError("not a text file")
    length = int.from_bytes(bytes(data[8:16]), "little")
    if length > len(data) - 16:
        raise ValueError("truncated")
    header = json.loads(bytes(data[16 : 16 + length]))
    body = data[16 + length + _padding(16 + length) :]
    if len(body) != header["size"]:
        raise ValueError(f"{len(body)} bytes of arrays, {header['size']} expected")
    arrays = Arrays(**{name: _array(body, header["arrays"][name], _DTYPES[name]) for name in Arrays._fields})
    words = len(arrays.sizes)
    sound = (
        all(len(column) == words + 1 for column in (arrays.bounds, arrays.starts, arrays.place_starts))
        and len(arrays.letters) == words
        and int(arrays.bounds[-1]) == len(arrays.blob)
        and int(arrays.starts[-1]) == len(arrays.rows) == len(arrays.frequencies)
        and int(arrays.place_starts[-1]) == len(arrays.places)
    )
    if not sound:
        raise ValueError("arrays differ in length")
    return TextIndex(arrays, str(header["fingerprint"]))


def _array(body: NDArray[np.uint8], place: list[Any], dtypes: tuple[str, ...]) -> NDArray[Any]:
    stored, offset, count = place
    if stored not in dtypes or type(offset) is not int or type(count) is not int:
        raise ValueError(f"array of {stored!r}, one of {dtypes} expected")
    width = np.dtype(stored).itemsize
    if offset % _ALIGN or offset < 0 or count < 0 or offset + count * width > len(body):
        raise ValueError("array outside the file")
    return body[offset : offset + count * width].view(stored)


def _padding(size: int) -> int:
    return -size % _ALIGN
