"""A gate that holds builds up, so that tests can look at a reindex that is half done."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Gate:
    """Lets builds of the kind ``slow`` through, so many at a time, each tag for itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made = 0

    def index(self, tag: int = 0) -> dict[str, Any]:
        folder = self.folder / str(tag)
        folder.mkdir(parents=True, exist_ok=True)
        return {"kind": "slow", "gate": str(folder), "tag": tag}

    def let(self, builds: int, tag: int = 0) -> None:
        for _ in range(builds):
            self._made += 1
            (self.folder / str(tag) / str(self._made)).touch()
