"""Where backups lie: a folder, or whatever fsspec reaches (``s3://``, ``gs://``, ``sftp://``, ``memory://``, ...).

A place holds files by name, with ``/`` in names. A file appears whole or not at all, as far as a place can promise:
folders rename a synced temporary file, object stores show an upload when it is complete.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from uuid import uuid4

from vectordb import arguments
from vectordb.errors import FailedPrecondition, InvalidArgument, Unavailable

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class Place(Protocol):
    """Files by name. Not thread-safe for one name; different names may be written at once."""

    def exists(self, name: str) -> bool: ...

    def names(self, folder: str) -> list[str]:
        """The files directly in a folder, sorted; none where it is absent."""
        ...

    def size(self, name: str) -> int: ...

    def write(self, name: str) -> Any:
        """A context manager that gives a binary file to write; the name exists once it was left without an error."""
        ...

    def read(self, name: str) -> Any:
        """A context manager that gives a binary file to read."""
        ...

    def remove(self, name: str) -> None:
        """Removes a file; an absent one is no error."""
        ...


def place_of(destination: str | os.PathLike[str]) -> Place:
    """The place that a path or URL names.

    Raises:
        FailedPrecondition: It is a URL and fsspec, or what fsspec needs for it, is not installed.
        InvalidArgument: It is empty, or nothing that fsspec knows.
    """
    text = os.fspath(destination)
    if not text:
        raise InvalidArgument(
            "the destination of a backup is a folder or a URL, got an empty text", field="destination"
        )
    if "\0" in text:
        raise InvalidArgument(f"the destination of a backup cannot hold a zero byte: {text!r:.80}", field="destination")
    if text.startswith("file://"):
        return Folder(Path(text.removeprefix("file://")))
    return Remote(text) if _URL.match(text) else Folder(arguments.folder(text))


class Folder:
    """A folder of this machine. Every file is synced before its name appears."""

    def __init__(self, root: Path) -> None:
        self._root = root
        try:
            found = root.exists() and not root.is_dir()
        except OSError as error:
            raise InvalidArgument(
                f"the destination {str(root)!r:.200} is no path: {error.strerror}", field="destination"
            ) from None
        if found:
            raise FailedPrecondition(f"'{root}' is a file; name a folder for backups", path=str(root))

    def __str__(self) -> str:
        return repr(str(self._root))

    def lies_in(self, folder: Path) -> bool:
        """Whether it is the folder, or somewhere below it, by whatever links."""
        return self._root.resolve().is_relative_to(folder.resolve())

    def exists(self, name: str) -> bool:
        return (self._root / name).is_file()

    def names(self, folder: str) -> list[str]:
        path = self._root / folder
        return sorted(p.name for p in path.iterdir() if not p.name.startswith(".")) if path.is_dir() else []

    def size(self, name: str) -> int:
        return (self._root / name).stat().st_size

    @contextmanager
    def write(self, name: str) -> Iterator[BinaryIO]:
        final = self._root / name
        # First by itself: of a path that mkdir makes, only the last folder gets the mode.
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        final.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = final.with_name(f".{uuid4().hex}")
        try:
            with fresh.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(final)
            _sync(final.parent)
        finally:
            fresh.unlink(missing_ok=True)

    def read(self, name: str) -> BinaryIO:
        return (self._root / name).open("rb")

    def remove(self, name: str) -> None:
        (self._root / name).unlink(missing_ok=True)


class Remote:
    """Whatever fsspec reaches by a URL."""

    def __init__(self, url: str) -> None:
        try:
            import fsspec
        except ImportError as missing:
            raise FailedPrecondition(
                f"backups to {url.partition('://')[0]}:// need fsspec: pip install 'vectordb-engine[backup]'"
            ) from missing
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
        except ImportError as missing:
            raise FailedPrecondition(f"{url!r} needs another package: {missing}") from missing
        except ValueError as unknown:
            raise InvalidArgument(f"destination {url!r}: {unknown}", field="destination") from unknown

    def __str__(self) -> str:
        # Without the URL's scheme and options, which may hold credentials.
        return repr(self._root)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def exists(self, name: str) -> bool:
        with _remote():
            return bool(self._files.exists(self._path(name)))

    def names(self, folder: str) -> list[str]:
        with _remote():
            try:
                found = self._files.ls(self._path(folder), detail=False)
            except FileNotFoundError:
                return []
            return sorted(path.rstrip("/").rpartition("/")[2] for path in found)

    def size(self, name: str) -> int:
        with _remote():
            return int(self._files.size(self._path(name)))

    @contextmanager
    def write(self, name: str) -> Iterator[BinaryIO]:
        path = self._path(name)
        with _remote():
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            with self._files.open(path, "wb") as file:
                yield file

    def read(self, name: str) -> Any:
        with _remote():
            return self._files.open(self._path(name), "rb")

    def remove(self, name: str) -> None:
        with _remote():
            if self._files.exists(self._path(name)):
                self._files.rm_file(self._path(name))


@contextmanager
def _remote() -> Iterator[None]:
    """Errors of a remote place as ``Unavailable``; what is missing stays ``FileNotFoundError``."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unavailable(f"the place of the backups does not answer: {error}") from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
