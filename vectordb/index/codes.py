"""Codes: how a quantization keeps a row, made and learned with faiss.

    codec    faiss's class                   what it learns
    none     (the rows themselves)           nothing
    fp16     IndexScalarQuantizer            nothing
    sq8      IndexScalarQuantizer            the range of each dimension, over all rows
    pq       IndexPQ, or at 4 bits FastScan  codewords by k-means over a sample
    rabitq   IndexRaBitQ                     the mean, but under dot nothing
    bits     IndexLSH                        the median of each dimension: one bit says which side
    planes   IndexLSH                        the median along each of m directions, under l2 quartiles, too: likewise

What is learned is measured: ``error`` of a sample is kept with the index, and rows that the codes describe much worse
than those they were learned from want codes of their own (:func:`require_fit`).

Sources: Jégou et al. 2011, "Product Quantization for Nearest Neighbor Search"; André et al. 2017, "Accelerated Nearest
Neighbor Search with Quick ADC" (4 bits in registers); Gao & Long 2024, "RaBitQ: Quantizing High-Dimensional Vectors
with a Theoretical Error Bound for Approximate Nearest Neighbor Search"; Charikar 2002, "Similarity Estimation
Techniques from Rounding Algorithms" (bits).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vectordb.index.base import BuildCancelled, BuildOptions, CannotExtend
from vectordb.index.duplicates import Rows
from vectordb.index.kmeans import kmeans
from vectordb.index.native import faiss, inner_products, native_threads
from vectordb.index.rotation import projection
from vectordb.index.space import Space
from vectordb.metric import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.types import QuantizationSpec

_PQ_SAMPLE = {8: 16_384, 4: 8_192}
"""Rows that codewords are learned from, 64 and 512 a codeword; half as many at 8 bits cost 0.007 of the recall among 24
candidates, 0.0005 among 84, and take longer: from 16,384 rows on faiss assigns short vectors in registers."""
_PQ_ITERATIONS = 15
_MEDIAN_SAMPLE = 4_096
_MEDIAN_COLUMNS = 64
_MEDIAN = (0.5,)
_QUANTILES = (0.25, 0.5, 0.75)
"""Where planes cut the rows under l2. Planes through the middle see angles only; with these, of vectors whose lengths
differ up to four times the 84 nearest of 256 bits hold 0.97 of the true 10 instead of 0.90."""
_SLICE_BYTES = 8 << 20
_SLICE_WORK = 1_000_000_000
"""Multiplications of one uninterruptible encoding: about 0.1 s of one thread."""
_USUALLY_WORSE = 1.3
"""New rows may be described this many times worse than rows like those that the codes were learned from."""
_WORSE = {"sq8": 4.0}
"""The rounding of ``sq8`` is so fine that a few values beyond the range outweigh it, and cost no recall."""
_OUTGROWN = 4
_RANGE_MARGIN = 0.05
"""What the range of each dimension is widened by at both ends, for rows to come."""
_UNEVEN = 0.1
"""How much further than there the share of ones may be from a half, as the mean over all bits."""


class Codec(NamedTuple):
    """How rows are kept.

    Attributes:
        name: One of those above.
        m: Subspaces of ``pq``; bits of ``bits`` and ``planes``.
        nbits: Bits a subspace of ``pq``.
    """

    name: str = "none"
    m: int = 0
    nbits: int = 0

    @classmethod
    def of(cls, spec: QuantizationSpec | None, dim: int) -> Codec:
        """The codec of a quantization with all its parameters."""
        if spec is None:
            return cls()
        if spec.kind == "pq":
            return cls("pq", int(spec.params["m"]), int(spec.params["nbits"]))
        return cls("bits", dim) if spec.kind == "binary" else cls(spec.kind)

    @property
    def rotates(self) -> bool:
        """Whether the codes gain by a rotation."""
        return self.name in ("rabitq", "bits")

    @property
    def fast(self) -> bool:
        """Whether codes are scanned in registers (FastScan): no access to single rows."""
        return self.name == "pq" and self.nbits == 4

    @property
    def hashes(self) -> bool:
        """Whether codes are bits to be counted."""
        return self.name in ("bits", "planes")


def flat_index(codec: Codec, space: Space, *, random_access: bool) -> Any:
    """An empty, untrained faiss index that keeps rows by the codec alone."""
    dim, metric = space.dim, space.native_metric
    if codec.name == "fp16":
        return faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, metric)
    if codec.name == "sq8":
        return faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit, metric)
    if codec.name == "pq":
        kind = faiss.IndexPQFastScan if codec.fast and not random_access else faiss.IndexPQ
        return kind(dim, codec.m, codec.nbits, metric)
    if codec.name == "rabitq":
        return faiss.IndexRaBitQ(dim, metric)
    return faiss.IndexLSH(dim, codec.m, codec.name == "planes", True)


def train_flat(native: Any, codec: Codec, space: Space, vectors: NDArray[np.float32], options: BuildOptions) -> None:
    """Teaches an index of :func:`flat_index` from prepared rows float32[n, d].

    Raises:
        BuildCancelled: ``options.cancelled()`` turned true.
    """
    if codec.name == "pq":
        sample = space.sample(vectors, pq_sample(codec.nbits))
        set_codewords(native.pq, learned_codewords(codec, sample, options))
    elif codec.hashes:
        _learn_bits(native, space, vectors, options)
    elif codec.name == "rabitq":
        # Under dot a query may be far shorter than the mean, and its difference from it say nothing.
        centred = space.metric is not Metric.DOT
        mean = _mean(space, vectors, options.cancelled) if centred else np.zeros(space.dim, np.float32)
        native.train(mean[None])
    elif codec.name == "sq8":
        native.train(ranges(space, vectors, options.cancelled))
    else:
        native.train(np.zeros((1, space.dim), np.float32))  # nothing to learn; faiss wants the call
    native.is_trained = True


def ranges(space: Space, vectors: NDArray[np.float32], cancelled: Callable[[], bool]) -> NDArray[np.float32]:
    """The least and greatest value of each dimension, with a margin, from which ``sq8`` learns: float32[2, d]."""
    low = np.full(space.dim, np.inf, np.float32)
    high = -low
    for _, block in space.blocks(vectors, cancelled):
        np.minimum(low, block.min(axis=0), out=low)
        np.maximum(high, block.max(axis=0), out=high)
    if len(vectors) == 0:
        return np.zeros((2, space.dim), np.float32)
    margin = _RANGE_MARGIN * (high - low)
    return np.stack([low - margin, high + margin])


def pq_sample(nbits: int) -> int:
    """Rows that codewords are learned from."""
    return _PQ_SAMPLE[nbits]


def learned_codewords(codec: Codec, sample: NDArray[np.float32], options: BuildOptions) -> NDArray[np.float32]:
    """Codewords of each subspace by k-means: float32[m, 2^nbits, d / m].

    Raises:
        BuildCancelled: ``options.cancelled()`` turned true.
    """
    wide = sample.shape[1] // codec.m
    words = []
    for first in range(0, sample.shape[1], wide):
        piece = np.ascontiguousarray(sample[:, first : first + wide])
        found = kmeans(piece, 1 << codec.nbits, _PQ_ITERATIONS, options.cancelled)
        if (found == found[0]).all():
            # Tables of a fast scan are scaled to their range, which must not be nothing.
            found[1:] += 1.0
        words.append(found)
        options.progress(0.3 * (first + wide) / sample.shape[1])
    return np.stack(words)


def set_codewords(pq: Any, words: NDArray[np.float32]) -> None:
    """Gives a faiss product quantizer its codewords."""
    faiss.copy_array_to_vector(np.ascontiguousarray(words).ravel(), pq.centroids)


def _learn_bits(native: Any, space: Space, vectors: NDArray[np.float32], options: BuildOptions) -> None:
    sample = space.sample(vectors, _MEDIAN_SAMPLE)
    if native.rotate_data:
        directions = projection(space.dim, native.nbits)
        faiss.copy_array_to_vector(directions.ravel(), native.rrot.A)
        native.rrot.is_trained = True
    thresholds = np.zeros(native.nbits, np.float32)
    quantiles = _QUANTILES if space.metric is Metric.L2 else _MEDIAN
    quantile = np.resize(np.array(quantiles), native.nbits)
    for first in range(0, native.nbits if len(sample) else 0, _MEDIAN_COLUMNS):
        if options.cancelled():
            raise BuildCancelled
        columns = slice(first, first + _MEDIAN_COLUMNS)
        along = inner_products(directions[columns], sample) if native.rotate_data else sample[:, columns].T.copy()
        along.sort(axis=1)
        place = quantile[columns] * (len(sample) - 1)
        thresholds[columns] = np.take_along_axis(along, place.astype(np.int64)[:, None], axis=1)[:, 0]
    faiss.copy_array_to_vector(thresholds, native.thresholds)


def _mean(space: Space, vectors: NDArray[np.float32], cancelled: Callable[[], bool]) -> NDArray[np.float32]:
    total = np.zeros(space.dim)
    for _, block in space.blocks(vectors, cancelled):
        total += block.sum(axis=0, dtype=np.float64)
    return (total / max(1, len(vectors))).astype(np.float32)


def add(native: Any, space: Space, rows: Rows, options: BuildOptions, step: int) -> None:
    """Adds prepared rows in slices of ``step`` rows; reports the last 70 % of the progress.

    Raises:
        BuildCancelled: ``options.cancelled()`` turned true.
    """
    for start in range(0, rows.count, step):
        if options.cancelled():
            raise BuildCancelled
        block = space.rows(rows.block(start, start + step))
        with native_threads(options.threads):
            native.add_c(len(block), faiss.swig_ptr(block))
        options.progress(0.3 + 0.7 * min(1.0, (start + step) / rows.count))
    if options.cancelled():
        raise BuildCancelled
    options.progress(1.0)


def step_of(codec: Codec, dim: int, threads: int) -> int:
    """Rows to encode at once, so that it takes about 0.1 s."""
    step = _SLICE_BYTES // (4 * dim)
    if codec.name == "pq":
        step = min(step, _SLICE_WORK // (dim << codec.nbits))
    elif codec.name == "planes":
        step = min(step, _SLICE_WORK // (dim * codec.m))
    # FastScan packs codes 32 at a time.
    return max(32, step // 32 * 32) * max(1, threads)


def row_bytes(codec: Codec, dim: int) -> int:
    """Bytes that a codec takes for a row."""
    return {
        "none": 4 * dim,
        "fp16": 2 * dim,
        "sq8": dim,
        "pq": -(-codec.m * codec.nbits // 8),
        "rabitq": -(-dim // 8) + 8,
        "bits": -(-codec.m // 8),
        "planes": -(-codec.m // 8),
    }[codec.name]


def learned_bytes(codec: Codec, dim: int) -> int:
    """Bytes of what a codec has learned."""
    learned = {"bits": 4 * dim, "planes": 4 * codec.m * (dim + 1), "rabitq": 4 * dim, "sq8": 8 * dim}
    return 4 * dim << codec.nbits if codec.name == "pq" else learned.get(codec.name, 0)


def error(native: Any, codec: Codec, sample: NDArray[np.float32]) -> float:
    """How badly the codes of :func:`flat_index` describe rows as faiss sees them, float32[n, d]: the mean squared error
    over the dimensions, of ``rabitq`` the mean squared distance from its centre; of bits how far the share of ones
    is from a half, as the mean over the bits. 0 of no rows."""
    if len(sample) == 0 or codec.name in ("none", "fp16"):
        return 0.0
    if codec.hashes:
        ones = np.unpackbits(native.sa_encode(sample), axis=1).mean(axis=0)
        return float(np.abs(ones - 0.5).mean())
    if codec.name == "rabitq":
        return float(np.square(sample - faiss.vector_to_array(native.center)).mean())
    coder = native.pq if codec.name == "pq" else native.sq
    return float(np.square(sample - coder.decode(coder.compute_codes(sample))).mean())


def require_fit(codec: Codec, new: float, old: float) -> None:
    """Checks the error of new rows against that of rows like those that were learned from.

    Raises:
        CannotExtend: It is so large that the codes want to be learned anew.
    """
    if new > (old + _UNEVEN if codec.hashes else _WORSE.get(codec.name, _USUALLY_WORSE) * old):
        raise CannotExtend("the codes do not fit the new rows")


def require_enough(codec: Codec, rows: int, learned: int) -> None:
    """Checks that codewords were learned from enough rows for ``rows`` in all.

    Raises:
        CannotExtend: There are many more rows now, and they would make better codewords.
    """
    if codec.name == "pq" and learned < _PQ_SAMPLE[codec.nbits] and rows > _OUTGROWN * learned:
        raise CannotExtend("there are many more rows to learn codewords from")
