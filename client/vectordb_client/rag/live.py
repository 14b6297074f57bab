"""The live generation of a knowledge base and the model that belongs to it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vectordb.api import Database
from vectordb.errors import CollectionNotFound, FailedPrecondition
from vectordb_client.rag.embedding.default import default_embedder
from vectordb_client.rag.store.generation import Generation
from vectordb_client.rag.store.identity import ModelIdentity, identify, mismatch
from vectordb_client.rag.store.state import GenerationState, State, StateStore

if TYPE_CHECKING:
    from vectordb_client.rag.embedding.base import Embedder


class Live:
    """Finds out at each call which generation answers, and refuses a model that did not write it. Thread-safe.

    Attributes:
        lock: Held by whoever changes the state or the model.
        states: The stored state.
    """

    def __init__(self, db: Database, name: str, embedder: Embedder | None, config: Mapping[str, Any]) -> None:
        self.db, self.name, self.config = db, name, dict(config)
        self.lock = threading.RLock()
        self.states = StateStore(db, name)
        self._embedder = embedder
        self._previous_embedder: Embedder | None = None
        self._identity: tuple[Embedder, ModelIdentity] | None = None
        self._accepted: tuple[ModelIdentity, Embedder] | None = None
        self._generations: dict[int, Generation] = {}

    @property
    def embedder(self) -> Embedder:
        """The embedding model; the default one is loaded here.

        Raises:
            FailedPrecondition: None was given and none is installed.
        """
        if self._embedder is None:
            with self.lock:
                if self._embedder is None:
                    state = self.states.read()
                    self._embedder = default_embedder(None if state is None else state.live.model.name)
        return self._embedder

    def embedder_of(self, model: ModelIdentity) -> Embedder | None:
        """The embedder that is in use, if it is there already and this model."""
        return self._embedder if self._embedder is not None and self._is(model) else None

    def replace_embedder(self, embedder: Embedder, identity: ModelIdentity) -> None:
        """Another model is in use from now on."""
        with self.lock:
            self._previous_embedder, self._embedder = self._embedder, embedder
            self._identity = (embedder, identity)

    def return_embedder(self) -> None:
        """The model before the last replacement is in use again."""
        with self.lock:
            self._embedder, self._previous_embedder = self._previous_embedder, self._embedder

    def read(self) -> tuple[State, Generation] | None:
        """The state and the generation that answers, whatever its model; ``None`` where nothing was added."""
        state = self.states.read()
        if state is None:
            return None
        try:
            return state, self._generation(state.live)
        except CollectionNotFound:
            return None  # The process died between the state and the collections: nothing was added.

    def searchable(self) -> tuple[Generation, Embedder] | None:
        """The generation that answers and its model; ``None`` where nothing was added.

        Raises:
            ModelMismatch: The embedder is another model.
        """
        live = self.read()
        if live is None:
            return None
        embedder = self.embedder
        model, accepted = live[0].live.model, self._accepted
        if accepted is not None and accepted[0] is model and accepted[1] is embedder:
            return live[1], embedder
        if model.same_as(self._identified(embedder)):
            self._accepted = (model, embedder)
            return live[1], embedder
        # A migration in another thread may have switched between the two readings: look again when it is done.
        with self.lock:
            live = self.read()
            assert live is not None
            self._check_model(live[0])
            return live[1], self.embedder

    def writable(self) -> Generation:
        """The generation that answers, created where there is none.

        Raises:
            ModelMismatch: The embedder is another model.
            FailedPrecondition: A collection that is no knowledge base has its name.
        """
        state = self.states.read()
        if state is None:
            if self.name in self.db.list_collections():
                raise FailedPrecondition(
                    f"collection {self.name!r} is there already and is no knowledge base; choose another name",
                    collection=self.name,
                )
            state = self.states.write(State(GenerationState(1, self._identified(self.embedder))))
        self._check_model(state)
        return self._generation(state.live, create=True)

    def _generation(self, which: GenerationState, *, create: bool = False) -> Generation:
        generation = self._generations.get(which.number)
        if generation is None:
            dim = which.model.dim if create else None
            generation = Generation(self.db, self.name, which.number, dim, self.config)
            self._generations[which.number] = generation
        return generation

    def _identified(self, embedder: Embedder) -> ModelIdentity:
        known = self._identity
        if known is None or known[0] is not embedder:
            known = self._identity = (embedder, identify(embedder))
        return known[1]

    def _is(self, model: ModelIdentity) -> bool:
        return model.same_as(self._identified(self.embedder))

    def _check_model(self, state: State) -> None:
        if not self._is(state.live.model):
            raise mismatch(self.name, state.live.model, self._identified(self.embedder))
