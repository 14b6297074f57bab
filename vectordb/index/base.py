"""The seam for index kinds: what a family of indexes must offer to be used by segments and planner.

A kind is registered under the entry-point group ``vectordb.indexes`` (``registry.py``); the built-in ones register the
same way. Every kind must pass ``tests/conformance/test_index.py``.

An index knows positions ``0..n-1`` of one segment's vector matrix, never ids or offsets. It receives *prepared*
vectors (``vectordb.metric.prepared``: unit length under cosine). The distances that it returns only rank candidates;
the engine computes the scores that users see from the full vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from vectordb.metric import Metric

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vectordb.types import QuantizationSpec

Params = Mapping[str, int | float | str | bool]
SingleSearch: TypeAlias = "Callable[[NDArray[np.float32]], tuple[NDArray[np.int64], int]]"
"""Takes one prepared query float32[1, d], C-contiguous; gives ``Neighbours.rows`` of it, int64[k], and ``scored``."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a kind: its type, default, bounds (inclusive) and what it does, for validation and help."""

    type: type
    default: int | float | str | bool
    low: float | None = None
    high: float | None = None
    help: str = ""


@dataclass(frozen=True, slots=True)
class Effort:
    """What one query of an index costs, as the planner reckons it. Only the relations between kinds have to be right.

    An index of width ``w`` compares ``compared + factor * w ** exponent`` rows (never more than it has), in
    ``call + rows * (dim * dimension + row) + square * w ** 2`` microseconds of one thread.

    Attributes:
        factor, exponent: Rows compared by width; without a width ``w`` is 1.
        compared: Rows compared whatever the width: centroids, codes of a full scan.
        dimension: Microseconds a dimension of a compared row.
        row: Microseconds a compared row, whatever its dimension.
        square: Microseconds a squared width: a beam looks for its best slot once an expansion.
        call: Microseconds a call.
        filtered: Microseconds more a compared row where the index is told which rows are allowed.
    """

    factor: float
    exponent: float = 1.0
    compared: float = 0.0
    dimension: float = 0.0
    row: float = 0.0
    square: float = 0.0
    call: float = 15.0
    filtered: float = 0.0


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a kind can do. Whatever it cannot is refused at creation with a message that names the alternatives.

    Attributes:
        family: Word for plans: ``exact``, ``graph``, ``clusters``, ``hashing``, ``trees``, ``compressed``.
        metrics: Metrics it can index.
        quantizations: Quantizations it supports (``None`` always is), each with the metrics that it supports under it.
        filtered: ``search`` accepts ``allowed``.
        extends: A built index can be extended by more rows (``VectorIndex.extended``).
        exact: Results are the true nearest rows.
        build_params: Parameters of creation.
        search_params: Parameters of one query.
        width: The search parameter that trades speed for recall (``ef``, ``nprobe``); None where there is none.
        width_per_row: Width that it takes to span one more of the rows nearest to the query: 1 for a beam, lists a row
            for clusters. A search for k candidates gets at least a width of ``k * width_per_row``.
        oversampling: Candidates to fetch for each row wanted, and to score from the full vectors: more than 1 where the
            index ranks by compressed vectors. A kind whose ``search_params`` have ``oversampling`` lets a query set it.
        effort: What a query costs; None where it is not known (the planner then guesses).
        min_filtered_selectivity: Below this fraction of matching rows the filtered search loses recall and the
            planner goes exact.
        max_dim: The most dimensions it takes.
        compressed: The index searches its own, smaller form of the vectors: full ones are only read to rescore, and
            need not stay in memory.
        maps: A loaded index is mapped from its file, which the system reads and drops as it likes: hardly any of it
            counts as memory.
        lean: The quantization that a build may be done in from the start (``BuildOptions.lean``), holding codes alone;
            None where all are made from full rows.
        builds_apart: ``build`` and ``extended`` cannot be cancelled inside their calls (training, another library's
            build) or hold the GIL: they run in a process of their own (``index/apart.py``).
    """

    family: str
    metrics: frozenset[Metric]
    quantizations: Mapping[str, frozenset[Metric]] = field(default_factory=dict)
    filtered: bool = False
    extends: bool = False
    exact: bool = False
    build_params: Mapping[str, Parameter] = field(default_factory=dict)
    search_params: Mapping[str, Parameter] = field(default_factory=dict)
    width: str | None = None
    width_per_row: float = 1.0
    oversampling: float = 1.0
    effort: Effort | None = None
    min_filtered_selectivity: float = 0.15
    max_dim: int = 65_536
    compressed: bool = False
    maps: bool = False
    lean: str | None = None
    builds_apart: bool = False

    @property
    def has_beam(self) -> bool:
        """Whether the width is a beam, which must hold all candidates; else it says how much of the index is read."""
        return self.family == "graph"


class Neighbours(NamedTuple):
    """Candidates of a batch of queries, each row ascending by distance.

    Attributes:
        rows: int64[q, k], positions, padded with -1.
        distances: float32[q, k], padded with +inf. Smaller is closer, among the rows of one query: the engine scores
            them itself.
        scored: Distance computations done, all queries together (an upper bound under concurrency).
    """

    rows: NDArray[np.int64]
    distances: NDArray[np.float32]
    scored: int


class VectorIndex(Protocol):
    """A built index over one immutable matrix. ``search`` is thread-safe and releases the GIL.

    An index may have an attribute ``capabilities`` that overrides its kind's, for defaults that suit its size and
    metric (see :func:`capabilities_of`).
    """

    def search(
        self,
        queries: NDArray[np.float32],
        limit: int,
        *,
        allowed: NDArray[np.uint8] | None = None,
        params: Params | None = None,
    ) -> Neighbours:
        """The ``limit`` nearest rows of each prepared query.

        Args:
            queries: float32[q, d], C-contiguous.
            limit: k >= 1; may exceed the number of rows (then padded).
            allowed: Packed bits (little-endian, bit i = row i, ``numpy.packbits(..., bitorder="little")``) of the rows
                that may be returned, or None for all.
            params: Values for ``Capabilities.search_params``, checked by the caller.
        """
        ...

    def save(self, path: Path) -> None:
        """Writes the index to one file (the caller syncs and checksums it)."""
        ...

    def memory_bytes(self) -> int:
        """Resident bytes of the index itself, an estimate."""
        ...


class GrowingIndex(VectorIndex, Protocol):
    """An index whose kind has ``Capabilities.extends``."""

    def extended(self, vectors: NDArray[np.float32], build: BuildOptions) -> VectorIndex:
        """A new index over float32[n + m, d], prepared, whose first n rows equal this one's; this one is unchanged.

        Raises:
            CannotExtend: The new rows do not fit this index (e.g. its value range); the caller rebuilds.
        """
        ...


class RepeatingIndex(VectorIndex, Protocol):
    """An index that prepares itself for many searches that differ in nothing but their one query; few do."""

    def single(self, limit: int, params: Params | None) -> SingleSearch | None:
        """Such searches, without what :meth:`search` does for others; ``None`` where nothing is saved.

        Args:
            limit, params: As for :meth:`search`, which finds the same.
        """
        ...


class CannotExtend(Exception):
    """Raised by ``extended`` when a rebuild is needed. Never reaches users."""


class BuildCancelled(Exception):
    """Raised by ``build`` and ``extended`` when ``cancelled()`` turned true. Never reaches users."""


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How to build: the collection's parameters, and how to behave on the machine.

    Attributes:
        params: Values for ``Capabilities.build_params`` (missing ones take their default).
        quantization: The quantization with all its parameters (``quantization.resolve``), or None.
        trained: File of a saved index of this kind, parameters and quantization over earlier rows of the collection:
            a kind that trains (centroids, codebooks) takes over its trained state while that fits the new rows.
        lean: Hold nothing but codes while building, where ``Capabilities.lean`` is this quantization.
        threads: Native threads to use.
        more_threads: How many more there are as of now, since somebody began to wait: a kind that builds in slices may
            use them from the next slice on.
        cancelled: Polled between slices of work (every 0.5 s or so); true means raise ``BuildCancelled``.
        progress: Called with the fraction done, 0 to 1.
    """

    params: Params = field(default_factory=dict)
    quantization: QuantizationSpec | None = None
    trained: Path | None = None
    lean: bool = False
    threads: int = 1
    more_threads: Callable[[], int] = lambda: 0
    cancelled: Callable[[], bool] = lambda: False
    progress: Callable[[float], None] = lambda fraction: None


