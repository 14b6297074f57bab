"""Loading what is not in the base install, with an error that says how to get it."""

from __future__ import annotations

import importlib
from typing import Any

from vectordb.errors import FailedPrecondition


def load(module: str, extra: str, purpose: str) -> Any:
    """The module of an optional package.

    Args:
        module: Its import name, dotted where needed.
        extra: The extra of this distribution that installs it.
        purpose: What needs it, as the subject of the error's sentence: ``"reading pdf files"``.

    Raises:
        FailedPrecondition: It is not installed (fields: ``missing``, ``extra``).
    """
    try:
        return importlib.import_module(module)
    except ImportError as missing:
        name = missing.name or module
        raise FailedPrecondition(
            f"{purpose} needs the package {name!r}, which is not installed; "
            f"run: pip install 'vectordb-engine[{extra}]'",
            missing=name,
            extra=extra,
        ) from missing
