"""Changing the embedding model of a knowledge base that goes on answering."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from vectordb.api import Database
from vectordb.errors import FailedPrecondition
from vectordb_client.rag.batches import batched
from vectordb_client.rag.embedding.vectors import embedded_documents, embedded_queries
from vectordb_client.rag.ingest import Item, Tally, Writer
from vectordb_client.rag.store.generation import PLACE, Generation, collection_names, drop_collections
from vectordb_client.rag.store.state import GenerationState, State, StateStore

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb_client.rag.chunking.base import Chunker
    from vectordb_client.rag.embedding.base import Embedder
    from vectordb_client.rag.store.identity import ModelIdentity

_DOCUMENTS = 64
"""Documents read at a time: their texts are held."""
_SAMPLE = 50
_DEPTH = 5


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """What a migration did.

    Attributes:
        before, after: The models.
        documents, chunks: In the new generation.
        embedded: Chunks whose vector this call computed: fewer than all where it resumed.
        overlap: The mean share of the five documents found before that are found after, over ``compared`` questions;
            ``None`` where there was nothing to compare.
        lowest_overlap: The share of the question that changed most.
        switched: Whether the new generation answers now.
    """

    before: str
    after: str
    documents: int
    chunks: int
    embedded: int
    overlap: float | None
    lowest_overlap: float | None
    compared: int
    switched: bool

    def __str__(self) -> str:
        overlap = "nothing to compare" if self.overlap is None else f"{self.overlap:.0%} of the documents found agree"
        state = "switched" if self.switched else "not switched yet"
        return f"{self.before} -> {self.after}: {self.documents} documents, {self.chunks} chunks, {overlap}, {state}"


@dataclass(frozen=True, slots=True)
class MigrationRequest:
    """What is asked of a migration.

    Attributes:
        embedder, identity: The new model.
        chunker: Of the new chunks.
        old_embedder: The live generation's model, where it is at hand.
        questions: To compare the answers to; empty for texts of the knowledge base itself.
        switch: Whether the new generation is to answer.
    """

    embedder: Embedder
    identity: ModelIdentity
    chunker: Chunker
    old_embedder: Embedder | None = None
    questions: tuple[str, ...] = ()
    progress: bool = True
    switch: bool = True


class Migration:
    """Writes a new generation beside the live one and makes it the live one. For one thread."""

    def __init__(self, db: Database, name: str, states: StateStore, config: Mapping[str, Any]) -> None:
        self._db, self._name, self._states, self._config = db, name, states, config

    def run(self, state: State, request: MigrationRequest) -> MigrationReport:
        """Begins or resumes, and switches where asked to."""
        identity, switch = request.identity, request.switch
        state = self._begun(state, identity)
        assert state.migrating is not None
        live = Generation(self._db, self._name, state.live.number)
        target = Generation(self._db, self._name, state.migrating.number, identity.dim, self._config)
        tally = Tally()
        while True:
            version = live.version
            documents = self._copy(live, target, request, tally)
            shares = _agreement(live, target, request)
            if live.version == version:
                break  # else another process added or removed something meanwhile
        if switch:
            state = self._states.write(replace(state, live=state.migrating, previous=state.live, migrating=None))
            self.sweep(state)
        return MigrationReport(
            before=str(state.previous.model if switch and state.previous else state.live.model),
            after=str(identity),
            documents=documents,
            chunks=target.chunks.count(),
            embedded=tally.embedded,
            overlap=float(np.mean(shares)) if len(shares) else None,
            lowest_overlap=float(np.min(shares)) if len(shares) else None,
            compared=len(shares),
            switched=switch,
        )

    def sweep(self, state: State) -> None:
        """Deletes the collections of generations that the state no longer names."""
        for number in range(1, state.latest + 1):
            if number not in state.numbers:
                drop_collections(self._db, collection_names(self._name, number))

    def _begun(self, state: State, identity: ModelIdentity) -> State:
        """The state with a generation to migrate to: the one that was begun for this model, or a new one."""
        if state.live.model.same_as(identity):
            raise FailedPrecondition(
                f"knowledge base {self._name!r} is embedded with {identity} already", stored=str(identity)
            )
        if state.migrating is not None and state.migrating.model.same_as(identity):
            return state
        number = state.latest + 1
        state = self._states.write(replace(state, migrating=GenerationState(number, identity), latest=number))
        self.sweep(state)
        return state

    def _copy(self, live: Generation, target: Generation, request: MigrationRequest, tally: Tally) -> int:
        """Brings the target to the live generation's documents; returns their number.

        Only ids are scanned: a scan that waits for embeddings would outlive its lease.
        """
        entries = {entry.id: entry.path for entry in live.all_entries()}
        with tqdm(total=len(entries), unit="doc", disable=not request.progress, desc="migrating") as bar:
            writer = Writer(target, request.embedder, request.chunker, tally, bar)
            for page in batched(entries, _DOCUMENTS):
                for document in live.read(page):
                    writer.put(Item(document, entries[document.id], weight=1.0))
            writer.flush()
        if tally.failed:
            raise FailedPrecondition(
                f"{len(tally.failed)} documents cannot be chunked for the new model, the first: {tally.failed[0]}; "
                "give another chunker",
                documents=[failure.source for failure in tally.failed],
            )
        target.remove([entry.id for entry in target.all_entries() if entry.id not in entries])
        target.complete([], list(live.files().values()))
        expected = sum(entry.chunks for entry in target.all_entries())
        if (got := target.chunks.count()) != expected:
            raise FailedPrecondition(
                f"the new generation has {got} chunks, its documents have {expected}; run the migration again",
                got=got,
                expected=expected,
            )
        return len(entries)


def _agreement(live: Generation, target: Generation, request: MigrationRequest) -> NDArray[np.float64]:
    """For each question the share of the documents found before that are found after: float64[n].

    Without questions, or without the old model to embed them, chunks of the live generation are the questions: their
    old vectors are stored.
    """
    if request.questions and request.old_embedder is not None:
        before = embedded_queries(request.old_embedder, request.questions)
        after = embedded_queries(request.embedder, request.questions)
    else:
        texts, before = _sample(live)
        if not texts:
            return np.empty(0)
        after = embedded_documents(request.embedder, texts)
    pairs = zip(_found(live, before), _found(target, after), strict=True)
    return np.array([len(old & new) / len(old) for old, new in pairs if old])


def _sample(live: Generation) -> tuple[list[str], NDArray[np.float32]]:
    """Some chunks, evenly spread over the ids, and their vectors."""
    ids = sorted(record.id for record in live.chunks.scan(include=()))
    chosen = ids[:: max(1, len(ids) // _SAMPLE)][:_SAMPLE]
    records = live.chunks.get(chosen, include=("text", "vector"))
    vectors = np.array([record.vector for record in records], dtype=np.float32)
    return [record.text or "" for record in records], vectors


def _found(generation: Generation, vectors: NDArray[np.float32]) -> list[set[str]]:
    """The documents of the best chunks for each vector."""
    results = generation.chunks.search_batch(vectors, limit=4 * _DEPTH)
    found = []
    for result in results:
        documents = dict.fromkeys((hit.metadata or {})[PLACE]["document"] for hit in result)
        found.append(set(list(documents)[:_DEPTH]))
    return found
