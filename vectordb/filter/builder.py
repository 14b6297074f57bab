"""``col("year") >= 2000``: fields whose operators build conditions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

from vectordb.errors import InvalidFilter
from vectordb.filter.tree import Condition, Op, check_path


class Field:
    """A metadata field in a filter expression. Its comparisons build conditions instead of answering.

    Raises:
        InvalidFilter: From every method, where the value is not one that the operator takes.
    """

    __slots__ = ("path",)
    __hash__ = None  # type: ignore[assignment]  # == builds a condition, so a field cannot be a key

    def __init__(self, path: str) -> None:
        self.path = check_path(path)

    def __eq__(self, value: object) -> Condition:  # type: ignore[override]
        return Condition(self.path, Op.EQ, value)  # type: ignore[arg-type]

    def __ne__(self, value: object) -> Condition:  # type: ignore[override]
        return Condition(self.path, Op.NE, value)  # type: ignore[arg-type]

    def __lt__(self, value: Any) -> Condition:
        return Condition(self.path, Op.LT, value)

    def __le__(self, value: Any) -> Condition:
        return Condition(self.path, Op.LE, value)

    def __gt__(self, value: Any) -> Condition:
        return Condition(self.path, Op.GT, value)

    def __ge__(self, value: Any) -> Condition:
        return Condition(self.path, Op.GE, value)

    def isin(self, values: Iterable[Any]) -> Condition:
        """The value, or any element of a list, is one of ``values``."""
        return Condition(self.path, Op.IN, values)  # type: ignore[arg-type]

    def notin(self, values: Iterable[Any]) -> Condition:
        """The exact complement of :meth:`isin`: missing and null fields meet it."""
        return Condition(self.path, Op.NOT_IN, values)  # type: ignore[arg-type]

    def between(self, low: Any, high: Any) -> Condition:
        """``low <= value <= high``."""
        return Condition(self.path, Op.BETWEEN, (low, high))

    def contains(self, element: Any) -> Condition:
        """A list field has this element."""
        return Condition(self.path, Op.CONTAINS, element)

    def startswith(self, prefix: str) -> Condition:
        """A string field begins with ``prefix``, by code points."""
        return Condition(self.path, Op.STARTS_WITH, prefix)

    def is_null(self) -> Condition:
        """The field is missing or null."""
        return Condition(self.path, Op.IS_NULL)

    def exists(self) -> Condition:
        """The key is there, be its value null."""
        return Condition(self.path, Op.EXISTS)

    def __bool__(self) -> NoReturn:
        raise InvalidFilter(f"col({self.path!r}) alone is no condition; compare it, as in col({self.path!r}) == True")

    def _precedence(self, _other: object = None) -> NoReturn:
        raise InvalidFilter(
            f"& | ~ bind tighter than comparisons: put each condition in parentheses, "
            f"as in (col({self.path!r}) == 1) & (...)"
        )

    __and__ = __rand__ = __or__ = __ror__ = __invert__ = _precedence

    def __repr__(self) -> str:
        return f"col({self.path!r})"


def col(path: str) -> Field:
    """The metadata field at ``path``; ``"a.b"`` reaches into nested dicts.

    Example:
        ``(col("year") >= 2000) & ~col("lang").isin(["de", "fr"])``

    Raises:
        InvalidFilter: The path is empty or malformed.
    """
    return Field(path)
