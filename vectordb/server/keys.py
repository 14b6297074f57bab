"""API keys: who may call, in which role, on which collections.

The key file is TOML, one table a key; any number may be in force at once, so that one is rotated by adding the new one,
moving the clients, and removing the old one. It is read again whenever it changed; a file that cannot be read leaves
the keys as they were, and says so in the log::

    [[key]]
    name = "ingest"                       # for the log; never the key itself
    sha256 = "9f86d081884c7d659a2feaa0..."  # of the key; 'vectordb key new' prints both
    role = "write"                        # read < write < admin
    collections = ["docs", "news-*"]      # left out: all
    filter = {field = "tenant", op = "==", value = "a"}   # a row policy (vectordb/row_policy.py); left out: all rows
    expires = 2027-01-01T00:00:00Z        # left out: never

Only the SHA-256 of a key is kept. That is enough for keys that nobody chose: 256 random bits cannot be guessed from
their hash, unlike passwords. A filter is the JSON form as a table, or its text.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import threading
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from datetime import time as time_of_day
from enum import IntEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from vectordb.errors import InvalidArgument, InvalidFilter, PermissionDenied, Unauthenticated
from vectordb.filter import Filter, as_filter

_log = logging.getLogger("vectordb.server")
EVERYTHING = "*"
"""In the place of a collection's name: all collections."""
_PREFIX = "vdb_"
_LOOK_SECONDS = 1.0
_KNOWN = frozenset({"name", "sha256", "role", "collections", "expires", "filter"})


class Role(IntEnum):
    """What a key may do; each role includes those below it."""

    READ = 1
    """Search, get, count, scan, explain, statistics."""
    WRITE = 2
    """Upsert, insert, update, delete."""
    ADMIN = 3
    """Create, delete and rebuild collections, optimize, back up."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key, without itself.

    Attributes:
        digest: SHA-256 of the key.
        collections: Names or patterns (``*``, ``?``) of the collections it is for; None for all.
        expires: Seconds since the epoch from which on it is refused; None for never.
        policy: What rows must match to be read or written with it; None for all rows.
    """

    name: str
    digest: bytes
    role: Role
    collections: tuple[str, ...] | None = None
    expires: float | None = None
    policy: Filter | None = None

    def may_see(self, collection: str) -> bool:
        """Whether the key is for this collection, or for all there may ever be (``EVERYTHING``)."""
        if self.collections is not None and collection == EVERYTHING:
            # No name: other patterns than this one may match it too, such as "?".
            return EVERYTHING in self.collections
        return self.collections is None or any(fnmatchcase(collection, pattern) for pattern in self.collections)

    def require(self, role: Role) -> None:
        """Raises: PermissionDenied, where the key's role is a lower one."""
        if self.role < role:
            raise PermissionDenied(
                f"key {self.name!r} has role {self.role.name.lower()!r}, this call needs {role.name.lower()!r}",
                key=self.name,
                role=role.name.lower(),
            )

    def require_collection(self, collection: str) -> None:
        """Raises: PermissionDenied, where the key is not for the collection: whether there is one is not told."""
        if not self.may_see(collection):
            raise PermissionDenied(f"key {self.name!r} is not for collection {collection!r}", key=self.name)


EVERYONE = Key("everyone", b"", Role.ADMIN)
"""Who calls a server that asks for no keys but keeps an audit log."""


def new_key() -> tuple[str, str]:
    """A new random key of 256 bits, and its SHA-256 in hex for the key file."""
    key = _PREFIX + secrets.token_urlsafe(32)
    return key, hashlib.sha256(key.encode()).hexdigest()


