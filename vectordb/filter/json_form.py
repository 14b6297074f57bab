"""Filters as JSON: ``{"and": [{"field": "year", "op": ">=", "value": 2000}, {"not": {...}}]}``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from vectordb.errors import InvalidFilter
from vectordb.filter.tree import MAX_DEPTH, And, Condition, Filter, Not, Op, Or
from vectordb.filter.values import Scalar, Value

_JOINS = frozenset(("and", "or", "not"))
_UNARY = (Op.IS_NULL, Op.EXISTS)
_LIKE = """col('year') >= 2000, or as JSON {"field": "year", "op": ">=", "value": 2000}"""


def to_json(tree: Filter) -> dict[str, Any]:
    """The tree as JSON-like dicts and lists; datetimes as ``{"$datetime": "2026-01-31T12:00:00Z"}``."""
    if isinstance(tree, And):
        return {"and": [to_json(child) for child in tree.children]}
    if isinstance(tree, Or):
        return {"or": [to_json(child) for child in tree.children]}
    if isinstance(tree, Not):
        return {"not": to_json(tree.child)}
    assert isinstance(tree, Condition)
    out: dict[str, Any] = {"field": tree.field, "op": str(tree.op)}
    if tree.op not in _UNARY:
        out["value"] = _value_to_json(tree.value)
    return out


def from_json(source: Mapping[str, Any] | str) -> Filter:
    """The tree of a JSON object, or of its text.

    Raises:
        InvalidFilter: Malformed; ``path`` is the place inside the tree (``"and[1].value"``, empty for the root).
    """
    if isinstance(source, str):
        try:
            source = json.loads(source, parse_constant=_refuse_constant, object_pairs_hook=_unique)
        except InvalidFilter:
            raise
        except RecursionError:
            raise InvalidFilter(f"filter nested deeper than {MAX_DEPTH} levels; flatten it", path="") from None
        except ValueError as error:
            raise InvalidFilter(f"filter is not JSON: {error}; write {_LIKE}", path="") from None
    return _node(source, "", 1)


def as_filter(where: object) -> Filter | None:
    """What users pass as ``where``: a filter, its JSON (dict or text), or ``None`` for no filter.

    Raises:
        InvalidFilter: Anything else, or malformed JSON.
    """
    if where is None or isinstance(where, Filter):
        return where
    if isinstance(where, Mapping | str):
        return from_json(where)
    raise InvalidFilter(
        f"where takes a condition such as col('year') >= 2000, its JSON form, or None; got {type(where).__name__}",
        path="",
    )


def _node(node: object, path: str, depth: int) -> Filter:
    if depth > MAX_DEPTH:
        raise InvalidFilter(f"filter nested deeper than {MAX_DEPTH} levels; flatten it", path=path, limit=MAX_DEPTH)
    if not isinstance(node, Mapping):
        raise _malformed(path, f"expected an object, got {type(node).__name__}")
    keys = set(node)
    if keys in ({"and"}, {"or"}):
        (name,) = keys
        children = node[name]
        here = _at(path, name)
        if not isinstance(children, list | tuple) or not children:
            raise _malformed(here, "expected a list of at least one condition")
        parsed = tuple(_node(child, f"{here}[{i}]", depth + 1) for i, child in enumerate(children))
        return _built(path, And if name == "and" else Or, parsed)
    if keys == {"not"}:
        return _built(path, Not, _node(node["not"], _at(path, "not"), depth + 1))
    return _condition(node, path)


def _condition(node: Mapping[str, Any], path: str) -> Filter:
    unknown = [key for key in node if key not in ("field", "op", "value")]
    if not _JOINS.isdisjoint(unknown):
        told = ", ".join(repr(key)[:40] for key in node)
        raise _malformed(path, f'one object has one of "and", "or", "not" and nothing beside it, got {told}; nest them')
    if unknown or not node:
        found = f"unknown key {unknown[0]!r:.60}" if unknown else "empty object"
        raise _malformed(
            path,
            f'{found}; a condition has "field", "op" and "value": {_LIKE}; several are joined by "and", "or", "not"',
        )
    for key in ("field", "op"):
        if not isinstance(node.get(key), str):
            raise _malformed(_at(path, key), "missing, or not a string")
    try:
        op = Op(node["op"])
    except ValueError:
        raise InvalidFilter(
            f"filter at {_at(path, 'op')}: unknown operator {node['op'][:64]!r}; known are {' '.join(Op)}",
            path=_at(path, "op"),
            op=node["op"][:64],
        ) from None
    if op in _UNARY:
        if "value" in node:
            raise _malformed(_at(path, "value"), f"{op} takes no value; leave it out")
        return _built(path, Condition, node["field"], op)
    if "value" not in node:
        raise _malformed(_at(path, "value"), f"{op} needs a value")
    return _built(path, Condition, node["field"], op, _value_from_json(node["value"], _at(path, "value")))


def _built(path: str, kind: type[Filter], *args: object) -> Filter:
    """Makes a node, giving its error the place inside the whole tree."""
    try:
        return kind(*args)
    except InvalidFilter as error:
        facts = dict(error.fields)
        here = _at(path, facts["path"]) if facts.get("path") else path
        facts["path"] = here
        raise InvalidFilter(f"filter at {here or 'the root'}: {error.message}", **facts) from None


def _value_from_json(value: object, path: str) -> object:
    if isinstance(value, list | tuple):
        return [_scalar_from_json(item, f"{path}[{i}]") for i, item in enumerate(value)]
    return _scalar_from_json(value, path)


def _scalar_from_json(value: object, path: str) -> object:
    if not isinstance(value, Mapping):
        return value
    if set(value) != {"$datetime"} or not isinstance(value["$datetime"], str):
        raise _malformed(path, 'the only object that is a value is {"$datetime": "2026-01-31T12:00:00Z"}')
    try:
        return datetime.fromisoformat(value["$datetime"])
    except ValueError:
        raise _malformed(path, f"{value['$datetime'][:64]!r} is no ISO 8601 datetime") from None


def _value_to_json(value: Value) -> Any:
    if isinstance(value, tuple):
        return [_scalar_to_json(item) for item in value]
    return None if value is None else _scalar_to_json(value)


def _scalar_to_json(value: Scalar) -> Any:
    if isinstance(value, datetime):
        return {"$datetime": value.isoformat().replace("+00:00", "Z")}
    return value


def _at(path: str, step: str) -> str:
    return f"{path}.{step}" if path else step


def _malformed(path: str, what: str) -> InvalidFilter:
    return InvalidFilter(f"filter at {path or 'the root'}: {what}", path=path)


def _refuse_constant(name: str) -> object:
    raise InvalidFilter(f"filter is not JSON: {name} is no JSON number", path="")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise InvalidFilter("filter has an object with the same key twice; write each key once", path="")
    return out
