"""The FORMAT file: says that a folder is a database of this library, and in which format.

One line of JSON: ``{"vectordb": 1, "release": "0.1.0"}``, the format version and the release that created the folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vectordb.errors import Corruption, FailedPrecondition, os_errors_told, refused
from vectordb.storage.keys import FORMAT_VERSION

FORMAT_FILE = "FORMAT"
MARKER = "MAINTENANCE"
"""Names what a repair or an upgrade is in the middle of: until that is finished nobody opens the folder."""
_OURS = frozenset({"LOCK", FORMAT_FILE + ".new"})
"""What a database that was never finished creating may have left in its folder."""
_HARMLESS = frozenset({"lost+found"})


def check_format(folder: Path, *, create: bool = True) -> bool:
    """Checks that a folder is a database that this release can open, or may become one. Changes nothing.

    Args:
        folder: The database's folder.
        create: Whether a missing or empty folder may become a database.

    Returns:
        Whether there is no database yet.

    Raises:
        FailedPrecondition: A newer or older format, a folder that is something else, one that the system lets this user
            not look into, or (without ``create``) no database.
        Corruption: The FORMAT file cannot be read.
    """
    with os_errors_told(f"folder {folder} cannot be opened", path=str(folder)):
        return _check_folder(folder, create)


def _check_folder(folder: Path, create: bool) -> bool:
    if folder.exists() and not folder.is_dir():
        raise _file(folder)
    if (folder / FORMAT_FILE).exists():
        _check(folder, read_format(folder))
        return False
    foreign = sorted(_foreign(folder))
    if foreign:
        raise FailedPrecondition(
            f"'{folder}' is not a database of this library: it has no FORMAT file but holds '{foreign[0]}'"
            f"{_more(len(foreign) - 1)}; name an empty folder, or restore FORMAT from a backup",
            path=str(folder),
            file=foreign[0],
        )
    if not create:
        raise FailedPrecondition(f"'{folder}' holds no database; check the path", path=str(folder))
    return True


def open_format(folder: Path, *, create: bool = True, release: str = "") -> bool:
    """As :func:`check_format`, and makes a new database of a folder that may become one.

    Call it with the folder's lock held, and ``check_format`` before taking the lock, which leaves a file.

    Args:
        release: Release to note in a new FORMAT file.

    Returns:
        Whether the database is new.
    """
    if not check_format(folder, create=create):
        return False
    _create(folder, release)
    return True


def read_format(folder: Path) -> int:
    """The format version of a database's folder.

    Raises:
        FailedPrecondition: There is no FORMAT file, or no folder, or this user may not read it.
        Corruption: It cannot be read.
    """
    path = folder / FORMAT_FILE
    try:
        value = json.loads(path.read_bytes())
        version = value["vectordb"]
        if type(version) is not int or version < 1:
            raise ValueError(f"format version {version!r}")
    except NotADirectoryError:
        raise _file(folder) from None
    except PermissionError as error:
        raise refused(f"'{path}' cannot be read", error, path=str(path)) from None
    except FileNotFoundError:
        raise FailedPrecondition(f"'{folder}' holds no database: it has no FORMAT file", path=str(folder)) from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Corruption(
            f"'{path}' cannot be read ({type(error).__name__}: {error}); restore it from a backup, or write "
            f'{{"vectordb": {FORMAT_VERSION}}} into it if release {FORMAT_VERSION}.x wrote this folder',
            path=str(path),
        ) from error
    return int(version)


def _file(path: Path) -> FailedPrecondition:
    return FailedPrecondition(f"'{path}' is a file; name a folder for the database", path=str(path))


def _check(folder: Path, version: int) -> None:
    if version > FORMAT_VERSION:
        raise FailedPrecondition(
            f"'{folder}' has format {version}, this release reads format {FORMAT_VERSION}: install a newer release of "
            "vectordb-engine (pip install --upgrade vectordb-engine)",
            path=str(folder),
            format=version,
            supported=FORMAT_VERSION,
        )
    if version < FORMAT_VERSION:
        raise FailedPrecondition(
            f"'{folder}' has format {version}, this release reads format {FORMAT_VERSION}: run `vectordb upgrade`",
            path=str(folder),
            format=version,
            supported=FORMAT_VERSION,
        )
    marker = read_marker(folder)
    if marker is not None:
        command = f"vectordb {marker.get('command', 'repair')}"
        raise FailedPrecondition(
            f"'{folder}' is in the middle of a `{command}` that was interrupted: run it again to finish it",
            path=str(folder),
            command=command,
        )
    for name in ("rocksdb", "segments"):
        if (folder / name).exists() and not (folder / name).is_dir():
            raise FailedPrecondition(
                f"'{folder / name}' is a file where the database keeps a folder; move it away",
                path=str(folder),
                file=name,
            )


def read_marker(folder: Path) -> dict[str, Any] | None:
    """What the folder is in the middle of; None where it is in no such thing."""
    try:
        marker = json.loads((folder / MARKER).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise Corruption(f"'{folder / MARKER}' cannot be read: {error}", path=str(folder / MARKER)) from error
    return marker if isinstance(marker, dict) else {}


def write_marker(folder: Path, facts: Mapping[str, Any]) -> None:
    """Says, durably, what the folder is in the middle of; ``command`` is what finishes it."""
    _write_json(folder, MARKER, facts)


def remove_marker(folder: Path) -> None:
    """The folder may be opened again."""
    (folder / MARKER).unlink(missing_ok=True)
    _sync_folder(folder)


def write_format(folder: Path, release: str, version: int = FORMAT_VERSION) -> None:
    """Writes the FORMAT file, whole and durably."""
    _write_json(folder, FORMAT_FILE, {"vectordb": version, "release": release})


def _foreign(folder: Path) -> list[str]:
    if not folder.exists():
        return []
    return [
        entry.name
        for entry in folder.iterdir()
        if entry.name not in _OURS and entry.name not in _HARMLESS and not entry.name.startswith(".")
    ]


def _more(count: int) -> str:
    return f" and {count} more" if count else ""


def _create(folder: Path, release: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_format(folder, release)


def _write_json(folder: Path, name: str, value: Mapping[str, Any]) -> None:
    fresh = folder / f"{name}.new"
    with open(fresh, "w", encoding="utf-8") as file:
        json.dump(dict(value), file)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, folder / name)
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
