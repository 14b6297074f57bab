"""The one tree of errors, raised alike by the embedded engine, the server's client and the command line.

    VectorDBError
    ├── InvalidArgument        the request is wrong; changing it is the fix
    │   ├── DimensionMismatch      a vector of another length than the collection's
    │   ├── InvalidFilter          a condition that cannot be evaluated
    │   └── InvalidVector          NaN, infinity, or a zero vector under cosine
    ├── NotFound               an id that is not there
    │   └── CollectionNotFound
    ├── AlreadyExists          an id or a collection that is there already
    ├── FailedPrecondition     the request is right, the state is not
    │   ├── DirectoryLocked        another process owns the folder
    │   ├── Closed                 the database or handle was closed
    │   └── ModelMismatch          another embedding model wrote this collection
    ├── ResourceExhausted      a limit was reached; the message names it
    ├── DeadlineExceeded       the time ran out before the answer was complete
    ├── Unauthenticated
    ├── PermissionDenied
    ├── Unavailable            the server cannot be reached; retrying may help
    ├── Corruption             stored data failed a check
    └── Internal               a defect of this library

Every error has a message that names the fix, and its facts as attributes (``err.collection``, ``err.row``), also in
``err.fields``. Each class has one gRPC status; its name travels as ``google.rpc.ErrorInfo.reason``, so that a client
raises exactly the class that the engine raised.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar


class VectorDBError(Exception):
    """Base of all errors of this library.

    Args:
        message: One sentence that says what is wrong, where, and how to mend it.
        **fields: The facts behind the message (JSON-like values); each becomes an attribute.
    """

    status: ClassVar[str] = "INTERNAL"
    """Name of the gRPC status code that carries this class."""

    request_id: str | None = None
    """What the failed call is called in the server's log; ``None`` for errors that no server raised."""

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.fields: Mapping[str, Any] = MappingProxyType(fields)

    def __getattr__(self, name: str) -> Any:
        # Only called when normal look-up failed. `fields` itself is absent while unpickling.
        fields = self.__dict__.get("fields", {})
        if name in fields:
            return fields[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        state = None if self.request_id is None else {"request_id": self.request_id}
        return _rebuild, (type(self).__name__, self.message, dict(self.fields)), state


class InvalidArgument(VectorDBError):
    """The request is wrong: a value out of range, of the wrong type, or missing."""

    status = "INVALID_ARGUMENT"


class DimensionMismatch(InvalidArgument):
    """A vector has another length than the collection's dimension (fields: ``expected``, ``got``, ``row``)."""


class InvalidFilter(InvalidArgument):
    """A filter cannot be read or evaluated (fields: ``path`` inside the tree, ``op``, ``field``)."""


class InvalidVector(InvalidArgument):
    """A vector holds NaN or infinity, or is zero under cosine (fields: ``row``, ``position``)."""


class NotFound(VectorDBError):
    """Something asked for by name is not there (fields: ``ids``)."""

    status = "NOT_FOUND"


class CollectionNotFound(NotFound):
    """No collection has this name (fields: ``collection``)."""


class AlreadyExists(VectorDBError):
    """An id or a collection of this name is there already (fields: ``ids`` or ``collection``)."""

    status = "ALREADY_EXISTS"


class FailedPrecondition(VectorDBError):
    """The request is well formed but the present state does not allow it."""

    status = "FAILED_PRECONDITION"


class DirectoryLocked(FailedPrecondition):
    """Another process owns the folder (fields: ``path``, ``pid``, ``host``, ``address``)."""


class Closed(FailedPrecondition):
    """The database, or the handle to it, was closed, or belongs to a parent process before a fork."""


class ModelMismatch(FailedPrecondition):
    """The collection was written with another embedding model (fields: ``stored``, ``given``)."""


class ResourceExhausted(VectorDBError):
    """A limit was reached (fields: ``limit``, ``got``; ``retry_after`` in seconds where waiting helps)."""

    status = "RESOURCE_EXHAUSTED"


class DeadlineExceeded(VectorDBError):
    """The time allowed ran out (fields: ``timeout`` in seconds). A write's outcome is unknown then."""

    status = "DEADLINE_EXCEEDED"


class Unauthenticated(VectorDBError):
    """No valid API key or certificate came with the request."""

    status = "UNAUTHENTICATED"


class PermissionDenied(VectorDBError):
    """The caller is known but may not do this."""

    status = "PERMISSION_DENIED"


class Unavailable(VectorDBError):
    """The server cannot be reached, or is stopping. Reads may be retried as they are."""

    status = "UNAVAILABLE"


class Corruption(VectorDBError):
    """Stored data failed a check (fields: ``path``, ``collection``); what was lost is in the message."""

    status = "DATA_LOSS"


class Internal(VectorDBError):
    """A defect of this library. Over the wire the text of the cause is left out."""

    status = "INTERNAL"


def described(error: BaseException) -> str:
    """What users may read of why something failed: the text of an exception that nobody expected may hold anything, and
    stays in the log, where whoever calls this puts it."""
    if isinstance(error, VectorDBError):
        return error.message
    system = f" ({os.strerror(error.errno)})" if isinstance(error, OSError) and error.errno else ""
    return f"{type(error).__name__}{system}; the log has it"


_EXHAUSTED: Mapping[int, tuple[str, str]] = MappingProxyType(
    {
        errno.ENOSPC: ("disk", "no space is left; free disk space"),
        errno.EDQUOT: ("disk", "the quota leaves no space; free disk space"),
        errno.EMFILE: ("files", "too many files are open in this process; raise its limit (ulimit -n)"),
        errno.ENFILE: ("files", "too many files are open on this machine; raise the system's limit"),
        errno.ENOMEM: ("memory", "the system gives no more memory"),
    }
)
"""What the system has no more of, by error number: that says nothing about the file that was asked for."""


def is_exhausted(error: BaseException) -> bool:
    """Whether the system refused something for want of disk space, open files or memory."""
    return isinstance(error, OSError) and error.errno in _EXHAUSTED


def refused(what: str, error: OSError, **fields: Any) -> VectorDBError:
    """What the system's refusal kept from being done (``what``), as an error of this tree."""
    if (exhausted := _EXHAUSTED.get(error.errno or 0)) is not None:
        limit, mend = exhausted
        return ResourceExhausted(f"{what}: {mend}", limit=limit, **fields)
    return FailedPrecondition(f"{what}: {error.strerror or error}", **fields)


@contextmanager
def os_errors_told(what: str, **fields: Any) -> Iterator[None]:
    """Says of a block's ``OSError`` what it kept from being done; a cancellation (``InterruptedError``) is none."""
    try:
        yield
    except InterruptedError:
        raise
    except OSError as error:
        raise refused(what, error, **fields) from error


def _subclasses(root: type[VectorDBError]) -> dict[str, type[VectorDBError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found.update(_subclasses(child))
    return found


BY_NAME: Mapping[str, type[VectorDBError]] = MappingProxyType(_subclasses(VectorDBError))
"""Every class of the tree by its name, which is also its reason on the wire."""


_Error = TypeVar("_Error", bound=VectorDBError)


def anew(error: _Error) -> _Error:
    """The same error as if nobody had raised it yet: what is kept of one, and what is raised of a kept one.

    An exception that was raised holds, by its traceback, all that the functions on its way held; raised by several
    threads, it would gather the frames of all of them.
    """
    made = type(error).__new__(type(error), *error.args)
    made.__dict__.update(error.__dict__)
    return made


def kept(error: Exception, what: str) -> VectorDBError:
    """What to keep of an error: itself :func:`anew`; of any other, that ``what`` happened, as :func:`described`."""
    return anew(error) if isinstance(error, VectorDBError) else Internal(f"{what}: {described(error)}")


def _rebuild(name: str, message: str, fields: dict[str, Any]) -> VectorDBError:
    return BY_NAME[name](message, **fields)
