"""What lies at a backup's destination, and reading and writing it.

    backups/<id>.json       one backup: its facts, and every file's path, size and content
    objects/<hh>/<hash>     the contents, by XXH3-128 (``hh``: its first two digits)

A content is stored once, however many backups hold it, so that a backup writes only what changed since the one before:
segments and RocksDB's tables never change once written. The list of a backup is written last; what no list names is
garbage (:func:`prune`). Every content is checked against its name whenever it is read.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from vectordb import failpoints
from vectordb.backup.places import Place
from vectordb.errors import Corruption, NotFound, os_errors_told
from vectordb.stats import BackupInfo

_FORMAT = 1
_CHUNK = 1 << 20
_LISTS = "backups"
_CONTENT = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Listing:
    """One backup.

    Attributes:
        id: When it was made and a random part: ids sort by age.
        created: UTC, ISO 8601.
        release, format_version: Of the database's release.
        collections: Committed version of each collection by name.
        files: Size in bytes and XXH3-128 of each file by its path in the database's folder.
    """

    id: str
    created: str
    release: str
    format_version: int
    collections: Mapping[str, int]
    files: Mapping[str, tuple[int, str]] = field(default_factory=dict)

    @property
    def total_bytes(self) -> int:
        return sum(size for size, _ in self.files.values())

    def info(self, new_bytes: int = 0) -> BackupInfo:
        """As users see it."""
        return BackupInfo(
            id=self.id,
            created=self.created,
            collections=dict(self.collections),
            files=len(self.files),
            total_bytes=self.total_bytes,
            new_bytes=new_bytes,
        )


def store(place: Place, facts: Listing, files: Mapping[str, Path], progress: Callable[[int], None]) -> BackupInfo:
    """Writes a backup: contents that the place lacks, then the list.

    Args:
        facts: All but the files.
        files: Files to read, by their path in the database's folder. They must not change meanwhile.
        progress: Told the bytes done.
    """
    entries: dict[str, tuple[int, str]] = {}
    new = 0
    for name, path in sorted(files.items()):
        content = _hash(path)
        size = path.stat().st_size
        target = _object(content)
        if not place.exists(target) or place.size(target) != size:
            with place.write(target) as out, path.open("rb") as source:
                while piece := source.read(_CHUNK):
                    out.write(piece)
            new += size
        entries[name] = (size, content)
        progress(size)
    failpoints.hit("backup.copied")
    body = {**asdict(facts), "files": entries, "format": _FORMAT}
    with place.write(f"{_LISTS}/{facts.id}.json") as out:
        out.write(json.dumps({"checksum": _checksum(body), "body": body}, indent=1).encode())
    return Listing(**{**_fields(facts), "files": entries}).info(new)


def listings(place: Place) -> list[Listing]:
    """All backups, oldest first. Raises Corruption, and FailedPrecondition where they cannot be read."""
    return [load(place, name) for name in _known(place)]


def _known(place: Place) -> list[str]:
    with os_errors_told(f"the backups at {place} cannot be read"):
        return [name.removesuffix(".json") for name in place.names(_LISTS) if name.endswith(".json")]


def load(place: Place, backup: str | None = None) -> Listing:
    """A backup's list, by its id; the newest without one.

    Raises:
        NotFound: There is none (of this id). Corruption: The list is damaged. FailedPrecondition: It cannot be read.
    """
    known = _known(place)
    if not known or (backup is not None and backup not in known):
        there = ", ".join(known[-5:]) or "none"
        which = "no backup" if backup is None else f"no backup {backup!r}"
        raise NotFound(f"there is {which} at {place}; there are: {there}", backup=backup)
    name = backup or known[-1]
    with os_errors_told(f"the backups at {place} cannot be read"), place.read(f"{_LISTS}/{name}.json") as file:
        data = file.read()
    try:
        whole = json.loads(data)
        body = whole["body"]
        if whole["checksum"] != _checksum(body):
            raise ValueError("its checksum does not hold")
        if body.pop("format") > _FORMAT:
            raise ValueError("a newer release wrote it")
        body["files"] = {_path(path): _entry(*entry) for path, entry in body["files"].items()}
        return _sound(Listing(**body))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Corruption(f"the list of backup {name!r} is damaged: {error}", backup=name) from error


def _path(path: str) -> str:
    """A file's path, which leads nowhere but into the database's folder."""
    if not path or path.startswith("/") or "\0" in path or {"..", ".", ""} & set(path.split("/")):
        raise ValueError(f"it names the file {path!r:.80}, outside of the database's folder")
    return path


def _entry(size: int, content: str) -> tuple[int, str]:
    if type(size) is not int or size < 0 or not _CONTENT.fullmatch(content):
        raise ValueError(f"a file has size {size!r:.40} and content {content!r:.40}")
    return size, content


def _sound(listing: Listing) -> Listing:
    texts = all(isinstance(text, str) for text in (listing.id, listing.created, listing.release))
    versions = all(type(version) is int for version in listing.collections.values())
    if not texts or not versions or type(listing.format_version) is not int:
        raise ValueError("its facts have wrong types")
    return listing


def check(place: Place, listing: Listing) -> list[str]:
    """What is wrong with a backup, by reading every content; empty when all holds."""
    problems = []
    for content, paths in _contents(listing).items():
        try:
            for _ in _checked(place, content, listing.files[paths[0]][0]):
                pass
        except (Corruption, OSError) as error:
            problems.append(f"{', '.join(paths)}: {error}")
    return problems


def fetch(place: Place, listing: Listing, folder: Path, progress: Callable[[int], None]) -> None:
    """Writes a backup's files below a folder, each checked and synced.

    Raises:
        Corruption: A content is missing or damaged; the folder is left as far as it got.
    """
    for name, (size, content) in sorted(listing.files.items()):
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise Corruption(f"backup {listing.id!r} names the file {name!r}, outside of the database's folder")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with path.open("xb") as out:
            try:
                for piece in _checked(place, content, size):
                    out.write(piece)
            except FileNotFoundError as missing:
                raise Corruption(
                    f"the content of {name!r} is missing from backup {listing.id!r}", file=name
                ) from missing
            out.flush()
            os.fsync(out.fileno())
        progress(size)


def prune(place: Place, keep: int) -> list[str]:
    """Removes all but the newest ``keep`` backups and the contents that only they held; the removed ids."""
    found = listings(place)
    gone = found[: max(0, len(found) - keep)]
    for listing in gone:
        place.remove(f"{_LISTS}/{listing.id}.json")
    needed = {content for listing in found[len(gone) :] for _, content in listing.files.values()}
    for listing in gone:
        for content in _contents(listing).keys() - needed:
            place.remove(_object(content))
    return [listing.id for listing in gone]


def _contents(listing: Listing) -> dict[str, list[str]]:
    """Paths by content."""
    paths: dict[str, list[str]] = {}
    for name, (_, content) in listing.files.items():
        paths.setdefault(content, []).append(name)
    return paths


def _checked(place: Place, content: str, size: int) -> Iterable[bytes]:
    """The pieces of a content. Raises Corruption at the end where they were not what its name says."""
    digest, read = xxhash.xxh3_128(), 0
    with place.read(_object(content)) as file:
        # One byte more than there may be: longer contents are damage too, and are not read to their end.
        while piece := file.read(min(_CHUNK, size + 1 - read)):
            digest.update(piece)
            read += len(piece)
            yield piece
    if read != size or digest.hexdigest() != content:
        raise Corruption(f"content {content} of a backup is damaged: {read} of {size} bytes, checksum does not hold")


def _object(content: str) -> str:
    return f"objects/{content[:2]}/{content}"


def _hash(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def _fields(listing: Listing) -> dict[str, Any]:
    return {name: getattr(listing, name) for name in Listing.__slots__}


def _checksum(body: Mapping[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())
