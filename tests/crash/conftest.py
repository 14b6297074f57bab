"""The expected state of a database under writers that are killed: what was acknowledged, and what may have happened.

Each writer owns its ids, so that the effect of every call on them is known in advance. A call in flight at the kill
must be found wholly done or wholly undone.
"""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vectordb import errors
from vectordb.metric import Metric, distances, scores

DIM = 16
CONFIG = {
    "dim": DIM,
    "metric": "l2",
    "index": {"kind": "hnsw", "m": 4, "ef_construction": 16},
    "seal_bytes": 24_000,
    "merge_factor": 2,
}


@dataclass(frozen=True)
class State:
    """One record: the vector follows from its seed."""

    seed: int
    tag: int
    text: str | None
    extra: int | None = None

    @property
    def vector(self) -> np.ndarray:
        return np.random.default_rng(self.seed).integers(-3, 4, DIM).astype(np.float32)

    @property
    def metadata(self) -> dict[str, Any]:
        found: dict[str, Any] = {"seed": self.seed, "tag": self.tag}
        if self.extra is not None:
            found["extra"] = self.extra
        return found


Effect = dict[str, State | None]


@dataclass
class Writer:
    """One thread's ids: what is known of them, and the effect of the call that is under way."""

    name: str
    rng: random.Random
    known: dict[str, State] = field(default_factory=dict)
    in_flight: Effect | None = None
    calls: int = 0
    fault: str | None = None

    def run(self, collection: Any, stop: threading.Event) -> None:
        """Writes until told to stop or until the server is gone."""
        while not stop.is_set():
            try:
                self._one_call(collection)
            except errors.Unavailable:
                return
            except Exception as error:
                self.fault = f"{self.name}: {type(error).__name__}: {error}"
                return

    def _one_call(self, collection: Any) -> None:
        kind = self.rng.choices(
            ["upsert", "large", "insert", "update", "metadata", "delete", "delete_where"], [30, 2, 10, 10, 20, 15, 5]
        )[0]
        ids = [f"{self.name}-{i}" for i in self.rng.sample(range(2_500), self.rng.choice([1, 3, 20, 60]))]
        there = [i for i in ids if i in self.known]
        if kind == "large":
            ids = [f"{self.name}-{i}" for i in range(1_500)]
        if kind in ("upsert", "large"):
            self._write(collection.upsert, ids)
        elif kind == "insert":
            self._write(collection.insert, [i for i in ids if i not in self.known])
        elif kind == "update":
            self._write(collection.update, there)
        elif kind == "metadata" and there:
            extra = self.rng.randrange(100)
            effect: Effect = {i: State(s.seed, s.tag, s.text, extra) for i in there for s in [self.known[i]]}
            self._call(effect, lambda: collection.update_metadata(there, set={"extra": extra}))
        elif kind == "delete" and there:
            self._call(dict.fromkeys(there), lambda: collection.delete(there))
        elif kind == "delete_where":
            tag = self._tag()
            gone: Effect = {i: None for i, s in self.known.items() if s.tag == tag}
            where = {"field": "tag", "op": "==", "value": tag}
            self._call(gone, lambda: collection.delete(where=where))

    def _tag(self) -> int:
        """A tag of this writer alone."""
        return int(self.name[1:]) * 100 + self.rng.randrange(30)

    def _write(self, write: Any, ids: list[str]) -> None:
        if not ids:
            return
        effect = {
            i: State(self.rng.randrange(10**9), self._tag(), self.rng.choice([None, "", f"text of {i}"])) for i in ids
        }
        states = list(effect.values())
        vectors = np.stack([s.vector for s in states])
        metadata = [s.metadata for s in states]
        self._call(dict(effect), lambda: write(ids, vectors, metadata, [s.text for s in states]))

    def _call(self, effect: Effect, call: Any) -> None:
        self.in_flight = effect
        call()
        self._apply(effect)
        self.in_flight = None
        self.calls += 1

    def _apply(self, effect: Effect) -> None:
        for i, state in effect.items():
            if state is None:
                self.known.pop(i, None)
            else:
                self.known[i] = state

    def settle(self, found: dict[str, State]) -> list[str]:
        """Compares with what was recovered and takes over what the call in flight turned out to have done."""
        mine = {i: s for i, s in found.items() if i.startswith(self.name + "-")}
        effect, self.in_flight = self.in_flight, None
        if mine == self.known:
            return []
        if effect is not None:
            before = dict(self.known)
            self._apply(effect)
            if mine == self.known:
                return []
            self.known = before
        wrong = sorted(i for i in mine.keys() | self.known.keys() if mine.get(i) != self.known.get(i))
        told = "; ".join(f"{i}: {mine.get(i)} instead of {self.known.get(i)}" for i in wrong[:3])
        return [f"{self.name}: {len(wrong)} records are wrong (in flight: {len(effect or ())}): {told}"]


def recovered(collection: Any) -> tuple[dict[str, State], list[str]]:
    """All records as states, and what contradicts itself in them."""
    found: dict[str, State] = {}
    problems = []
    for record in collection.scan(include=("metadata", "text", "vector")):
        state = State(record.metadata["seed"], record.metadata["tag"], record.text, record.metadata.get("extra"))
        if not np.array_equal(record.vector, state.vector):
            problems.append(f"{record.id} has another vector than it was written with")
        if record.id in found:
            problems.append(f"{record.id} is there twice")
        found[record.id] = state
    if collection.count() != len(found):
        problems.append(f"count says {collection.count()}, a scan has {len(found)}")
    sample = sorted(found)[::37]
    if [r.id for r in collection.get(sample)] != sample:
        problems.append("get does not find what a scan has")
    return found, problems


def wrong_answers(collection: Any, found: dict[str, State], rng: random.Random) -> list[str]:
    """Exact searches, with and without a filter, against brute force over the recovered records."""
    ids = sorted(found)
    if not ids:
        return [] if not len(collection.search(np.ones(DIM), exact=True)) else ["hits in an empty collection"]
    vectors = np.stack([found[i].vector for i in ids])
    tags = np.array([found[i].tag for i in ids])
    problems = []
    for _ in range(4):
        query = np.array([rng.randrange(-3, 4) for _ in range(DIM)], np.float32)
        bound = rng.randrange(0, 430)
        for where in (None, {"field": "tag", "op": "<", "value": bound}):
            chosen = np.flatnonzero(tags < bound) if where else np.arange(len(ids))
            found_scores = scores(query, vectors[chosen], Metric.L2)
            order = sorted(zip(distances(found_scores, Metric.L2).tolist(), [ids[i] for i in chosen], strict=True))[:20]
            hits = collection.search(query, limit=20, where=where, exact=True, include=())
            if [(h.score, h.id) for h in hits] != order:
                problems.append(f"an exact search (where={where}) differs from brute force")
    return problems


@pytest.fixture(scope="session")
def oracle() -> SimpleNamespace:
    """This module's names."""
    return SimpleNamespace(Writer=Writer, CONFIG=CONFIG, DIM=DIM, recovered=recovered, wrong_answers=wrong_answers)