class IndexKind(Protocol):
    """A family of indexes, stateless.

    It may have a method ``check(params, dim)`` that raises ``InvalidArgument`` for build parameters that do not go
    together, or not with the dimension; it is called at creation.
    """

    name: str
    capabilities: Capabilities

    def build(self, vectors: NDArray[np.float32], metric: Metric, options: BuildOptions) -> VectorIndex:
        """Builds over prepared vectors float32[n, d] (may be memory-mapped, read-only)."""
        ...

    def load(self, path: Path, vectors: NDArray[np.float32], metric: Metric, options: BuildOptions) -> VectorIndex:
        """Opens a saved index (checksum already verified) over the same vectors, mapped where possible."""
        ...


def single_search(index: VectorIndex, limit: int, params: Params | None) -> SingleSearch:
    """Searches without a filter that differ in nothing but their one query, as directly as the index offers them."""
    prepare: Callable[[int, Params | None], SingleSearch | None] | None = getattr(index, "single", None)
    prepared = None if prepare is None else prepare(limit, params)

    def search(query: NDArray[np.float32]) -> tuple[NDArray[np.int64], int]:
        rows, _, scored = index.search(query, limit, params=params)
        return rows[0], scored

    return prepared or search


def capabilities_of(index: VectorIndex, kind: IndexKind) -> Capabilities:
    """What this very index can do, with its own defaults: its ``capabilities`` if it has them, else its kind's."""
    own = getattr(index, "capabilities", None)
    return own if isinstance(own, Capabilities) else kind.capabilities
