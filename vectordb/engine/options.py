"""What an engine can be opened with."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

from vectordb.engine.capacity.resources import Demands
from vectordb.engine.database import Engine
from vectordb.limits import BOUNDS


def options_of_engine() -> dict[str, Any]:
    """What :class:`Engine` takes beside its folder, by name, with what it is unless given (None of a cap)."""
    own = {name: p.default for name, p in inspect.signature(Engine).parameters.items() if p.kind is p.KEYWORD_ONLY}
    return own | {field.name: field.default for field in fields(Demands)} | dict.fromkeys(BOUNDS)
