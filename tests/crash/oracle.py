"""The expected state of a database under writers that are killed: what was acknowledged, and what may have happened.

Each writer owns its ids, so that the effect of every call on them is known in advance. A call in flight at the kill
must be found wholly done or wholly undone.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import vectordb
from tests.verified import verify_folder
from vectordb import errors
from vectordb.metric import Metric, distances, scores
from vectordb_client import connect

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
    """One thread's ids: what is known of them, and the effect of the call that is under way.

    Attributes:
        span: How many ids it uses; ``large``: how often, of 90 calls, one writes 1,500 rows.
        pause: Seconds between calls.
        rests: Whether it makes no calls for now.
    """

    name: str
    rng: random.Random
    span: int = 2_500
    large: int = 2
    pause: float = 0.0
    rests: bool = False
    known: dict[str, State] = field(default_factory=dict)
    in_flight: Effect | None = None
    calls: int = 0
    fault: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, collection: Any, stop: threading.Event) -> None:
        """Writes until told to stop or until the server is gone."""
        while not stop.wait(max(self.pause, 0.01 * self.rests)):
            if self.rests:
                continue
            try:
                self.step(collection)
            except errors.Unavailable:
                return
            except Exception as error:
                self.fault = f"{self.name}: {type(error).__name__}: {error}"
                return

    def step(self, collection: Any) -> None:
        """One call."""
        kind = self.rng.choices(
            ["upsert", "large", "insert", "update", "metadata", "delete", "delete_where"],
            [30, self.large, 10, 10, 20, 15, 5],
        )[0]
        ids = [f"{self.name}-{i}" for i in self.rng.sample(range(self.span), self.rng.choice([1, 3, 20, 60]))]
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
        with self.lock:
            self._apply(effect)
            self.in_flight = None
        self.calls += 1

    def _apply(self, effect: Effect) -> None:
        for i, state in effect.items():
            if state is None:
                self.known.pop(i, None)
            else:
                self.known[i] = state

    def copied(self) -> Writer:
        """As of now, also while another thread runs it."""
        with self.lock:
            return Writer(self.name, random.Random(0), known=dict(self.known), in_flight=self.in_flight)

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


class Ground:
    """A folder with four writers' collection ``k``, and collections, reindexes and backups that come and go."""

    def __init__(self, folder: Path, rng: random.Random, large: int = 0) -> None:
        self.folder, self.rng = folder / "db", rng
        self.backups = folder / "backups"
        self.writers = [Writer(f"w{i}", random.Random(rng.random()), span=500, large=large) for i in range(4)]
        self.others: set[str] = set()
        self.unknown: str | None = None
        self.next = 0
        with vectordb.Database(self.folder) as db:
            db.create_collection("k", **CONFIG)

    def drive(self, name: str) -> Callable[[Any], None]:
        """What leads to a place, again and again."""
        subject = name.partition(".")[0]
        if subject in ("create", "delete"):
            return self._come_and_go
        if subject == "reindex":
            return self._cancel if name == "reindex.dropped" else self._reindex
        if subject == "erase":
            for writer in self.writers:
                writer.pause = 0.01  # at full speed they keep every erasure waiting for seconds
            return lambda db: db["k"].optimize(erase=True)
        if subject == "index":
            return self._rest
        if subject == "backup":
            return lambda db: db.backup(self.backups)
        return lambda db: db["k"].optimize(wait=self.rng.random() < 0.5)

    def _come_and_go(self, db: Any) -> None:
        name, self.next = f"other{self.next}", self.next + 1
        self.unknown = name
        other = db.create_collection(name, 2, metric="l2", seal_bytes=1_000)
        self.others.add(name)
        other.upsert(["a"], [[1, 2]])
        other.optimize()
        self.others.discard(name)
        db.delete_collection(name)
        self.unknown = None

    def _rest(self, db: Any) -> None:
        """Writers rest until all is done in the background: under their load the next merge always comes before an
        index."""
        self._let_rest(True)
        while db["k"].stats().optimizer.state != "idle":
            time.sleep(0.02)
        self._let_rest(False)
        time.sleep(0.2)

    def _let_rest(self, rest: bool) -> None:
        for writer in self.writers:
            writer.rests = rest

    def _reindex(self, db: Any) -> None:
        kind = self.rng.choice(["flat", {"kind": "hnsw", "m": self.rng.choice([4, 5, 6]), "ef_construction": 16}])
        db["k"].reindex(kind)

    def _cancel(self, db: Any) -> None:
        db["k"].reindex({"kind": "hnsw", "m": self.rng.choice([4, 5, 6]), "ef_construction": 40}, wait=False)
        db["k"].cancel_reindex()

    def write(self, address: str, drive: Callable[[Any], None], until: Callable[[], bool]) -> None:
        """Writers and driver at a server, until it is gone."""
        stop = threading.Event()
        with connect(address, retries=0) as db:
            threads = []
            try:
                collection = db["k"]
                threads += [threading.Thread(target=w.run, args=(collection, stop)) for w in self.writers]
                for thread in threads:
                    thread.start()
                while not until():
                    drive(db)
                    time.sleep(0.005)
            except errors.Unavailable:
                until()
            finally:
                stop.set()
                for thread in threads:
                    thread.join(30)
                self._let_rest(False)
        assert [w.fault for w in self.writers if w.fault] == []

    def problems(self, deep: bool) -> list[str]:
        """What is not as the model says, after opening once more."""
        with vectordb.Database(self.folder) as db:
            collection = db["k"]
            found, problems = recovered(collection)
            for writer in self.writers:
                problems += writer.settle(found)
            problems += wrong_answers(collection, found, self.rng)
            there = set(db.list_collections()) - {"k"}
            if not self.others - {self.unknown} <= there <= self.others | {self.unknown}:
                problems.append(f"collections {there} where {self.others} were acknowledged, {self.unknown} under way")
            self.others, self.unknown = there, None
            for name in there:
                rows = [(r.id, r.vector.tolist()) for r in db[name].scan(include=("vector",))]
                if rows not in ([], [("a", [1, 2])]):
                    problems.append(f"collection {name} holds {rows}")
        return problems + (verify_folder(self.folder) if deep else [])
