"""What metadata a record may have, and what a filter may ask, given the declared fields of its collection."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from vectordb.encoding import encode_metadata
from vectordb.errors import InvalidArgument, InvalidFilter
from vectordb.filter import And, Condition, Filter, Not, Op, Or, kind_of
from vectordb.types import FieldSpec, FieldType

MAX_DEPTH = 16
"""Levels of nested dicts, the outermost included."""
MAX_PATHS = 256
"""Field paths of one record, nested ones and the dicts that hold them included."""
MAX_KEY = 255
"""Characters of one key."""
MAX_STRING = 262_144
"""Characters of one string."""
MAX_BYTES = 1 << 20
"""Bytes of one record's metadata, encoded."""
_SAFE_SHARE = 8
"""Metadata with fewer characters and values than an eighth of its bytes cannot encode to more: no need to encode it."""

_CACHED_KEYS = 64

_INT64_MIN = -(2**63)
_INT64_MAX = 2**63 - 1

_DECLARED: Mapping[FieldType, tuple[type, ...]] = {
    FieldType.KEYWORD: (str,),
    FieldType.TEXT: (str,),
    FieldType.INT: (int,),
    FieldType.FLOAT: (float, int),
    FieldType.BOOL: (bool,),
    FieldType.DATETIME: (datetime,),
}
_DECLARED_KINDS: Mapping[FieldType, str] = {
    FieldType.KEYWORD: "string",
    FieldType.TEXT: "string",
    FieldType.INT: "number",
    FieldType.FLOAT: "number",
    FieldType.BOOL: "bool",
    FieldType.DATETIME: "datetime",
}


def check_metadata(
    metadata: Mapping[str, Any],
    fields: Mapping[str, FieldSpec] | None = None,
    *,
    row: int | None = None,
    collection: str | None = None,
    max_bytes: int = MAX_BYTES,
) -> None:
    """Checks one record's metadata as it comes out of :func:`vectordb.encoding.decode_metadata`, before it is stored.

    Args:
        metadata: ``str, int, float, bool, datetime, None``, lists of them, nested dicts.
        fields: Declared fields by path; a declared field holds its type, a list of it, or null.
        row: The record's place in the request, for the message.
        collection: The collection's name, for the message.
        max_bytes: How many bytes it may take, encoded (``max_metadata_bytes``).

    Raises:
        InvalidArgument: With ``row``, ``collection`` and ``field`` (the path), and what to change.
    """
    try:
        if not isinstance(metadata, dict):
            _refuse("", f"is a {type(metadata).__name__}; give a dict")
        count, weight = _check_map(metadata, "", 1, fields or {})
        if count > MAX_PATHS:
            _refuse("", f"has {count} field paths, at most {MAX_PATHS} are allowed; store the rest as one JSON string")
        if weight > max_bytes // _SAFE_SHARE and (size := len(encode_metadata(metadata))) > max_bytes:
            what = f"takes {size} bytes encoded, at most {max_bytes} are allowed (max_metadata_bytes)"
            _refuse("", f"{what}; move long text to 'texts'")
    except _Refused as refused:
        place = "" if row is None else f" in row {row}"
        place += "" if collection is None else f" of collection {collection!r}"
        subject = f"metadata field {refused.path!r}" if refused.path else "metadata"
        facts = {"field": refused.path, "row": row, "collection": collection}
        raise InvalidArgument(
            f"{subject}{place} {refused.what}", **{name: fact for name, fact in facts.items() if fact is not None}
        ) from None


def check_filter(where: Filter | None, fields: Mapping[str, FieldSpec] | None) -> None:
    """Checks a filter against the declared fields, so that it is refused whatever the data.

    Raises:
        InvalidFilter: A field is declared with ``indexed: false``, or with a type that the value never has; with
            ``field``, ``op`` and ``path`` inside the tree.
    """
    if where is not None and fields:
        _check_node(where, fields, "")


def check_order(field: str, fields: Mapping[str, FieldSpec] | None) -> None:
    """Checks the path of an ``order_by`` (without its sign) against the declared fields.

    Raises:
        InvalidArgument: The path is malformed, or the field declared with ``indexed: false``.
    """
    if not field or not all(field.split(".")):
        raise InvalidArgument(
            f"order_by {field!r} is no field path; write 'a' or 'a.b', with '-' before it for descending",
            field="order_by",
        )
    for end in _ends(field):
        if fields and end in fields and not fields[end].indexed:
            raise InvalidArgument(
                f"order_by needs field {end!r} indexed, but it is declared with indexed: false; declare it indexed",
                field="order_by",
            )


class _Refused(Exception):
    def __init__(self, path: str, what: str) -> None:
        super().__init__(what)
        self.path = path
        self.what = what


def _refuse(path: str, what: str) -> NoReturn:
    raise _Refused(path, what)


