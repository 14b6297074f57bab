"""Quantizations by name: smaller forms of the vectors that an index ranks by, and their parameters.

    kind     bytes a row of d dimensions   what is kept
    fp16     2 d                           half-precision numbers
    sq8      d                             one byte a dimension, over the range seen in training
    pq       m * nbits / 8                 the nearest of 2^nbits learned codewords in each of m subspaces
    rabitq   d / 8 + 8                     one bit a dimension of a random rotation, with an unbiased distance estimate
    binary   d / 8                         one bit a dimension of a random rotation: which side of the median

All of them only rank candidates: the engine scores ``oversampling * limit`` of them from the full vectors, which stay
on disk. ``rescore=False`` fetches no more candidates than are asked for; the scores of hits are exact all the same.

Default oversamplings, by measurement: share of the 10 truly nearest among so many candidates of a full scan, of 20,000
real text embeddings (384 dimensions, cosine), of 100,000 made from them by noise, and of 5,000 handwritten digits (784,
l2). Codes of one bit need hundreds of dimensions.

    kind     candidates    20,000   100,000   digits
    fp16     10            1.000    1.000     1.000
    sq8      24            1.000    0.999     1.000
    pq       84            0.997    0.987     1.000    48 bytes a row (98); at nbits 4 scanned 10 times as fast
    rabitq   84            0.995    0.986     1.000
    binary   244           0.993    0.976     (cosine only)

Sources: Jégou et al. 2011, "Product Quantization for Nearest Neighbor Search" (pq); Gao & Long 2024, "RaBitQ:
Quantizing High-Dimensional Vectors with a Theoretical Error Bound" (rabitq).
"""

from __future__ import annotations

from collections.abc import Mapping

from vectordb.errors import InvalidArgument
from vectordb.index.base import Parameter
from vectordb.index.parameters import checked
from vectordb.types import QuantizationSpec

NONE = "none"
"""Names no quantization where leaving it out means "as it is" (``reindex``)."""

_BITS_PER_DIMENSION = 1
"""Bits a dimension that product quantization takes by default: 48 bytes a row of 384."""


def _shared(oversampling: float) -> dict[str, Parameter]:
    return {
        "rescore": Parameter(bool, True, help="fetch more candidates than asked for, and score them from full vectors"),
        "oversampling": Parameter(float, oversampling, 1.0, 100.0, "candidates fetched for each row asked for"),
    }


QUANTIZATIONS: Mapping[str, Mapping[str, Parameter]] = {
    "fp16": _shared(1.0),
    "sq8": _shared(2.0),
    "pq": {
        "m": Parameter(int, 0, 0, 65_536, "bytes a row at 8 bits: subspaces, a divisor of dim; 0 chooses"),
        "nbits": Parameter(int, 8, 4, 8, "bits a subspace, 4 or 8"),
        **_shared(8.0),
    },
    "rabitq": _shared(8.0),
    "binary": _shared(24.0),
}


def resolve(spec: QuantizationSpec, dim: int) -> QuantizationSpec:
    """The quantization with all its parameters, checked against the dimension.

    Raises:
        InvalidArgument: Unknown kind or parameter, or a value that cannot be; the message names those that can.
    """
    known = QUANTIZATIONS.get(spec.kind)
    if known is None:
        names = ", ".join(repr(n) for n in QUANTIZATIONS)
        raise InvalidArgument(f"unknown quantization {spec.kind!r}; choose one of {names}", field="quantization")
    params = checked(f"quantization {spec.kind!r}", known, spec.params, "", fill=True)
    if spec.kind == "pq":
        params["m"] = subspaces(int(params["m"]), dim, int(params["nbits"]))
    if not params["rescore"]:
        params["oversampling"] = 1.0
    return QuantizationSpec(spec.kind, params)


def subspaces(m: int, dim: int, nbits: int) -> int:
    """The number of subspaces of product quantization; 0 chooses what takes one bit a dimension.

    Raises:
        InvalidArgument: ``nbits`` is neither 4 nor 8, or ``m`` does not divide ``dim``.
    """
    if nbits not in (4, 8):
        raise InvalidArgument(f"parameter 'nbits' of product quantization is 4 or 8, got {nbits}", field="nbits")
    divisors = [n for n in range(1, dim + 1) if dim % n == 0]
    if m == 0:
        return min(divisors, key=lambda n: (abs(n - dim * _BITS_PER_DIMENSION / nbits), n))
    if m not in divisors:
        near = sorted(sorted(divisors, key=lambda n: abs(n - m))[:4])
        raise InvalidArgument(
            f"parameter 'm' of product quantization divides dim = {dim}, got {m}; near it are "
            + ", ".join(map(str, near)),
            field="m",
        )
    return m
