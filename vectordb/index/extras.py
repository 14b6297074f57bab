"""Libraries that only an extra installs."""

from __future__ import annotations

import importlib
from typing import Any

from vectordb.errors import FailedPrecondition


def library(kind: str, module: str, extra: str) -> Any:
    """The module that a kind is made with, untyped.

    Raises:
        FailedPrecondition: It is not installed, or does not load here; the message has the line that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        raise FailedPrecondition(
            f"index kind {kind!r} needs the package {missing!r}, which is not installed: "
            f"pip install 'vectordb-engine[{extra}]'",
            kind=kind,
            extra=extra,
        ) from error
    except Exception as error:
        raise FailedPrecondition(
            f"index kind {kind!r}: its package is installed but does not load here ({type(error).__name__}: {error}): "
            f"pip install --force-reinstall 'vectordb-engine[{extra}]', or choose another kind",
            kind=kind,
            extra=extra,
        ) from error
