"""The condition tree: immutable, hashable, comparable by structure.

Meaning of a condition on one record (the reference evaluator in ``reference.py`` is the law):

- A field is addressed by its path, ``"a.b"`` reaching into nested dicts.
- Values compare within their kind only: numbers (int against float exactly), strings by code point, bools (False before
  True; a bool is not a number), datetimes by instant. Any other comparison is false, and so is one with a missing
  field or a null. ``!=`` and ``not_in`` are the exact complements of ``==`` and ``in``, hence true there.
- On a list, ``contains`` asks for one element, ``in`` for any element in the set, ``==`` compares the whole list;
  every other comparison is false.
- ``exists``: the key is there, null included. ``is_null``: missing or null.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from sys import getsizeof
from typing import Any, NoReturn

from vectordb.errors import InvalidFilter
from vectordb.filter.values import MAX_VALUES, Value, comparable, kind_of, scalar, scalars, value_key

MAX_DEPTH = 64
"""Levels of ``and``, ``or`` and ``not`` in one filter."""
MAX_NODES = 10_000
"""Conditions and connectives in one filter."""
MAX_PATH = 4_096
"""Characters of a field path."""
_NODE_BYTES, _MEMBER_BYTES = 150, 150
"""What CPython takes for a node, and for one more value: its place in the tuple, in a set, and the pair there."""


class Op(StrEnum):
    """Operators by their JSON names."""

    EQ = "=="
    NE = "!="
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="
    IN = "in"
    NOT_IN = "not_in"
    BETWEEN = "between"
    CONTAINS = "contains"
    STARTS_WITH = "starts_with"
    IS_NULL = "is_null"
    EXISTS = "exists"


class Filter:
    """A condition tree: :class:`Condition`, :class:`And`, :class:`Or` or :class:`Not`. Joined by ``&``, ``|``, ``~``.

    Two filters are equal when they are built alike, operand types included (``1``, ``1.0`` and ``True`` differ).
    """

    __slots__ = ()

    depth: int
    nodes: int
    values: int

    def _key(self) -> tuple[Any, ...]:
        raise NotImplementedError

    def __and__(self, other: Filter) -> Filter:
        if not isinstance(other, Filter):
            _not_a_filter(other, "&")
        left = self.children if isinstance(self, And) else (self,)
        return And((*left, *(other.children if isinstance(other, And) else (other,))))

    def __or__(self, other: Filter) -> Filter:
        if not isinstance(other, Filter):
            _not_a_filter(other, "|")
        left = self.children if isinstance(self, Or) else (self,)
        return Or((*left, *(other.children if isinstance(other, Or) else (other,))))

    def __invert__(self) -> Filter:
        return Not(self)

    def __bool__(self) -> NoReturn:
        raise InvalidFilter(
            f"the filter {_clipped(self)} is neither true nor false by itself; join conditions by & | ~ with each in "
            "parentheses, not by 'and', 'or', 'not', and write .between(a, b) for a < x < b"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Filter):
            return NotImplemented
        return self is other or (hash(self) == hash(other) and self._key() == other._key())

    def __hash__(self) -> int:
        raise NotImplementedError

    def fields(self) -> set[str]:
        """All field paths that the tree names."""
        if isinstance(self, Condition):
            return {self.field}
        if isinstance(self, Not):
            return self.child.fields()
        assert isinstance(self, And | Or)
        return set[str]().union(*(child.fields() for child in self.children))

    @property
    def nbytes(self) -> int:
        """Memory of the tree in bytes, about, with what is made of its sets to look one value up."""
        if isinstance(self, Condition):
            values = self.value if isinstance(self.value, tuple) else (self.value,)
            return _NODE_BYTES + sum(map(getsizeof, values)) + _MEMBER_BYTES * (len(values) - 1)
        if isinstance(self, Not):
            return _NODE_BYTES + self.child.nbytes
        assert isinstance(self, And | Or)
        return _NODE_BYTES + sum(child.nbytes for child in self.children)

    def to_json(self) -> dict[str, Any]:
        """The tree as JSON-like dicts and lists; :meth:`from_json` reads it back to an equal tree."""
        from vectordb.filter.json_form import to_json

        return to_json(self)

    @staticmethod
    def from_json(source: Mapping[str, Any] | str) -> Filter:
        """The tree of a JSON object, or of its text.

        Raises:
            InvalidFilter: With ``path``, the place inside the tree (``"and[1].value"``).
        """
        from vectordb.filter.json_form import from_json

        return from_json(source)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Condition(Filter):
    """One operator on one field.

    Attributes:
        field: Path of the field.
        op: The operator.
        value: A scalar; a tuple for ``in``, ``not_in``, ``between`` and whole lists; ``None`` where ``op`` takes none.

    Raises:
        InvalidFilter: The path is malformed, or the value not one that ``op`` takes.
    """

    field: str
    op: Op
    value: Value = None
    depth: int = dataclasses.field(init=False, default=1)
    nodes: int = dataclasses.field(init=False, default=1)
    values: int = dataclasses.field(init=False, default=0)
    _hash: int = dataclasses.field(init=False, default=0)
    _members: frozenset[tuple[str | None, object]] | None = dataclasses.field(init=False, default=None)

    def __post_init__(self) -> None:
        try:
            check_path(self.field)
            value = _operand(self.op, self.value)
        except InvalidFilter as error:
            facts = {**error.fields, "field": self.field, "op": str(self.op)}
            raise InvalidFilter(f"filter {self.op} on field {self.field!r}: {error.message}", **facts) from None
        object.__setattr__(self, "value", value)
        object.__setattr__(self, "values", len(value) if isinstance(value, tuple) else 1)
        object.__setattr__(self, "_hash", hash(self._key()))

    @property
    def members(self) -> frozenset[tuple[str | None, object]]:
        """The operands of ``in``, ``not_in`` as pairs (kind, value), for looking one up; made once."""
        if self._members is None:
            assert isinstance(self.value, tuple)
            object.__setattr__(self, "_members", frozenset((kind_of(value), value) for value in self.value))
        assert self._members is not None
        return self._members

    def _key(self) -> tuple[Any, ...]:
        return ("condition", self.field, self.op, value_key(self.value))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        # The cached hash holds within one process only.
        return Condition, (self.field, self.op, self.value)

    def __repr__(self) -> str:
        name = f"col({self.field!r})"
        shown = list(self.value) if isinstance(self.value, tuple) else self.value
        match self.op:
            case Op.IS_NULL | Op.EXISTS:
                return f"{name}.{self.op}()"
            case Op.IN | Op.NOT_IN:
                return f"{name}.{'isin' if self.op is Op.IN else 'notin'}({shown!r})"
            case Op.BETWEEN:
                assert isinstance(self.value, tuple)
                return f"{name}.between({self.value[0]!r}, {self.value[1]!r})"
            case Op.CONTAINS | Op.STARTS_WITH:
                return f"{name}.{'contains' if self.op is Op.CONTAINS else 'startswith'}({shown!r})"
        return f"({name} {self.op} {shown!r})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class And(Filter):
    """True where every child is."""

    children: tuple[Filter, ...]
    depth: int = dataclasses.field(init=False, default=1)
    nodes: int = dataclasses.field(init=False, default=1)
    values: int = dataclasses.field(init=False, default=0)
    _hash: int = dataclasses.field(init=False, default=0)

    def __post_init__(self) -> None:
        _join(self, self.children)

    def _key(self) -> tuple[Any, ...]:
        return ("and", self.children)

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        return And, (self.children,)

    def __repr__(self) -> str:
        return "(" + " & ".join(map(repr, self.children)) + ")"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Or(Filter):
    """True where at least one child is."""

    children: tuple[Filter, ...]
    depth: int = dataclasses.field(init=False, default=1)
    nodes: int = dataclasses.field(init=False, default=1)
    values: int = dataclasses.field(init=False, default=0)
    _hash: int = dataclasses.field(init=False, default=0)

    def __post_init__(self) -> None:
        _join(self, self.children)

    def _key(self) -> tuple[Any, ...]:
        return ("or", self.children)

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        return Or, (self.children,)

    def __repr__(self) -> str:
        return "(" + " | ".join(map(repr, self.children)) + ")"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Not(Filter):
    """The exact complement of its child."""

    child: Filter
    depth: int = dataclasses.field(init=False, default=1)
    nodes: int = dataclasses.field(init=False, default=1)
    values: int = dataclasses.field(init=False, default=0)
    _hash: int = dataclasses.field(init=False, default=0)

    def __post_init__(self) -> None:
        _join(self, (self.child,))

    def _key(self) -> tuple[Any, ...]:
        return ("not", self.child)

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        return Not, (self.child,)

    def __repr__(self) -> str:
        return f"~{self.child!r}"


def check_path(path: object) -> str:
    """A field path as it may stand in a condition.

    Raises:
        InvalidFilter: Not text, empty, too long, or with an empty step.
    """
    if not isinstance(path, str):
        raise InvalidFilter(f"a field is named by a string, got {type(path).__name__}", path="field")
    if len(path) > MAX_PATH:
        raise InvalidFilter(f"field path of {len(path)} characters, at most {MAX_PATH} are allowed", path="field")
    if not all(path.split(".")):
        raise InvalidFilter("field path has an empty step; write 'a' or 'a.b'", path="field")
    return path


def _operand(op: Op, value: object) -> Value:
    match op:
        case Op.EQ | Op.NE:
            return comparable(value)
        case Op.LT | Op.LE | Op.GT | Op.GE | Op.CONTAINS:
            return scalar(value)
        case Op.IN | Op.NOT_IN:
            return scalars(value)
        case Op.STARTS_WITH:
            prefix = scalar(value)
            if not isinstance(prefix, str):
                raise InvalidFilter(f"a prefix is a string, got {type(value).__name__}", path="value")
            return prefix
        case Op.BETWEEN:
            bounds = scalars(value)
            if len(bounds) != 2:
                raise InvalidFilter(f"expected two bounds [low, high], got {len(bounds)}", path="value")
            if kind_of(bounds[0]) != kind_of(bounds[1]):
                kinds = " and ".join(str(kind_of(bound)) for bound in bounds)
                raise InvalidFilter(f"the bounds are of different kinds, {kinds}; give two of one kind", path="value")
            return bounds
        case Op.IS_NULL | Op.EXISTS:
            if value is not None:
                raise InvalidFilter(
                    "this operator takes no value; leave it out, or negate with ~ ('not')", path="value"
                )
            return None
    raise InvalidFilter(f"unknown operator {op!r}; known are {' '.join(Op)}", path="op")


def _join(node: Filter, children: Iterable[Filter]) -> None:
    children = tuple(children)
    if not children:
        raise InvalidFilter("a connective needs at least one condition; leave the filter out to match every record")
    for child in children:
        if not isinstance(child, Filter):
            _not_a_filter(child, "and, or, not")
    depth = 1 + max(child.depth for child in children)
    nodes = 1 + sum(child.nodes for child in children)
    values = sum(child.values for child in children)
    if depth > MAX_DEPTH:
        raise InvalidFilter(f"filter nested deeper than {MAX_DEPTH} levels; flatten it", limit=MAX_DEPTH)
    if nodes > MAX_NODES:
        raise InvalidFilter(f"filter of {nodes} conditions, at most {MAX_NODES}; use .isin([...])", limit=MAX_NODES)
    if values > MAX_VALUES:
        raise InvalidFilter(f"filter of {values} values, at most {MAX_VALUES}; split it", limit=MAX_VALUES)
    if not isinstance(node, Not):
        object.__setattr__(node, "children", children)
    object.__setattr__(node, "depth", depth)
    object.__setattr__(node, "nodes", nodes)
    object.__setattr__(node, "values", values)
    object.__setattr__(node, "_hash", hash((type(node).__name__, tuple(hash(child) for child in children))))


def _clipped(node: Filter) -> str:
    text = repr(node) if node.nodes + node.values <= 20 else f"of {node.nodes} conditions"
    return text if len(text) <= 200 else text[:197] + "..."


def _not_a_filter(value: object, operator: str) -> NoReturn:
    raise InvalidFilter(
        f"{operator} joins conditions, got {type(value).__name__}; put each condition in parentheses, "
        "as in (col('a') == 1) & (col('b') == 2)"
    )
