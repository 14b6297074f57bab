"""Files of segments: written with checksums, synced, and published by one atomic rename.

A folder under construction is a :class:`Draft`: ``tmp-<uuid>`` beside the finished ones. Every file is synced before
the JSON that names its size and checksum, that JSON before the rename, the rename before the caller names the folder
in the manifest. A crash at any point leaves a temporary folder or an unnamed one, and both are garbage.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self
from uuid import uuid4

import xxhash

from vectordb import failpoints
from vectordb.errors import is_exhausted, refused
from vectordb.segments.info import (
    INDEX_FILE,
    SEGMENT_FILE,
    TEXT_FILE,
    FileEntry,
    Files,
    IndexInfo,
    SegmentInfo,
    TextInfo,
    write_info,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TEMPORARY = "tmp-"
"""Prefix of folders under construction or removal."""

_JSON = {SegmentInfo: SEGMENT_FILE, IndexInfo: INDEX_FILE, TextInfo: TEXT_FILE}
_CHUNK = 1 << 20
"""Bytes hashed at a time: enough for xxhash to release the GIL, little enough to poll for cancellation."""
_WRITE = 1 << 16
"""Bytes written at a time. Linux caches what one call writes in one folio and later maps it whole: by larger writes,
reading one vector would make up to a megabyte resident (measured on ext4)."""


class FileWriter:
    """One new file, hashed while it is written. Not thread-safe."""

    def __init__(self, path: Path, files: Files, name: str) -> None:
        self._file = path.open("xb", buffering=_WRITE)
        self._hash = xxhash.xxh3_128()
        self._files = files
        self._name = name
        self._size = 0

    def write(self, data: bytes | memoryview | NDArray[np.generic]) -> None:
        """Appends a buffer; arrays must be C-contiguous."""
        view = memoryview(data)  # type: ignore[arg-type]
        if view.nbytes == 0:
            return
        flat = view.cast("B")
        for start in range(0, len(flat), _CHUNK):
            piece = flat[start : start + _CHUNK]
            self._hash.update(piece)
            for at in range(0, len(piece), _WRITE):
                self._file.write(piece[at : at + _WRITE])
        self._size += len(flat)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._file.flush()
                failpoints.hit("files.write")
                os.fsync(self._file.fileno())
                self._files[self._name] = FileEntry(self._size, self._hash.hexdigest())
        finally:
            self._file.close()


class Draft:
    """A folder under construction. As a context manager it removes itself when it was not published.

    Raises (from the ``with`` block): ``ResourceExhausted`` where no disk space, files or memory are left.
    """

    def __init__(self, root: Path) -> None:
        self.path = root / f"{TEMPORARY}{uuid4().hex}"
        self._files: Files = {}

    def __enter__(self) -> Self:
        try:
            self.path.mkdir()
        except OSError as error:
            self._tell(error)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._tell(error)

    def _tell(self, error: BaseException | None) -> None:
        if isinstance(error, OSError) and is_exhausted(error):
            what = (
                f"a segment below '{self.path.parent}' cannot be written (searches go on without the new segment "
                "meanwhile)"
            )
            raise refused(what, error) from error

    def writer(self, name: str) -> FileWriter:
        """Opens a new file of the folder for writing."""
        return FileWriter(self.path / name, self._files, name)

    def adopt(self) -> None:
        """Syncs and checksums the files that others wrote into the folder, at any depth."""
        for path in sorted(self.path.rglob("*")):
            name = path.relative_to(self.path).as_posix()
            if path.is_dir():
                sync_directory(path)
            elif name not in self._files:
                sync_file(path)
                self._files[name] = FileEntry(path.stat().st_size, checksum(path))

    def publish(self, info: SegmentInfo | IndexInfo | TextInfo, final: Path) -> Files:
        """Writes the JSON file, syncs everything and renames the folder to ``final``, durably."""
        json_path = self.path / _JSON[type(info)]
        write_info(json_path, info, self._files)
        sync_file(json_path)
        sync_directory(self.path)
        failpoints.hit("publish.synced")
        self.path.rename(final)
        try:
            failpoints.hit("publish.renamed")
            sync_directory(final.parent)
        except OSError:
            # Whoever asked for it is told that there is none: nobody else would ever remove it.
            shutil.rmtree(final, ignore_errors=True)
            raise
        return self._files


def checksum(path: Path, cancelled: Callable[[], bool] = lambda: False) -> str:
    """XXH3-128 of a file in hex, read in chunks; releases the GIL.

    Raises:
        InterruptedError: ``cancelled`` turned true.
        OSError: The file cannot be read.
    """
    digest = xxhash.xxh3_128()
    buffer = bytearray(_CHUNK)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            if cancelled():
                raise InterruptedError(f"checking '{path}' was cancelled")
            digest.update(view[:count])
    return digest.hexdigest()


def sync_file(path: Path) -> None:
    """Makes a file's content survive a power loss."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_directory(path: Path) -> None:
    """Makes the names in a folder survive a power loss."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_tree(path: Path, root: Path) -> None:
    """Removes a folder so that a crash leaves either all of it or garbage: it is renamed into ``root`` first.

    An absent one is no error.
    """
    away = root / f"{TEMPORARY}{uuid4().hex}"
    try:
        path.rename(away)
    except FileNotFoundError:
        return
    failpoints.hit("remove.renamed")
    shutil.rmtree(away, ignore_errors=True)
