"""A third party's index kind: a small inverted file in numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vectordb.index.base import BuildCancelled, BuildOptions, Capabilities, Neighbours, Parameter, Params
from vectordb.metric import Metric, distances, scores

Floats = NDArray[np.float32]

THIRD_PARTY = "pivots"


class PivotIndex:
    """Rows in lists by their nearest pivot; a search reads the lists of the nearest pivots."""

    def __init__(self, vectors: Floats, pivots: Floats, member: NDArray[np.int64], metric: Metric) -> None:
        self.vectors, self.pivots, self.member, self.metric = vectors, pivots, member, metric

    def search(
        self, queries: Floats, limit: int, *, allowed: NDArray[np.uint8] | None = None, params: Params | None = None
    ) -> Neighbours:
        assert allowed is None, "the kind says that it cannot filter"
        probes = int((params or {}).get("probes", 24))
        rows = np.full((len(queries), limit), -1, np.int64)
        found = np.full((len(queries), limit), np.inf, np.float32)
        scored = 0
        for i, query in enumerate(queries):
            lists = np.argsort(distances(scores(query, self.pivots, self.metric), self.metric))[:probes]
            near = np.flatnonzero(np.isin(self.member, lists))
            far = distances(scores(query, self.vectors[near], self.metric), self.metric)
            best = np.argsort(far, kind="stable")[:limit]
            rows[i, : len(best)], found[i, : len(best)] = near[best], far[best]
            scored += len(near) + len(self.pivots)
        return Neighbours(rows, found, scored)

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, pivots=self.pivots, member=self.member)

    def memory_bytes(self) -> int:
        return self.pivots.nbytes + self.member.nbytes


class PivotKind:
    name = THIRD_PARTY
    capabilities = Capabilities(
        family="clusters",
        metrics=frozenset({Metric.COSINE, Metric.L2}),
        build_params={"lists": Parameter(int, 32, 1, 1000)},
        search_params={"probes": Parameter(int, 24, 1, 1000)},
    )

    def build(self, vectors: Floats, metric: Metric, options: BuildOptions) -> PivotIndex:
        lists = int(options.params.get("lists", 32))
        distinct = np.unique(vectors, axis=0)  # equal pivots would share one list
        pivots = distinct[:: max(1, len(distinct) // lists)]
        member = np.empty(len(vectors), np.int64)
        for row, vector in enumerate(vectors):
            if options.cancelled():
                raise BuildCancelled
            member[row] = distances(scores(vector, pivots, metric), metric).argmin()
            options.progress((row + 1) / len(vectors))
        options.progress(1.0)
        return PivotIndex(vectors, pivots, member, metric)

    def load(self, path: Path, vectors: Floats, metric: Metric, options: BuildOptions) -> PivotIndex:
        with np.load(path) as stored:
            return PivotIndex(vectors, stored["pivots"], stored["member"], metric)
