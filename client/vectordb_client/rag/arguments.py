"""Checks of what callers give, so that a wrong type is told by its argument's name and not by what fails on it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np

from vectordb.errors import InvalidArgument


def number(name: str, value: Any, what: str, least: float = -math.inf, most: float = math.inf) -> float:
    """The value as a float, numpy's numbers too.

    Args:
        what: What is wanted, as the predicate of the error's sentence: ``"is from 0 to 1"``.

    Raises:
        InvalidArgument: It is no number, not a number (NaN), or out of range.
    """
    if not isinstance(value, bool) and isinstance(value, Real):
        with contextlib.suppress(OverflowError):  # an integer beyond all floats
            # NaN compares with nothing: it is in no range.
            if least <= (found := float(value)) <= most:
                return found
    raise InvalidArgument(f"{name} {what}, got {value!r:.100}", field=name)


def whole(name: str, value: Any, least: int | None = None) -> int:
    """The value as an int, numpy's too.

    Raises:
        InvalidArgument: It is no whole number, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or (least is not None and value < least):
        bound = "" if least is None else f", at least {least}"
        raise InvalidArgument(f"{name} is a whole number{bound}, got {value!r:.100}", field=name)
    return int(value)


def strings(name: str, values: Any) -> list[str]:
    """A list of strings. One string is none: it would be taken for a list of its characters.

    Raises:
        InvalidArgument: It is something else, or something in it is no string.
    """
    if isinstance(values, str):
        raise InvalidArgument(f"{name} is a list of strings, got one string; write [{values!r:.60}]", field=name)
    if not isinstance(values, Iterable) or isinstance(values, Mapping | bytes):
        raise InvalidArgument(f"{name} is a list of strings, got {type(values).__name__}", field=name)
    found = list(values)
    for place, value in enumerate(found):
        if not isinstance(value, str):
            raise InvalidArgument(f"{name}[{place}] is a string, got {value!r:.100}", field=name, row=place)
    return found


def scores_of(who: str, found: Any, count: int) -> list[float]:
    """What a model of the caller's own says about ``count`` texts: as many numbers.

    Raises:
        InvalidArgument: It is something else. NaN too: below no threshold and above none, it would pass for any.
    """
    try:
        array = np.asarray(found)
        numbers = array.astype(np.float64).reshape(-1).tolist() if array.dtype.kind in "fiub" else []
    except Exception:  # ragged lists, arrays on another device, ...
        numbers = []
    if len(numbers) != count or any(math.isnan(one) for one in numbers):
        raise InvalidArgument(
            f"{who} returned {type(found).__name__} {found!r:.60} for {count} texts; it returns a list of {count} "
            "numbers",
            expected=count,
            got=len(numbers),
        )
    return numbers


def question_text(value: Any) -> str:
    """A question.

    Raises:
        InvalidArgument: It is no string, empty, or none that UTF-8 can hold.
    """
    if not isinstance(value, str) or not value.strip():
        raise InvalidArgument(f"question is a text that is not empty, got {value!r:.60}", field="question")
    if (place := lone_surrogate(value)) is not None:
        raise InvalidArgument(
            f"question holds a lone surrogate at {place}, which is no text in UTF-8; decode it with errors='replace'",
            field="question",
        )
    return value


def lone_surrogate(text: str) -> int | None:
    """Where a text holds half a character, which no UTF-8 can, or ``None``."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None
