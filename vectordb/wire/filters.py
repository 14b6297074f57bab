"""Filters as messages and back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import cast

from google.protobuf.message import DecodeError

from vectordb.errors import InvalidArgument, InvalidFilter
from vectordb.filter import MAX_DEPTH, And, Condition, Filter, Not, Op, Or, Scalar, Value
from vectordb_proto.v1 import filter_pb2

_NUMBERS = {op: filter_pb2.Operator.Value(f"OPERATOR_{op.name}") for op in Op}
_OPERATORS = {number: op for op, number in _NUMBERS.items()}
_SETS = (Op.IN, Op.NOT_IN, Op.BETWEEN)
_UNARY = (Op.IS_NULL, Op.EXISTS)
_STEPS = {filter_pb2.CONNECTIVE_AND: "and", filter_pb2.CONNECTIVE_OR: "or", filter_pb2.CONNECTIVE_NOT: "not"}
POLICY_KEY = "vectordb-policy-bin"
"""Request metadata key of a row policy that the caller binds itself to (``Database.with_policy``)."""
_MAX_POLICY = 4_096
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def filter_to_message(tree: Filter, message: filter_pb2.Filter) -> None:
    """Writes a filter's tree."""
    if isinstance(tree, Condition):
        condition = message.condition
        condition.field = tree.field
        condition.op = _NUMBERS[tree.op]
        if tree.op in _SETS:
            for value in cast("tuple[Scalar, ...]", tree.value):
                _value_to_message(value, condition.values.add())
        elif tree.op not in _UNARY:
            _value_to_message(tree.value, condition.values.add())
    elif isinstance(tree, Not):
        message.connective = filter_pb2.CONNECTIVE_NOT
        filter_to_message(tree.child, message.children.add())
    elif isinstance(tree, And | Or):
        message.connective = filter_pb2.CONNECTIVE_AND if isinstance(tree, And) else filter_pb2.CONNECTIVE_OR
        for child in tree.children:
            filter_to_message(child, message.children.add())
    else:
        raise InvalidFilter(f"where is a filter, got {type(tree).__name__}; build it with col(...)")


def filter_from_message(message: filter_pb2.Filter) -> Filter:
    """The tree of a message.

    Raises:
        InvalidFilter: It is malformed; ``path`` is the place inside the tree (``"and[1].value"``).
    """
    return _node(message, "", 1)


def policy_to_bytes(policy: Filter) -> bytes:
    """A row policy as the value of ``POLICY_KEY``.

    Raises:
        InvalidArgument: It is longer than what request metadata can carry.
    """
    message = filter_pb2.Filter()
    filter_to_message(policy, message)
    data: bytes = message.SerializeToString()
    if len(data) > _MAX_POLICY:
        raise InvalidArgument(
            f"the row policy has {len(data)} bytes, a request to a server carries at most {_MAX_POLICY}; bind it to an "
            "API key instead",
            field="where",
            limit=_MAX_POLICY,
            got=len(data),
        )
    return data


def policy_from_bytes(data: bytes) -> Filter:
    """The row policy of a request.

    Raises:
        InvalidFilter: It cannot be read.
    """
    try:
        message = filter_pb2.Filter.FromString(data)
    except DecodeError:
        raise InvalidFilter(f"the request's {POLICY_KEY} is no filter message", path="") from None
    return filter_from_message(message)


def _node(message: filter_pb2.Filter, path: str, depth: int) -> Filter:
    if depth > MAX_DEPTH:
        raise InvalidFilter(f"filter nested deeper than {MAX_DEPTH} levels; flatten it", path=path, limit=MAX_DEPTH)
    step = _STEPS.get(message.connective)
    if step is None:
        return _leaf(message, path)
    if message.HasField("condition"):
        raise InvalidFilter(f"filter at {path or 'the root'}: a connective has a condition of its own", path=path)
    here = _at(path, step)
    if step == "not":
        if len(message.children) != 1:
            raise InvalidFilter(f"filter at {here}: not takes 1 child, got {len(message.children)}", path=here)
        child = _node(message.children[0], here, depth + 1)
        return _built(path, lambda: Not(child))
    children = tuple(_node(child, f"{here}[{i}]", depth + 1) for i, child in enumerate(message.children))
    return _built(path, lambda: And(children) if step == "and" else Or(children))


def _leaf(message: filter_pb2.Filter, path: str) -> Filter:
    where = path or "the root"
    if message.connective != filter_pb2.CONNECTIVE_UNSPECIFIED:
        raise InvalidFilter(f"filter at {where}: unknown connective number {message.connective}", path=path)
    if message.children or not message.HasField("condition"):
        raise InvalidFilter(f"filter at {where}: a node without a connective is one condition", path=path)
    return _built(path, lambda: _condition(message.condition))


def _condition(message: filter_pb2.Condition) -> Condition:
    op = _OPERATORS.get(message.op)
    if op is None:
        raise InvalidFilter(f"unknown operator number {message.op}; known are 1 to {len(_OPERATORS)}", path="op")
    values = tuple(_value(value, f"values[{i}]") for i, value in enumerate(message.values))
    if op in _SETS:
        return Condition(message.field, op, values)  # type: ignore[arg-type]
    wanted = 0 if op in _UNARY else 1
    if len(values) != wanted:
        raise InvalidFilter(f"{op} takes {wanted} values, got {len(values)}", path="value", op=str(op))
    return Condition(message.field, op, values[0] if wanted else None)


def _value_to_message(value: Value, message: filter_pb2.Value) -> None:
    # bool before int: a bool is one.
    if isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, str):
        message.string_value = value
    elif isinstance(value, int):
        message.int_value = value
    elif isinstance(value, float):
        message.double_value = value
    elif isinstance(value, datetime):
        message.datetime_value = (value - _EPOCH) // _MICROSECOND
    elif isinstance(value, tuple):
        message.list_value.SetInParent()
        for item in value:
            _value_to_message(item, message.list_value.values.add())
    else:
        raise InvalidFilter(f"{type(value).__name__} is no filter value", path="value")


def _value(message: filter_pb2.Value, path: str) -> Value:
    if message.WhichOneof("kind") == "list_value":
        return tuple(_scalar(item, f"{path}[{i}]") for i, item in enumerate(message.list_value.values))
    return _scalar(message, path)


def _scalar(message: filter_pb2.Value, path: str) -> Scalar:
    kind = message.WhichOneof("kind")
    if kind is None or kind == "list_value":
        raise InvalidFilter("a value is empty or a list inside a list", path=path)
    if kind == "datetime_value":
        try:
            return _EPOCH + timedelta(microseconds=message.datetime_value)
        except OverflowError:
            raise InvalidFilter("a datetime is outside the years 1 to 9999", path=path) from None
    value: Scalar = getattr(message, kind)
    return value


def _built(path: str, build: Callable[[], Filter]) -> Filter:
    """Makes a node, giving its error the place inside the whole tree."""
    try:
        return build()
    except InvalidFilter as error:
        facts = dict(error.fields)
        facts["path"] = _at(path, facts["path"]) if facts.get("path") else path
        raise InvalidFilter(f"filter at {facts['path'] or 'the root'}: {error.message}", **facts) from None


def _at(path: str, step: str) -> str:
    return f"{path}.{step}" if path else step