class KeyRing:
    """The keys of one file. Thread-safe.

    Raises:
        InvalidArgument: The file cannot be read, or says something that makes no sense; what and where is named.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._stamp = _stamp(path)  # guarded by self._lock
        self._looked = time.monotonic()  # guarded by self._lock
        self._keys = read_keys(path)

    def authenticate(self, key: str | None) -> Key:
        """Whose key this is.

        Raises:
            Unauthenticated: There is none, it is unknown, or it has expired.
        """
        if key is None:
            raise Unauthenticated("this server asks for an API key: connect(..., api_key=...)")
        self._refresh()
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
        found = None
        for known in self._keys:
            # All of them, each in constant time: how long it takes tells nothing.
            if hmac.compare_digest(known.digest, digest):
                found = known
        if found is None:
            raise Unauthenticated("the API key is not known to this server")
        if found.expires is not None and time.time() >= found.expires:
            raise Unauthenticated(f"API key {found.name!r} has expired", key=found.name)
        return found

    def _refresh(self) -> None:
        now = time.monotonic()
        if now < self._looked + _LOOK_SECONDS or not self._lock.acquire(blocking=False):
            return
        try:
            self._looked = now
            stamp = _stamp(self._path)
            if stamp == self._stamp:
                return
            self._keys = read_keys(self._path)
            self._stamp = stamp
            _log.info("%d API keys read from %s", len(self._keys), self._path)
        except InvalidArgument as error:
            _log.error("the keys stay as they were: %s", error.message)
        finally:
            self._lock.release()


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys of a file; raises as :class:`KeyRing`."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidArgument(f"cannot read the key file {path}: {error.strerror}", field="api_keys") from None
    except ValueError as error:
        raise InvalidArgument(f"the key file {path} is not TOML: {error}", field="api_keys") from None
    return parse_keys(text, path)


def parse_keys(text: str, path: Path) -> tuple[Key, ...]:
    """The keys in a key file's text; ``path`` is named where it says something that makes no sense."""
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the key file {path} is not TOML: {error}", field="api_keys") from None
    entries = table.pop("key", [])
    if table or not isinstance(entries, list) or not entries:
        raise InvalidArgument(
            f"the key file {path} has one table [[key]] for each key and nothing else", field="api_keys"
        )
    keys = tuple(_key(entry, f"[[key]] number {place} of {path}") for place, entry in enumerate(entries, start=1))
    names = [key.name for key in keys]
    if len(set(names)) < len(names):
        raise InvalidArgument(f"the key file {path} has two keys of one name", field="api_keys")
    return keys


def _key(entry: Any, where: str) -> Key:
    def refuse(what: str) -> InvalidArgument:
        return InvalidArgument(f"{where}: {what}", field="api_keys")

    if not isinstance(entry, Mapping):
        raise refuse("is a table")
    if unknown := sorted(set(entry) - _KNOWN):
        raise refuse(f"unknown {unknown[0]!r}; known are {', '.join(sorted(_KNOWN))}")
    name, digest = entry.get("name"), entry.get("sha256")
    if not isinstance(name, str) or not name:
        raise refuse("name is text and not empty")
    try:
        raw = bytes.fromhex(digest if isinstance(digest, str) else "")
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise refuse("sha256 is the key's SHA-256 as 64 hexadecimal digits ('vectordb key new' prints it)")
    role = entry.get("role", "read")
    if not isinstance(role, str) or role.upper() not in Role.__members__:
        raise refuse(f"role is 'read', 'write' or 'admin', got {role!r}")
    collections = entry.get("collections")
    if collections is not None and not (
        isinstance(collections, list) and all(isinstance(pattern, str) for pattern in collections)
    ):
        raise refuse("collections is a list of names or patterns")
    expires = entry.get("expires")
    if isinstance(expires, date) and not isinstance(expires, datetime):
        expires = datetime(expires.year, expires.month, expires.day, tzinfo=UTC)
    if expires is not None and not isinstance(expires, datetime):
        raise refuse("expires is a date or a time, such as 2027-01-01")
    end = None
    if expires is not None:
        end = (expires if expires.tzinfo is not None else expires.replace(tzinfo=UTC)).timestamp()
    try:
        policy = as_filter(_json_form(entry.get("filter")))
    except InvalidFilter as error:
        raise refuse(error.message) from None
    if policy is not None and role.upper() == Role.ADMIN.name:
        raise refuse("a key with a filter is 'read' or 'write': what an admin does concerns all rows")
    return Key(name, raw, Role[role.upper()], None if collections is None else tuple(collections), end, policy)


def _json_form(value: Any) -> Any:
    """A TOML value as JSON has it: only dates differ."""
    if isinstance(value, Mapping):
        return {name: _json_form(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_json_form(inner) for inner in value]
    if isinstance(value, date | time_of_day):
        return {"$datetime": value.isoformat()}
    return value


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
