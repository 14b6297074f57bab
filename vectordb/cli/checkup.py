"""The examinations of ``vectordb doctor``. Nothing is changed but a probe file of a few KB, which is removed."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import resource
import shutil
import stat
import statistics
import time
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import vectordb
from vectordb import arguments
from vectordb.cli import open_files
from vectordb.engine.capacity.memory import available_bytes
from vectordb.errors import DirectoryLocked, VectorDBError

_LIBRARIES = ("faiss-cpu", "rocksdict", "numpy", "grpcio", "protobuf")
_DISTRIBUTION = "vectordb-engine"
_OF_EXTRA = re.compile(r"([\w.-]+).*;.*\bextra == ['\"]([\w.-]+)['\"]")
"""A requirement of an extra, as the distribution's metadata has it: the package and the extra."""
_FREE_WANTED = 2 << 30
_MEMORY_WANTED = 1 << 30
_SLOW_SYNC_MS = 30.0
_SYNCS = 30
_VOLATILE = frozenset({"tmpfs", "ramfs"})
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs"})


class State(StrEnum):
    """How grave a finding is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(NamedTuple):
    """One examination's result: what was looked at, what was found, what to do about it."""

    name: str
    state: State
    found: str
    advice: str = ""


def examine(folder: Path) -> list[Finding]:
    """Every finding, in the order of reading."""
    folder = arguments.folder(folder)
    findings = [_releases(), _extras(), _processor(), _memory(), _open_files()]
    try:
        findings += _place(folder)
    except OSError as error:
        told = f"{folder} cannot be looked into: {error.strerror or error}"
        findings.append(Finding("folder", State.FAIL, told, "name another, or change its owner or its mode"))
    return findings


def _releases() -> Finding:
    found = [f"{_DISTRIBUTION} {vectordb.__version__}", f"Python {platform.python_version()}"]
    missing = []
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Finding("releases", State.FAIL, ", ".join(found), f"install again: {', '.join(missing)} is missing")
    return Finding("releases", State.OK, ", ".join(found))


def _extras() -> Finding:
    try:
        wanted = packages_of_extras(importlib.metadata.requires(_DISTRIBUTION) or ())
    except importlib.metadata.PackageNotFoundError:
        return Finding("extras", State.WARN, "unknown", f"{_DISTRIBUTION} is not installed, only found: install it")
    there = [name for name, packages in sorted(wanted.items()) if all(map(_is_installed, packages))]
    return Finding("extras", State.OK, ", ".join(there) or "none installed")


def packages_of_extras(requirements: Iterable[str]) -> dict[str, set[str]]:
    """The packages that each extra brings, from the requirements of a distribution's metadata."""
    wanted: dict[str, set[str]] = {}
    for requirement in requirements:
        found = _OF_EXTRA.fullmatch(requirement)
        if found is not None:
            wanted.setdefault(found[2], set()).add(found[1])
    return wanted


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _processor() -> Finding:
    cores = len(os.sched_getaffinity(0))
    flags: set[str] = set()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                flags = set(line.partition(":")[2].split())
                break
    except OSError:
        return Finding("processor", State.WARN, f"{cores} cores, features unknown")
    wide = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "NEON" if "asimd" in flags else None
    if wide is None:
        return Finding("processor", State.WARN, f"{cores} cores, no AVX2", "searches run several times slower here")
    return Finding("processor", State.OK, f"{cores} cores, {wide}")


def _memory() -> Finding:
    available = available_bytes()
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    origin = "of this control group" if available < machine else "of the machine"
    found = f"{available / 2**30:.1f} GiB {origin}"
    if available < _MEMORY_WANTED:
        return Finding("memory", State.WARN, found, "indexes are searched from memory: give it 1 GiB or more")
    return Finding("memory", State.OK, found)


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < open_files.WANTED:
        return Finding("open files", State.WARN, f"hard limit {hard}", f"raise it: ulimit -n {open_files.WANTED}")
    if soft != resource.RLIM_INFINITY and soft < open_files.WANTED:
        return Finding(
            "open files",
            State.OK,
            f"limit {soft}, which vectordb serve raises; in a process of your own do so yourself",
        )
    return Finding("open files", State.OK, f"limit {soft}")


