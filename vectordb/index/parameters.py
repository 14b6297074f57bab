"""Checking parameters that users give by name: of index kinds, searches and quantizations."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real

import numpy as np

from vectordb.errors import InvalidArgument
from vectordb.index.base import Parameter

Value = int | float | str | bool


def checked(
    owner: str, known: Mapping[str, Parameter], given: Mapping[str, object], purpose: str, *, fill: bool
) -> dict[str, Value]:
    """The given parameters as plain Python values, with ``fill`` beside the defaults of the others.

    Args:
        owner: Whose they are, for messages: ``"index kind 'hnsw'"``.
        purpose: What they are for: ``"search "``, or empty.

    Raises:
        InvalidArgument: Unknown, of the wrong type, or out of range; the message names those there are.
    """
    for name in given:
        if name not in known:
            names = ", ".join(repr(n) for n in known) or "none"
            raise InvalidArgument(f"{owner} has no {purpose}parameter {name!r}; it has: {names}", parameter=name)
    out: dict[str, Value] = {n: p.default for n, p in known.items()} if fill else {}
    for name, value in given.items():
        out[name] = _value(owner, name, known[name], value)
    return out


def _value(owner: str, name: str, parameter: Parameter, value: object) -> Value:
    plain = _as_type(parameter.type, value)
    if plain is None:
        raise InvalidArgument(
            f"parameter {name!r} of {owner} must be {parameter.type.__name__}, got {value!r} ({type(value).__name__})",
            parameter=name,
        )
    low, high = parameter.low, parameter.high
    if isinstance(plain, (int, float)) and not (
        (low is None or plain >= low) and (high is None or plain <= high) and plain == plain
    ):
        bounds = (
            f"between {low:g} and {high:g}"
            if low is not None and high is not None
            else (f"at least {low:g}" if low is not None else f"at most {high:g}" if high is not None else "a number")
        )
        raise InvalidArgument(f"parameter {name!r} of {owner} must be {bounds}, got {plain}", parameter=name)
    return plain


def _as_type(wanted: type, value: object) -> Value | None:
    """The value as a plain Python object of the wanted type, or None: a bool is no number, an int is a float."""
    if type(value) is wanted:
        return value  # type: ignore[return-value]
    if wanted is bool:
        return bool(value) if isinstance(value, (bool, np.bool_)) else None
    if isinstance(value, (bool, np.bool_)):
        return None
    if wanted is int:
        return int(value) if isinstance(value, Integral) else None
    if wanted is float:
        return float(value) if isinstance(value, Real) else None
    return value if isinstance(value, str) else None
