"""Made-up vectors with the structure of real ones, of any number, chunk by chunk; DERIVED figures only, say so.

Points lie near low-dimensional affine pieces: a topic is a direction, a cluster a direction near its topic's, and a
point is its cluster's centre plus ``intrinsic`` coordinates in the cluster's own subspace (standard deviations falling
as 1/sqrt(rank), as the spectra of text embeddings do) plus white noise in all dimensions, scaled to unit length.
Cluster sizes fall as Zipf's law does. The metadata field ``topic`` names the topic of a share ``correlation`` of the
rows and a random one of the others: 1 makes a filter on it fully correlated with the vectors, 0 independent.

With the defaults at 384 dimensions, 25,000 rows have a two-nearest-neighbours dimension of 18 (10,000 WordNet glosses
embedded by MiniLM: 17), and an HNSW graph searched with ef 10 finds 0.90 of the ten nearest (WordNet: 0.87).

A chunk depends on the seed and its number only: 10,000 rows are the first of 1,000,000.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
CHUNK = 25_000


@dataclass(frozen=True)
class Shape:
    """What is generated.

    Attributes:
        clusters, topics: How many; each topic has an equal number of clusters.
        intrinsic: Dimensions of a cluster's own subspace, a third of ``dim`` at most.
        spread: Length of the part within the cluster relative to the centre's.
        noise: Length of the white noise relative to the centre's.
        correlation: Share of the rows whose field ``topic`` is that of their vector.
    """

    rows: int = 100_000
    dim: int = 384
    clusters: int = 1_000
    topics: int = 16
    intrinsic: int = 64
    spread: float = 1.5
    noise: float = 0.25
    correlation: float = 0.9
    seed: int = 1

    @classmethod
    def parse(cls, text: str) -> Shape:
        """``rows=1000000,dim=96``: any fields of this class.

        Raises:
            SystemExit: A field that there is not, or a value that is no number.
        """
        found = {}
        for part in filter(None, text.split(",")):
            name, _, value = part.partition("=")
            if name not in cls.__dataclass_fields__:
                raise SystemExit(f"generated sets have no {name!r}: known are {', '.join(cls.__dataclass_fields__)}")
            try:
                found[name] = type(getattr(cls, name))(value)
            except ValueError:
                raise SystemExit(f"generated sets: {name} must be a number, got {value!r}") from None
        return cls(**found)

    def described(self) -> dict[str, Any]:
        return asdict(self)


class Generator:
    """Chunks of one :class:`Shape`; the same object makes rows and queries."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        rng = np.random.default_rng([shape.seed, 0])
        topics = _unit(rng.standard_normal((shape.topics, shape.dim), dtype=np.float32))
        self._topic = np.arange(shape.clusters) % shape.topics
        apart = _unit(rng.standard_normal((shape.clusters, shape.dim), dtype=np.float32))
        self._centres = _unit(topics[self._topic] + apart)
        weights = 1.0 / (np.arange(shape.clusters) + 10.0)
        self._weights = weights / weights.sum()
        self._inner = min(shape.intrinsic, max(1, shape.dim // 3))
        self._scales = 1.0 / np.sqrt(np.arange(self._inner) + 1.0, dtype=np.float32)
        self._scales *= shape.spread / np.linalg.norm(self._scales)

    @cached_property
    def _bases(self) -> Array:
        """float32[clusters, intrinsic, dim]: rows nearly orthonormal, as random directions in many dimensions are."""
        rng = np.random.default_rng([self._shape.seed, 1])
        shape = (self._shape.clusters, self._inner, self._shape.dim)
        bases: Array = rng.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(self._shape.dim))
        return bases

    def chunk(self, number: int) -> tuple[Array, Array, Array]:
        """Vectors float32[CHUNK, dim], ``topic`` str[CHUNK] and ``u`` int[CHUNK] over 0..9999 of the chunk."""
        rng = np.random.default_rng([self._shape.seed, 2, number])
        vectors, cluster = self._points(rng, CHUNK)
        topic = self._topic[cluster]
        other = rng.integers(0, self._shape.topics, CHUNK)
        topic = np.where(rng.random(CHUNK) < self._shape.correlation, topic, other)
        return vectors, np.char.add("topic-", topic.astype(str)), rng.integers(0, 10_000, CHUNK)

    def queries(self, count: int) -> Array:
        """float32[count, dim]: points of the same kind that are no rows."""
        return self._points(np.random.default_rng([self._shape.seed, 3]), count)[0]

    def _points(self, rng: np.random.Generator, count: int) -> tuple[Array, Array]:
        shape = self._shape
        cluster = rng.choice(shape.clusters, count, p=self._weights)
        inner = rng.standard_normal((count, self._inner), dtype=np.float32) * self._scales
        vectors = rng.standard_normal((count, shape.dim), dtype=np.float32) * np.float32(
            shape.noise / np.sqrt(shape.dim)
        )
        vectors += self._centres[cluster]
        for one in np.unique(cluster):
            rows = np.flatnonzero(cluster == one)
            vectors[rows] += inner[rows] @ self._bases[one]
        return _unit(vectors), cluster


def intrinsic_dimension(vectors: Array, sample: int = 2_000) -> float:
    """The two-nearest-neighbours estimate over a sample against all rows. Source: Facco et al. 2017 (TWO-NN).

    Duplicates are left out; without the tenth with the largest ratios, as the paper advises.
    """
    chosen = np.random.default_rng(5).choice(len(vectors), min(sample, len(vectors)), replace=False)
    nearest = np.full((len(chosen), 3), np.inf)
    asked = np.asarray(vectors[chosen], dtype=np.float32)
    squares = np.einsum("nd,nd->n", asked, asked, dtype=np.float64)[:, None]
    for start in range(0, len(vectors), 16_384):
        block = np.asarray(vectors[start : start + 16_384], dtype=np.float32)
        far = squares + np.einsum("nd,nd->n", block, block, dtype=np.float64) - 2.0 * (asked @ block.T)
        both = np.concatenate([nearest, far], axis=1)
        nearest = np.sort(np.partition(both, 2, axis=1)[:, :3], axis=1)
    first, second = nearest[:, 1], nearest[:, 2]
    usable = first > 1e-6
    ratios = np.sort(np.sqrt(second[usable] / first[usable]))
    ratios = ratios[: int(len(ratios) * 0.9)]
    ratios = ratios[ratios > 1.0]
    # Least squares through the origin of -log(1 - F) on log(mu).
    share = np.arange(1, len(ratios) + 1) / (len(ratios) / 0.9 + 1.0)
    x, y = np.log(ratios), -np.log1p(-share)
    return float((x @ y) / (x @ x)) if len(ratios) else 0.0


def _unit(vectors: Array) -> Array:
    unit: Array = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