def _place(folder: Path) -> Iterator[Finding]:
    there = folder
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        yield Finding("folder", State.FAIL, f"{there} is a file", "name a folder for the database")
        return
    if not os.access(there, os.W_OK | os.X_OK):
        yield Finding("folder", State.FAIL, f"{there} cannot be written by this user", "change its owner or its mode")
        return
    yield _permissions(folder)
    yield _database(folder)
    kind = _file_system(there)
    if kind in _VOLATILE:
        yield Finding("file system", State.WARN, kind, "what is written here is gone after a restart of the machine")
    elif kind in _NETWORK:
        yield Finding("file system", State.WARN, kind, "locks and syncs over a network are slow, and not always kept")
    else:
        yield Finding("file system", State.OK, kind)
    free = shutil.disk_usage(there).free
    found = f"{free / 2**30:.1f} GiB"
    if free < _FREE_WANTED:
        yield Finding("free space", State.WARN, found, "merges write a segment anew before the old one is removed")
    else:
        yield Finding("free space", State.OK, found)
    yield _sync(there)


def _permissions(folder: Path) -> Finding:
    if not folder.exists():
        return Finding("folder", State.OK, f"{folder} is made by the first use, for this user alone")
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077:
        return Finding("folder", State.WARN, f"{folder} has mode {mode:o}", f"others may read it: chmod 700 {folder}")
    return Finding("folder", State.OK, f"{folder}, mode {mode:o}")


def secrets(config: str | None) -> Iterator[Finding]:
    """Whether only this user can read the secrets that the server's settings name.

    Args:
        config: The settings' TOML file; without it ``VECTORDB_CONFIG`` and the environment count.

    Raises:
        InvalidArgument: A setting makes no sense.
    """
    from vectordb.server.config import load

    settings = load(file=config)
    for name in ("api_keys", "tls_key", "audit_log"):
        path = settings.values[name]
        if path is None:
            continue
        try:
            mode = stat.S_IMODE(os.stat(path).st_mode)
        except OSError as error:
            # The audit log is made by the server, for its user alone.
            if name != "audit_log" or not isinstance(error, FileNotFoundError):
                yield Finding(
                    name, State.FAIL, f"{path}: {error.strerror}", f"mend the path ({settings.origins[name]})"
                )
            continue
        if mode & 0o077:
            yield Finding(name, State.WARN, f"{path} has mode {mode:o}", f"others may read it: chmod 600 {path}")
        else:
            yield Finding(name, State.OK, f"{path}, mode {mode:o}")


def _database(folder: Path) -> Finding:
    from vectordb.engine.locking import DirectoryLock
    from vectordb.storage.format import check_format, read_format

    if not folder.exists():
        return Finding("database", State.OK, "none yet")
    try:
        if check_format(folder):
            return Finding("database", State.OK, "none yet")
        version = read_format(folder)
        DirectoryLock(folder).release()
    except DirectoryLocked as held:
        return Finding("database", State.OK, f"in use: {held.message}")
    except VectorDBError as error:
        return Finding("database", State.FAIL, error.message)
    return Finding("database", State.OK, f"format {version}; 'vectordb verify {folder}' reads every byte of it")


def _file_system(folder: Path) -> str:
    """The type of the mount that holds a folder."""
    best, kind = "", "unknown"
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return kind
    for line in mounts:
        _, point, found, *_ = line.split()
        point = point.replace("\\040", " ")
        inside = str(folder) == point or str(folder).startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, found
    return kind


def _sync(folder: Path) -> Finding:
    probe = folder / f".vectordb-probe-{uuid4().hex}"
    took = []
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            for _ in range(_SYNCS):
                os.write(descriptor, bytes(4096))
                before = time.perf_counter()
                os.fdatasync(descriptor)
                took.append((time.perf_counter() - before) * 1e3)
        finally:
            os.close(descriptor)
    except OSError as error:
        return Finding("sync", State.FAIL, f"cannot write in {folder}: {error.strerror}", "check the disk")
    finally:
        probe.unlink(missing_ok=True)
    median, longest = statistics.median(took), max(took)
    found = f"median {median:.2f} ms, longest {longest:.2f} ms of {_SYNCS}"
    if median > _SLOW_SYNC_MS:
        return Finding("sync", State.WARN, found, "every acknowledged write waits for one: use a faster disk")
    return Finding("sync", State.OK, found)
