"""``connect``: from a target to a :class:`~vectordb.api.Database`."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

from vectordb.api import Database
from vectordb.arguments import flag, folder, real, whole
from vectordb.errors import InvalidArgument
from vectordb_client.targets import Kind, Target, parse_target
from vectordb_client.transport.channel import ServerOptions, Tls, checked_api_key

if TYPE_CHECKING:
    from vectordb_client.aio import AsyncDatabase

DEFAULT_TIMEOUT = 30.0
"""Seconds that point calls may take unless told otherwise."""
DEFAULT_RETRIES = 3


def connect(
    target: str | os.PathLike[str],
    *,
    api_key: str | None = None,
    tls: Tls | None = None,
    timeout: float | None = DEFAULT_TIMEOUT,
    retries: int = DEFAULT_RETRIES,
    share: bool = True,
    **options: Any,
) -> Database:
    """Opens a database: embedded in this process, or behind a server. Thread-safe; close it, or use ``with``.

    A server is not contacted before the first call, which then raises ``Unavailable`` where nobody answers. A folder
    is opened now; further handles on it in this process share one engine, and other processes that connect to it are
    carried to this one, or take over when it ends. Handles do not survive a fork.

    Args:
        target: A folder, ``":memory:"``, or a server: ``"host:port"``, ``"unix:/path"``, ``"grpc://host:port"``,
            ``"grpcs://host:port"`` (TLS). See :mod:`vectordb_client.targets`.
        api_key: Sent with every call. Servers only.
        tls: ``True`` for TLS with the system's authorities, the path of a CA, or ``{"ca": path, "cert": path, "key":
            path}``. Servers only.
        timeout: Default seconds of point calls; ``None`` for no limit. It does not bound scans, bulk loads and
            ``wait=True``.
        retries: How often a call that failed on its way is repeated, within its timeout; 0 for never. Servers only.
        share: Whether other processes may use the folder through the one that has it open. Folders only.
        **options: Options of the embedded engine, such as ``durability="async"``, ``memory_limit="2 GiB"`` and the caps
            of :class:`vectordb.limits.Limits`. Folders and memory only.

    Raises:
        InvalidArgument: The target or an option makes no sense.
        DirectoryLocked: Another process owns the folder, and does not share it or ``share`` is false.
    """
    place = parse_target(target)
    timeout = _checked_timeout(timeout)
    if place.kind is Kind.SERVER:
        from vectordb_client.transport.grpc import GrpcBackend

        return Database(GrpcBackend(_server_options(place, api_key, tls, timeout, retries, options)), timeout=timeout)
    return Database(_local(place, api_key, tls, timeout, _folder_options(share, options)), timeout=timeout)


async def connect_async(
    target: str | os.PathLike[str],
    *,
    api_key: str | None = None,
    tls: Tls | None = None,
    timeout: float | None = DEFAULT_TIMEOUT,
    retries: int = DEFAULT_RETRIES,
    share: bool = True,
    **options: Any,
) -> AsyncDatabase:
    """As :func:`connect`, with awaitable methods; for use in the running event loop."""
    import asyncio

    from vectordb_client.aio import AsyncDatabase

    place = parse_target(target)
    timeout = _checked_timeout(timeout)
    if place.kind is Kind.SERVER:
        from vectordb_client.transport.grpc_aio import AioBackend

        return AsyncDatabase(
            AioBackend(_server_options(place, api_key, tls, timeout, retries, options)), timeout=timeout
        )
    from vectordb_client.transport.threads import ThreadedBackend

    # Opening a folder may replay a log.
    backend = await asyncio.to_thread(_local, place, api_key, tls, timeout, _folder_options(share, options))
    return AsyncDatabase(ThreadedBackend(backend), timeout=timeout)


def _folder_options(share: Any, options: dict[str, Any]) -> dict[str, Any]:
    if "shared" in options:
        raise InvalidArgument("connect has no option 'shared'; it is called share", field="shared")
    return {"shared": flag(share, "share"), **options}


def _checked_timeout(timeout: Any) -> float | None:
    if timeout is None:
        return None
    seconds = real(timeout, "timeout")
    if not 0 < seconds < math.inf:
        raise InvalidArgument(
            f"timeout is seconds greater than 0, or None for no limit, got {timeout!r}", field="timeout"
        )
    return seconds


def _server_options(
    place: Target, api_key: str | None, tls: Tls | None, timeout: float | None, retries: int, options: dict[str, Any]
) -> ServerOptions:
    if options:
        raise InvalidArgument(
            f"option {min(options)!r} is for folders; {place.address!r} is a server, whose own configuration sets it",
            field=min(options),
        )
    retries = whole(retries, "retries")
    if retries < 0:
        raise InvalidArgument(f"retries is a whole number, 0 or more, got {retries!r}", field="retries")
    asked = None if tls is None else tls is not False
    if place.tls is not None and asked is not None and asked != place.tls:
        raise InvalidArgument(
            f"the target's scheme and tls={tls!r} contradict each other; use 'grpcs://' with TLS, 'grpc://' without",
            field="tls",
        )
    secure = tls if asked else (True if place.tls else None)
    return ServerOptions(place.address, checked_api_key(api_key), secure, timeout, retries)


def _local(place: Target, api_key: str | None, tls: Tls | None, timeout: float | None, options: dict[str, Any]) -> Any:
    for name, value in (("api_key", api_key), ("tls", tls)):
        if value is not None:
            raise InvalidArgument(
                f"{name} is for servers; {place.address!r} is a folder (a server is written 'host:port' or "
                "'grpc://host:port')",
                field=name,
            )
    if place.kind is Kind.MEMORY:
        from vectordb_client.transport.local import open_local

        del options["shared"]
        return open_local(place.address, options)
    from vectordb_client.transport.folder import open_folder

    # Whole: Path(":memory:") is a folder of that name.
    return open_folder(str(folder(place.address)), options, timeout)
