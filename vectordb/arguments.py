"""Arguments of users as plain Python values, or an error that names them: the same one on every target.

Types are judged here, before a request goes anywhere; ranges, which depend on caps, by the engine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vectordb.errors import InvalidArgument

BEYOND = 1 << 63
"""The least whole number that a signed field of the wire cannot hold."""


def whole(value: Any, field: str, bits: int = 64) -> int:
    """An integer, numpy's too, that a signed field of ``bits`` bits can hold.

    Raises:
        InvalidArgument: It is no integer, or too large.
    """
    # numpy's integers have __index__ too; a bool is not a number here.
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise InvalidArgument(f"{field} is a whole number, got {value!r:.60}", field=field)
    try:
        number = value.__index__()
    except TypeError:  # arrays and numpy's bool
        raise InvalidArgument(f"{field} is a whole number, got {value!r:.60}", field=field) from None
    if not -(1 << bits - 1) <= number < 1 << bits - 1:
        raise InvalidArgument(f"{field} is a whole number of {bits} bits, got {number}", field=field)
    return int(number)


def folder(path: str | os.PathLike[str]) -> Path:
    """An absolute path of a user's folder, ``~`` as the home.

    Not shortened over ``..``: after a symbolic link the system goes up from where that leads. And not by
    ``Path.expanduser``, which fails at the home of nobody; such a ``~name`` is a folder of that name.

    Raises:
        InvalidArgument: It is empty or no path, holds a zero byte, or is no text in UTF-8, as which storage opens it.
    """
    if not isinstance(path, str | os.PathLike) or not (path := os.fspath(path)) or not isinstance(path, str):
        raise InvalidArgument(f"a folder's path is text that is not empty, got {path!r:.60}", field="path")
    full = Path(os.path.expanduser(path)).absolute()
    if "\0" in str(full):
        raise InvalidArgument(f"a folder's path cannot hold a zero byte: {str(path)!r:.200}", field="path")
    try:
        str(full).encode()
    except UnicodeEncodeError:
        raise InvalidArgument(
            f"the path {str(full)!r:.200} is no text in UTF-8; rename the folder, or, where it is only the locale that "
            "knows no such letters, set PYTHONUTF8=1",
            field="path",
        ) from None
    return full


def version(value: Any, field: str = "if_version") -> int:
    """A collection's or record's version: 0 to 2^63 - 1.

    Raises:
        InvalidArgument: It is something else.
    """
    number = whole(value, field)
    if number < 0:
        raise InvalidArgument(f"{field} is a version, 0 or greater, got {number}", field=field)
    return number


def real(value: Any, field: str) -> float:
    """A number as a double.

    Raises:
        InvalidArgument: It is no number.
    """
    # None of str, bytes and bool is a number here, though float() would read them.
    if isinstance(value, (str, bytes, bool)):
        raise InvalidArgument(f"{field} is a number, got {value!r:.60}", field=field)
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidArgument(f"{field} is a number, got {value!r:.60}", field=field) from None


def flag(value: Any, field: str) -> bool:
    """A bool, numpy's too: of anything else nobody knows what was meant (``"no"`` is true).

    Raises:
        InvalidArgument: It is something else.
    """
    if isinstance(value, bool):
        return value
    if type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    raise InvalidArgument(f"{field} is True or False, got {value!r:.60}", field=field)


def names(value: Any, field: str, known: str) -> tuple[str, ...]:
    """One name or several, as a tuple; ``None`` for none. ``known``: what they may be, for the message.

    Raises:
        InvalidArgument: It is something else, or one of them is.
    """
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    try:
        given = tuple(value)
    except TypeError:
        raise InvalidArgument(f"{field} is a list of {known}, got {value!r:.60}", field=field) from None
    for name in given:
        if not isinstance(name, str):
            raise InvalidArgument(f"{field} has {name!r:.60}; it is a list of {known}", field=field)
    return given


def utf8(value: Any, field: str) -> str:
    """A string that UTF-8 can hold.

    Raises:
        InvalidArgument: It is something else.
    """
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            pass
        else:
            return value
    raise InvalidArgument(f"{field} is text in UTF-8, got {value!r:.60}", field=field)


def collection_name(value: Any) -> str:
    """A name of a collection that may be one.

    Raises:
        InvalidArgument: It is no string.
    """
    if not isinstance(value, str):
        raise InvalidArgument(f"a collection is named by a string, got {value!r:.60}", field="name")
    return value


def call_key(value: Any) -> Any:
    """A write's key as given: not the empty text, which on the wire is none. What else it may be the engine says.

    Raises:
        InvalidArgument: It is empty.
    """
    if isinstance(value, str) and not value:
        raise InvalidArgument("idempotency_key has 1 to 512 bytes of UTF-8", field="idempotency_key")
    return value


def parameters(given: Mapping[Any, Any], field: str) -> None:
    """Checks that parameters of an index, a quantization or a search are of kinds that can be sent.

    Raises:
        InvalidArgument: A name is no string, or a value neither number, bool nor string.
    """
    for name, value in given.items():
        if not isinstance(name, str):
            raise InvalidArgument(f"{field}[{name!r}]: a parameter's name is a string", field=field)
        kind = type(value)
        # The usual ones first: this runs for every search.
        if (kind is int and -BEYOND <= value < BEYOND) or kind is float or kind is str:
            continue
        if isinstance(value, bool | str | float):
            continue
        if hasattr(value, "__index__"):
            whole(value, f"{field}[{name!r}]")
        elif not hasattr(value, "__float__"):
            raise InvalidArgument(f"{field}[{name!r}] is a number, bool or string, got {value!r:.60}", field=field)
