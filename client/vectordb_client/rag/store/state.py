"""The state of a knowledge base: one record, so that it changes as a whole or not at all."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from vectordb.api import Collection, Database
from vectordb.errors import CollectionNotFound, FailedPrecondition
from vectordb_client.rag.store.identity import ModelIdentity

FORMAT = 1
_RECORD = "state"


@dataclass(frozen=True, slots=True)
class GenerationState:
    """One embedding of all documents.

    Attributes:
        number: From 1, never used again.
        min_score: The threshold that was calibrated for this model, or ``None``.
    """

    number: int
    model: ModelIdentity
    min_score: float | None = None


@dataclass(frozen=True, slots=True)
class State:
    """Which generation answers, which one can be returned to, which one is being written.

    Attributes:
        latest: The highest number that any generation ever had.
        version: The record's version, for writing it only if nobody else did meanwhile; 0 before the first write.
    """

    live: GenerationState
    previous: GenerationState | None = None
    migrating: GenerationState | None = None
    latest: int = 1
    version: int = 0

    @property
    def numbers(self) -> set[int]:
        """The generations that are in use."""
        return {one.number for one in (self.live, self.previous, self.migrating) if one is not None}


class StateStore:
    """Reads and writes the state of the knowledge base ``name``. Thread-safe."""

    def __init__(self, db: Database, name: str) -> None:
        self._db, self._name = db, name
        self._collection: Collection | None = None
        self._last: State | None = None  # replaced as a whole, so that threads need no lock

    def read(self) -> State | None:
        """The state, or ``None`` before anything was added.

        Raises:
            FailedPrecondition: A newer release wrote it, or a row policy hides it.
        """
        try:
            if self._collection is None:
                self._collection = self._db.collection(self._collection_name)
            found = self._collection.get([_RECORD], include=("text",))
        except CollectionNotFound:
            self._collection = None
            return None
        if not found:
            # It is written before the collection of chunks is made.
            if self._name in self._db.list_collections():
                raise FailedPrecondition(
                    f"the state of knowledge base {self._name!r} cannot be seen, as where a row policy hides it; open "
                    "it by a handle or key without one, and bound each question by where=",
                    knowledge_base=self._name,
                )
            return None
        last = self._last
        if last is not None and last.version == found[0].version:
            return last
        stored = json.loads(found[0].text or "{}")
        if stored["format"] > FORMAT:
            raise FailedPrecondition(
                f"knowledge base {self._name!r} has format {stored['format']}, this release reads {FORMAT}; update it",
                got=stored["format"],
                limit=FORMAT,
            )
        live, previous, migrating = (_generation(stored[key]) for key in ("live", "previous", "migrating"))
        assert live is not None
        self._last = State(live, previous, migrating, stored["latest"], found[0].version)
        return self._last

    def write(self, state: State) -> State:
        """Replaces the state, if nobody else did since it was read; returns it with its new version.

        Raises:
            FailedPrecondition: Another process changed it meanwhile.
        """
        if self._collection is None:
            self._collection = self._db.create_collection(self._collection_name, dim=1, exist_ok=True)
        text = json.dumps(
            {
                "format": FORMAT,
                "live": _json(state.live),
                "previous": _json(state.previous),
                "migrating": _json(state.migrating),
                "latest": state.latest,
            }
        )
        try:
            written = self._collection.upsert([_RECORD], texts=[text], if_version=state.version)
        except FailedPrecondition as error:
            if type(error) is not FailedPrecondition:  # such as Closed
                raise
            raise FailedPrecondition(
                f"another process changed knowledge base {self._name!r} at the same time; run it again "
                f"({error.message})",
                knowledge_base=self._name,
            ) from error
        return replace(state, version=written.version)

    @property
    def _collection_name(self) -> str:
        return f"{self._name}.state"


def _json(generation: GenerationState | None) -> dict[str, Any] | None:
    if generation is None:
        return None
    return {"number": generation.number, "model": generation.model.to_json(), "min_score": generation.min_score}


def _generation(stored: dict[str, Any] | None) -> GenerationState | None:
    if stored is None:
        return None
    return GenerationState(stored["number"], ModelIdentity.from_json(stored["model"]), stored["min_score"])
