"""Upgrading a folder from the format of an older release, one format after the other.

Each step may be repeated: after a kill in its middle the next run begins it again. MAINTENANCE keeps everybody else out
until the last one is done, and FORMAT names after each step what the folder is by then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import vectordb
from vectordb import arguments
from vectordb.engine.locking import DirectoryLock
from vectordb.errors import FailedPrecondition
from vectordb.storage.format import (
    check_format,
    read_format,
    read_marker,
    remove_marker,
    write_format,
    write_marker,
)
from vectordb.storage.keys import FORMAT_VERSION

_COMMAND = "upgrade"


@dataclass(frozen=True, slots=True)
class Step:
    """From one format to the next.

    Attributes:
        told: What it does, in one line.
        run: Does it to a folder. Syncs what it writes; may be run again after it broke off anywhere.
    """

    told: str
    run: Callable[[Path], None]


STEPS: Mapping[int, Step] = MappingProxyType({})
"""The step that leads away from each older format. There is none: format 1 is the first."""


@dataclass(frozen=True, slots=True)
class Upgraded:
    """The format that a folder had, the one that it has (or would have), and what was (or would be) done."""

    found: int
    format: int
    steps: tuple[str, ...]


def upgrade(
    path: Path, *, dry_run: bool = False, steps: Mapping[int, Step] = STEPS, target: int = FORMAT_VERSION
) -> Upgraded:
    """Upgrades a folder that nobody has open.

    Args:
        steps: By the format that they lead away from. target: The format to reach.

    Raises:
        FailedPrecondition: It is no database, of a newer format, or of one that no step leads away from.
        DirectoryLocked: Somebody has it open. Corruption: FORMAT cannot be read.
    """
    folder = arguments.folder(path)
    found = read_format(folder)
    marker = read_marker(folder)
    if marker is not None and marker.get("command") != _COMMAND:
        check_format(folder, create=False)
    if found > target:
        raise FailedPrecondition(
            f"'{folder}' has format {found}, this release reads format {target}: install a newer release of "
            "vectordb-engine (pip install --upgrade vectordb-engine)",
            path=str(folder),
            format=found,
            supported=target,
        )
    way = [(version, steps.get(version)) for version in range(found, target)]
    for version, step in way:
        if step is None:
            raise FailedPrecondition(
                f"'{folder}' has format {found}, and nothing leads from format {version} on: upgrade it with an "
                "earlier release of vectordb-engine first",
                path=str(folder),
                format=found,
                supported=target,
            )
    told = tuple(f"format {version} to {version + 1}: {step.told}" for version, step in way if step is not None)
    if dry_run or not (told or marker):
        return Upgraded(found, target, told)
    lock = DirectoryLock(folder)
    try:
        write_marker(folder, {"command": _COMMAND, "from": found, "to": target})
        for version, step in way:
            assert step is not None, "looked at above"
            step.run(folder)
            write_format(folder, vectordb.__version__, version + 1)
        remove_marker(folder)
    finally:
        lock.release()
    return Upgraded(found, target, told)
