"""What a check of a folder finds."""

from __future__ import annotations

from pathlib import Path

from vectordb.engine.care.verify import verify


def verify_folder(path: Path) -> list[str]:
    """Everything that is wrong, in words; empty when all holds."""
    return [str(problem) for problem in verify(path).problems]