def _check_map(
    metadata: Mapping[str, Any], prefix: str, depth: int, fields: Mapping[str, FieldSpec]
) -> tuple[int, int]:
    """Checks a dict and returns its field paths and an upper bound, but for a factor, of its encoded size."""
    if depth > MAX_DEPTH:
        _refuse(prefix[:-1], f"is nested deeper than {MAX_DEPTH} levels; flatten it")
    count = len(metadata)
    weight = _weight_of_keys(tuple(metadata)) if count <= _CACHED_KEYS else _weight_of_keys.__wrapped__(tuple(metadata))
    if weight < 0:
        _refuse_keys(metadata, prefix)
    for key, value in metadata.items():
        # The common cases come first and need no call: this runs for every value that is written.
        kind = type(value)
        if kind is str:
            size = len(value)
            if size > MAX_STRING:
                _refuse(
                    prefix + key, f"is a string of {size} characters, at most {MAX_STRING} are allowed; use 'texts'"
                )
            weight += size
        elif kind is int:
            if not _INT64_MIN <= value <= _INT64_MAX:
                _refuse(prefix + key, "is an integer beyond 64 bits; store it as a string")
        elif kind is float:
            if not math.isfinite(value):
                _refuse(prefix + key, f"is {value}, which no filter can find; use null")
        elif kind is list:
            weight += _check_list(value, prefix + key)
        elif kind is dict:
            inner, more = _check_map(value, f"{prefix}{key}.", depth + 1, fields)
            count += inner
            weight += more
        elif value is not None and kind is not bool and kind is not datetime:
            _refuse(prefix + key, _unsupported(value))
        if fields and (spec := fields.get(prefix + key)) is not None and value is not None:
            _check_declared(value, prefix + key, spec.type)
    return count, weight


def _check_list(values: Iterable[Any], path: str) -> int:
    weight = 0
    for i, value in enumerate(values):
        kind = type(value)
        weight += 2
        if kind is str:
            if len(value) > MAX_STRING:
                _refuse(f"{path}[{i}]", f"is a string of {len(value)} characters, at most {MAX_STRING} are allowed")
            weight += len(value)
        elif kind is int:
            if not _INT64_MIN <= value <= _INT64_MAX:
                _refuse(f"{path}[{i}]", "is an integer beyond 64 bits; store it as a string")
        elif kind is float:
            if not math.isfinite(value):
                _refuse(f"{path}[{i}]", f"is {value}, which no filter can find; use null")
        elif kind is list or kind is dict:
            _refuse(
                f"{path}[{i}]",
                f"is a {kind.__name__} inside a list; lists hold scalars: flatten it, or store JSON text",
            )
        elif value is not None and kind is not bool and kind is not datetime:
            _refuse(f"{path}[{i}]", _unsupported(value))
    return weight


def _check_declared(value: Any, path: str, declared: FieldType) -> None:
    allowed = _DECLARED[declared]
    for item in value if type(value) is list else (value,):
        if item is not None and type(item) not in allowed:
            _refuse(path, f"is declared as {declared}, got {type(item).__name__} {_short(item)}; convert it")


@lru_cache(maxsize=256)
def _weight_of_keys(keys: tuple[object, ...]) -> int:
    """What the keys add to the weight of a dict, or -1 if one is not allowed. Cached: most records share their keys."""
    weight = 2 * len(keys)
    for key in keys:
        if type(key) is not str or not key or len(key) > MAX_KEY or "." in key:
            return -1
        weight += len(key)
    return weight


def _refuse_keys(keys: Iterable[object], prefix: str) -> NoReturn:
    key = next(key for key in keys if _weight_of_keys.__wrapped__((key,)) < 0)
    if not isinstance(key, str):
        _refuse(prefix[:-1], f"has the key {key!r}; keys are strings")
    if not key:
        _refuse(prefix[:-1], "has an empty key; name it")
    if "." in key:
        _refuse(prefix + key, "has a dot in its key; nest dicts instead ({'a': {'b': ...}} is addressed 'a.b')")
    if len(key) > MAX_KEY:
        _refuse(prefix + key[:32], f"has a key of {len(key)} characters, at most {MAX_KEY} are allowed")
    # A subclass of str: as good as its text.
    _refuse(prefix + str(key), f"has a key of type {type(key).__name__}; use a plain string")


def _unsupported(value: object) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return "is bytes; store text (for example base64)"
    return f"is a {type(value).__name__}; use str, int, float, bool, datetime, None, lists of them, or dicts"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _check_node(node: Filter, fields: Mapping[str, FieldSpec], path: str) -> None:
    if isinstance(node, And | Or):
        name = "and" if isinstance(node, And) else "or"
        for i, child in enumerate(node.children):
            _check_node(child, fields, f"{path}.{name}[{i}]" if path else f"{name}[{i}]")
    elif isinstance(node, Not):
        _check_node(node.child, fields, f"{path}.not" if path else "not")
    elif isinstance(node, Condition):
        _check_condition(node, fields, path)


def _check_condition(node: Condition, fields: Mapping[str, FieldSpec], path: str) -> None:
    facts = {"field": node.field, "op": str(node.op)}
    for end in _ends(node.field):
        spec = fields.get(end)
        if spec is not None and not spec.indexed:
            raise InvalidFilter(
                f"filter at {path or 'the root'}: field {end!r} is declared with indexed: false, so no filter can use "
                "it; create the collection with it indexed",
                path=f"{path}.field" if path else "field",
                **facts,
            )
    spec = fields.get(node.field)
    if spec is None or node.op in (Op.EXISTS, Op.IS_NULL):
        return
    wanted = _DECLARED_KINDS[spec.type]
    for value in node.value if isinstance(node.value, tuple) else (node.value,):
        if kind_of(value) != wanted:
            raise InvalidFilter(
                f"filter at {path or 'the root'}: field {node.field!r} is declared as {spec.type}, "
                f"got {type(value).__name__} {_short(value)}; compare it with a {wanted}",
                path=f"{path}.value" if path else "value",
                **facts,
            )


def _ends(path: str) -> list[str]:
    """``a.b.c`` as ``a``, ``a.b``, ``a.b.c``."""
    steps = path.split(".")
    return [".".join(steps[:end]) for end in range(1, len(steps) + 1)]
