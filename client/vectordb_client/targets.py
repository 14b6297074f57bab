"""What a target string of :func:`vectordb_client.connect` means: a server, a folder, or memory.

    target                                            is
    ":memory:"                                        memory
    any os.PathLike                                   a folder
    "grpc://host:port", "grpcs://host:port"           a server, plaintext or TLS
    "unix:/path", "unix:relative", "unix-abstract:x"  a server on a Unix socket
    "host:port", "[::1]:port" (port in digits)        a server
    any other "scheme://..." of two or more letters   InvalidArgument
    "host:http", a port that is no number             InvalidArgument
    " host:port", blanks around a server's address    InvalidArgument
    every other string                                a folder ("data", "./a:1", "C:\\x", "host:")

A folder whose name looks like ``host:port`` is reached with a path before it: ``"./data:1"``.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import StrEnum

from vectordb.errors import InvalidArgument

MEMORY = ":memory:"

_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://(?P<rest>.*)", re.DOTALL)
_ADDRESS = re.compile(r"(?P<host>\[[^\[\]/\\\s]+\]|[^/\\:\[\]\s]*):(?P<port>[0-9]+)")
# Not one letter before the colon: that is a drive.
_NO_PORT = re.compile(r"[A-Za-z0-9.-]{2,}:[^/\\:\s]+")
_BARE_IPV6 = re.compile(r"[0-9A-Fa-f]*:[0-9A-Fa-f:]*:[0-9]+")


class Kind(StrEnum):
    """Where the engine behind a target runs."""

    FOLDER = "folder"
    MEMORY = "memory"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed target.

    Attributes:
        address: The folder as given, ``":memory:"``, or the address in gRPC's form (``host:port``, ``unix:/path``).
        tls: True where the scheme asks for TLS, False where it asks for plaintext, ``None`` where it says nothing.
    """

    kind: Kind
    address: str
    tls: bool | None = None


def parse_target(target: str | os.PathLike[str]) -> Target:
    """Tells servers from folders; touches neither.

    Raises:
        InvalidArgument: ``target`` is empty or of another type, has an unknown scheme, or an address without host or
            with a port outside 1 to 65535.
    """
    if isinstance(target, os.PathLike):
        path = os.fspath(target)
        if not isinstance(path, str) or not path:
            raise InvalidArgument(f"a folder's path must be text that is not empty, got {path!r}", target=str(target))
        return Target(Kind.FOLDER, path)
    if not isinstance(target, str):
        raise InvalidArgument(
            f"target must be a string or a path, got {type(target).__name__}", target_type=type(target).__name__
        )
    if not target or "\0" in target:
        raise InvalidArgument("target must name a folder, ':memory:' or a server such as 'localhost:50051'")
    if target == MEMORY:
        return Target(Kind.MEMORY, MEMORY)
    if target.startswith(("unix:", "unix-abstract:")):
        if not target.partition(":")[2].strip("/"):
            raise InvalidArgument(f"target {target!r} names no socket; write 'unix:/path/to/socket'", target=target)
        return Target(Kind.SERVER, target)
    if found := _SCHEME.fullmatch(target):
        return _from_scheme(target, found["scheme"], found["rest"])
    if found := _ADDRESS.fullmatch(target):
        return Target(Kind.SERVER, _checked(target, found["host"], found["port"]))
    if target != target.strip() and parse_target(target.strip() or ".").kind is not Kind.FOLDER:
        # As a line of a file is read: a folder of that name would be made in silence.
        raise InvalidArgument(
            f"target {target!r} has blanks around it; write {target.strip()!r}, or './{target}' for a "
            "folder of that name",
            target=target,
        )
    if _BARE_IPV6.fullmatch(target):
        host, _, port = target.rpartition(":")
        raise InvalidArgument(f"target {target!r} is ambiguous; write '[{host}]:{port}'", target=target)
    if _NO_PORT.fullmatch(target):
        raise InvalidArgument(
            f"target {target!r} looks like a server whose port is no number; write 'host:50051', or './{target}' for a "
            "folder of that name",
            target=target,
        )
    return Target(Kind.FOLDER, target)


def _from_scheme(target: str, scheme: str, rest: str) -> Target:
    if scheme.lower() not in ("grpc", "grpcs"):
        raise InvalidArgument(
            f"target {target!r} has the unknown scheme '{scheme}://'; servers are 'grpc://host:port', "
            f"'grpcs://host:port' (TLS), 'unix:/path' or 'host:port', and folders are written without a scheme",
            target=target,
            scheme=scheme,
        )
    found = _ADDRESS.fullmatch(rest.removesuffix("/"))
    if found is None:
        raise InvalidArgument(f"target {target!r} is not of the form '{scheme}://host:port'", target=target)
    return Target(Kind.SERVER, _checked(target, found["host"], found["port"]), tls=scheme.lower() == "grpcs")


def _checked(target: str, host: str, port: str) -> str:
    if not host:
        raise InvalidArgument(f"target {target!r} has no host; write 'localhost:{port}'", target=target)
    if len(port) > 5 or not 1 <= int(port) <= 65535:
        raise InvalidArgument(f"target {target!r} has port {port[:20]}; ports are 1 to 65535", target=target)
    return f"{host}:{int(port)}"
