"""What an addition to a knowledge base did."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Failure:
    """One source that could not be added, and why. What was added of it before is kept.

    Attributes:
        source: A path, or a document's id.
        reason: Reads on from it: ``"is empty"``.
    """

    source: str
    reason: str

    def __str__(self) -> str:
        return f"{self.source} {self.reason}"


@dataclass(frozen=True, slots=True)
class AddReport:
    """The outcome of one ``add``: document ids by what became of them, sources that failed.

    Attributes:
        added, updated, unchanged, removed: Ids of documents. Removed are those whose file, or whose row of a file,
            is no longer in what was added again.
        failed: Sources that could not be read; nothing else was held up by them.
        skipped: Files of folders whose kind is not known, by their path below it.
        chunks: Chunks written.
        embedded: Chunks whose vector was computed; the others' texts had not changed.
        truncated: Chunks that the model sees only the beginning of: none, unless the chunker allows it.
        seconds: Wall time.
    """

    added: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    failed: tuple[Failure, ...] = ()
    skipped: tuple[str, ...] = ()
    chunks: int = 0
    embedded: int = 0
    truncated: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        parts = [
            f"{len(ids)} {name}"
            for name in ("added", "updated", "unchanged", "removed", "failed", "skipped")
            if (ids := getattr(self, name))
        ]
        return f"{', '.join(parts) or 'nothing to add'}; {self.chunks} chunks written, {self.embedded} embedded"
