"""Which files and documents an addition is about."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vectordb.errors import InvalidArgument
from vectordb_client.rag.documents.formats import SUFFIXES, require_parser
from vectordb_client.rag.types import Document


@dataclass(frozen=True, slots=True)
class FileSource:
    """One file to read.

    Attributes:
        path: Absolute, symbolic links of its folder resolved.
        id: Its path below the folder that was added, with ``/``; its name where it was added by itself.
    """

    path: Path
    id: str

    @property
    def key(self) -> str:
        """The path as text that any store can hold."""
        return storable(str(self.path))


@dataclass(slots=True)
class Sources:
    """What was asked to be added.

    Attributes:
        folders: Absolute paths of added folders: what vanished from them is removed.
        skipped: Files of unknown kinds.
        missing: Paths that do not exist.
        unreadable: Folders that could not be listed, and why: of what is below them nothing is known to have vanished.
    """

    files: list[FileSource] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)


def find_sources(sources: Any) -> Sources:
    """Files of folders recursively, in order of their paths; hidden ones (``.git``) and unknown kinds left out.

    Args:
        sources: A path, a :class:`Document`, or an iterable of them.

    Raises:
        InvalidArgument: Something else, or an empty path.
        FailedPrecondition: A package that reads one of the files is not installed.
    """
    found, seen = Sources(), set[Path]()
    for source in _each(sources):
        if isinstance(source, Document):
            found.documents.append(source)
            continue
        path = _located(source, found)
        if path is None:
            continue
        folder = path.is_dir()
        if folder:
            found.folders.append(path)
        files, base = (_walk(path, found), path) if folder else (iter([path]), path.parent)
        for file in files:
            if file in seen:
                continue
            seen.add(file)
            file_id = storable(file.relative_to(base).as_posix())
            if file.suffix.lower() in SUFFIXES:
                found.files.append(FileSource(file, file_id))
            else:
                found.skipped.append(file_id)
    for suffix in {file.path.suffix.lower() for file in found.files}:
        require_parser(suffix)
    return found


def storable(text: str) -> str:
    """File names need not be UTF-8; what is not becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _each(sources: Any) -> Iterator[str | os.PathLike[str] | Document]:
    if isinstance(sources, str | os.PathLike | Document):
        sources = [sources]
    if not isinstance(sources, Iterable):
        raise InvalidArgument(
            f'sources are paths and Documents, got {type(sources).__name__}; write ["folder/", Document(...)]'
        )
    if isinstance(sources, Mapping):
        raise InvalidArgument(
            "sources is a mapping, whose keys would be taken for paths; write Document(id=..., text=..., metadata=...)",
            field="sources",
        )
    for place, source in enumerate(sources):
        if not isinstance(source, str | os.PathLike | Document):
            raise InvalidArgument(
                f"sources[{place}] is a path or a Document, got {type(source).__name__}; "
                "write Document(id=..., text=...)",
                row=place,
                field="sources",
            )
        if not isinstance(source, Document) and not os.fspath(source):
            # The empty path is the current directory to the system: nobody means that by it.
            raise InvalidArgument(f'sources[{place}] is an empty path; write "." for this folder', field="sources")
        yield source


def _located(source: str | os.PathLike[str], found: Sources) -> Path | None:
    """The absolute path, links of its folder resolved; ``None`` where nothing can be found there, which is noted."""
    path = Path(os.path.abspath(source))
    try:
        path = path.parent.resolve() / path.name
        if path.exists():
            return path
    except PermissionError as error:
        found.unreadable.append((path, error.strerror or str(error)))
        return None
    except (OSError, RuntimeError, ValueError):
        pass  # such as a text in place of a path: too long for one
    found.missing.append(storable(str(source)))
    return None


def _walk(folder: Path, found: Sources) -> Iterator[Path]:
    """All files below a folder, without following links to folders; a folder that cannot be listed is noted.

    The folders of databases are left out: their logs are no documents.
    """

    def note(error: OSError) -> None:
        found.unreadable.append((Path(error.filename), error.strerror or str(error)))

    for root, folders, names in os.walk(folder, onerror=note):
        if "FORMAT" in names and "rocksdb" in folders:
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root, name) for name in sorted(names) if not name.startswith("."))
