"""Keyword and hybrid search in any order of writes, seals, merges and restarts, against BM25 by plain Python.

Few words and many equal texts, so that ties and dead rows are everywhere; scores are compared bit by bit.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

import vectordb
from tests.edits import edits
from vectordb import col
from vectordb_client import connect

WORDS = ["a", "ab", "abc", "b", "ba", "c"]
K1, B = 1.2, 0.75
_ids = st.integers(0, 25).map(lambda n: f"id-{n:02d}")
_texts = st.none() | st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)
_records = st.lists(
    st.tuples(_ids, st.none() | st.integers(-3, 3), st.integers(0, 3), _texts),
    min_size=1,
    max_size=8,
    unique_by=lambda record: record[0],
)
_units = st.one_of(
    st.sampled_from([*WORDS, "d"]),
    st.sampled_from(["a*", "b*", "ab*"]),
    st.sampled_from(["abc~1", "abd~", "cb~1"]),
    st.lists(st.sampled_from(WORDS), min_size=2, max_size=3).map(lambda words: '"' + " ".join(words) + '"'),
)
_queries = st.lists(_units, min_size=1, max_size=4).map(" ".join)
_wheres = st.none() | st.integers(0, 3)


@dataclass(frozen=True)
class Stored:
    x: int | None
    n: int
    text: str | None


def _frequency(unit: str, words: list[str]) -> float:
    if unit.startswith('"'):
        phrase = unit.strip('"').split()
        return sum(words[i : i + len(phrase)] == phrase for i in range(len(words)))
    if unit.endswith("*"):
        return sum(word.startswith(unit[:-1]) for word in words)
    if "~" in unit:
        word, _, most = unit.partition("~")
        return sum(0.5 ** edits(word, w) for w in words if edits(word, w) <= int(most or 1))
    return words.count(unit)


def _parsed(query: str) -> list[str]:
    """The units of one of the generated queries: blanks part them, but not inside quotes."""
    units: list[str] = []
    for i, piece in enumerate(query.split('"')):
        units += ['"' + piece + '"'] if i % 2 else piece.split()
    return units


class TextMachine(RuleBasedStateMachine):
    """One collection; a dict is what it should hold."""

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[str, Stored] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="vectordb-text-"))
        self.db: Any = vectordb.Database(self.folder / "db")

    def teardown(self) -> None:
        self.db.close()
        shutil.rmtree(self.folder)

    @initialize(index=st.sampled_from(["flat", "hnsw"]))
    def create(self, index: str) -> None:
        self.collection = self.db.create_collection("c", 1, metric="l2", index=index, seal_bytes=40, merge_factor=2)

    @rule(records=_records)
    def upsert(self, records: list[Any]) -> None:
        ids, xs, ns, texts = zip(*records, strict=True)
        vectors = [None if x is None else [float(x)] for x in xs]
        self.collection.upsert(list(ids), vectors, [{"n": n} for n in ns], list(texts))
        self.model.update({i: Stored(x, n, t) for i, x, n, t in records})

    @rule(ids=st.lists(_ids, min_size=1, max_size=6, unique=True))
    def delete(self, ids: list[str]) -> None:
        self.collection.delete(ids)
        for id_ in ids:
            self.model.pop(id_, None)

    @rule(was=st.integers(0, 3), now=st.integers(0, 3))
    def update_metadata(self, was: int, now: int) -> None:
        self.collection.update_metadata(where=col("n") == was, set={"n": now})
        self.model = {i: Stored(s.x, now if s.n == was else s.n, s.text) for i, s in self.model.items()}

    @rule(lose=st.booleans())
    def reopen(self, lose: bool) -> None:
        self.db.close()
        if lose:
            shutil.rmtree(self.folder / "db" / "segments", ignore_errors=True)
        self.db = vectordb.Database(self.folder / "db")
        self.collection = self.db.collection("c")

    @rule()
    def optimize(self) -> None:
        self.collection.optimize()

    def _bm25(self, query: str, where: int | None) -> list[tuple[float, str]]:
        """Every match in order, as (score, id)."""
        words = {i: s.text.split() for i, s in self.model.items() if s.text}
        total = sum(map(len, words.values()))
        scores: dict[str, float] = {}
        for unit, count in Counter(_parsed(query)).items():
            found = {i: f for i, w in words.items() if (f := _frequency(unit, w))}
            weight = count * math.log1p((len(words) - len(found) + 0.5) / (len(found) + 0.5)) * (K1 + 1.0)
            for id_, f in found.items():
                below = len(words[id_]) * (K1 * B / (total / len(words))) + K1 * (1.0 - B) + f
                scores[id_] = scores.get(id_, 0.0) + f / below * weight
        rounded = [(float(np.float32(s)), i) for i, s in scores.items() if where is None or self.model[i].n == where]
        return sorted(rounded, key=lambda hit: (-hit[0], hit[1]))

    def _nearest(self, x: float, where: int | None) -> list[tuple[float, str]]:
        hits = [(abs(s.x - x), i) for i, s in self.model.items() if s.x is not None and (where is None or s.n == where)]
        return sorted(hits)

    @rule(query=_queries, where=_wheres, limit=st.sampled_from([1, 3, 50]))
    def search_text(self, query: str, where: int | None, limit: int) -> None:
        result = self.collection.search_text(query, limit, None if where is None else col("n") == where)
        assert [(h.score, h.id) for h in result] == self._bm25(query, where)[:limit]
        assert [h.metadata for h in result] == [{"n": self.model[h.id].n} for h in result]

    @rule(query=_queries, x=st.integers(-3, 3), where=_wheres, by_rank=st.booleans(), limit=st.sampled_from([2, 50]))
    def search_both(self, query: str, x: int, where: int | None, by_rank: bool, limit: int) -> None:
        legs = [self._nearest(float(x), where), self._bm25(query, where)]
        scores: dict[str, float] = {}
        for leg, weight, sign in zip(legs, (0.7, 0.3), (-1.0, 1.0), strict=True):
            values = [sign * score for score, _ in leg]
            for rank, (value, (_, id_)) in enumerate(zip(values, leg, strict=True), 1):
                if by_rank:
                    share = 1.0 / (60.0 + rank)
                elif values[0] > values[-1]:
                    share = weight * ((value - values[-1]) / (values[0] - values[-1]))
                else:
                    share = weight
                scores[id_] = scores.get(id_, 0.0) + share
        expected = sorted(((float(np.float32(s)), i) for i, s in scores.items()), key=lambda hit: (-hit[0], hit[1]))
        fusion = "rrf" if by_rank else {"weights": [0.7, 0.3]}
        filter_ = None if where is None else col("n") == where
        result = self.collection.search([float(x)], limit, filter_, exact=True, text=query, fusion=fusion)
        assert [(h.score, h.id) for h in result] == expected[:limit]


class ServedTextMachine(TextMachine):
    """The same over gRPC."""

    def __init__(self) -> None:
        super().__init__()
        self.db.close()
        self.db = self._serve()

    def _serve(self) -> Any:
        from vectordb.engine.database import Engine
        from vectordb.server.app import Server
        from vectordb.server.config import load

        config = load({"data": str(self.folder / "db"), "listen": "127.0.0.1:0"}, None, {})
        self.server = Server(lambda: Engine(self.folder / "db"), config)
        return connect(self.server.start())

    def teardown(self) -> None:
        self.db.close()
        self.server.stop()
        shutil.rmtree(self.folder)

    @rule(lose=st.booleans())
    def reopen(self, lose: bool) -> None:
        self.db.close()
        self.server.stop()
        if lose:
            shutil.rmtree(self.folder / "db" / "segments", ignore_errors=True)
        self.db = self._serve()
        self.collection = self.db.collection("c")


_quick = settings(
    max_examples=int(os.environ.get("VECTORDB_MACHINE_RUNS", "20")),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

TestTexts = TextMachine.TestCase
TestTexts.settings = _quick
TestServedTexts = ServedTextMachine.TestCase
TestServedTexts.settings = settings(_quick, max_examples=max(1, _quick.max_examples // 4))
