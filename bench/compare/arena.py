"""The ground that all systems stand on: rows, columns, queries, filters and exact truth as files that processes share.

An arena is a folder in the cache, made once for each data set, number of rows and limit; truth is exact search in
blocks, so that ten million rows need no more memory than a block.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from bench.datasets import SHARES, U_RANGE, load
from bench.generated import CHUNK, Generator, Shape, intrinsic_dimension

Array = NDArray[Any]

ALL = "none"
LIVING = "deleted 10%"
"""Not a filter: what there is to find once a tenth of the rows is deleted."""

_BLOCK = 16_384
_VERSION = 1


class Where(NamedTuple):
    """A filter that every system can say: ``<`` with an integer or ``==`` with a string."""

    name: str
    field: str
    op: str
    value: int | str

    def mask(self, column: Array) -> Array:
        """bool[n] over the rows."""
        found: Array = column < self.value if self.op == "<" else column == self.value
        return found


class Rows(NamedTuple):
    """A batch to store: row numbers, vectors float32[n, d], one map of metadata a row."""

    numbers: list[int]
    vectors: Array
    metadata: list[dict[str, Any]]


@dataclass(frozen=True)
class Arena:
    """Opened files; every array is mapped, nothing is read before it is used. Safe to open from many processes."""

    folder: Path

    @cached_property
    def about(self) -> dict[str, Any]:
        """``name, real, metric, shape, limit, conditions`` and what else is known of the set."""
        found: dict[str, Any] = json.loads((self.folder / "about.json").read_text())
        return found

    @cached_property
    def base(self) -> Array:
        found: Array = np.load(self.folder / "base.npy", mmap_mode="r")
        return found

    @cached_property
    def queries(self) -> Array:
        found: Array = np.load(self.folder / "queries.npy")
        return found

    @cached_property
    def columns(self) -> dict[str, Array]:
        """Metadata by field: int64[n] or str[n]."""
        with np.load(self.folder / "columns.npz") as file:
            return dict(file)

    @cached_property
    def conditions(self) -> dict[str, Where]:
        return {one["name"]: Where(**one) for one in self.about["conditions"]}

    @cached_property
    def _truth(self) -> dict[str, Array]:
        with np.load(self.folder / "truth.npz") as file:
            return dict(file)

    def truth(self, condition: str) -> Array:
        """The exact nearest rows of each query, best first: int64[q, min(limit, matches)]."""
        return self._truth[condition]

    def mask(self, condition: str) -> Array:
        where = self.conditions[condition]
        return where.mask(self.columns[where.field])

    def rows(self, start: int, stop: int) -> Rows:
        """A batch of rows, copied out of the mapping."""
        stop = min(stop, len(self.base))
        names = list(self.columns)
        values = zip(*(self.columns[name][start:stop].tolist() for name in names), strict=True)
        metadata = [dict(zip(names, row, strict=True)) for row in values]
        return Rows(list(range(start, stop)), np.array(self.base[start:stop]), metadata)

    def more(self, start: int, count: int) -> Rows:
        """Rows that are not in the set, to be written beside searches: copies with noise, numbered from its end on."""
        begin = (start * 7) % max(1, len(self.base) - count)
        rows = self.rows(begin, begin + count)
        rng = np.random.default_rng([17, start])
        vectors = rows.vectors
        noise = rng.standard_normal(vectors.shape, dtype=np.float32) * np.float32(0.5 / np.sqrt(vectors.shape[1]))
        vectors = vectors + noise * np.linalg.norm(vectors, axis=1, keepdims=True)
        if self.about["metric"] == "cosine":
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        first = len(self.base) + start
        return Rows(list(range(first, first + len(vectors))), vectors, rows.metadata)


def deleted(rows: int) -> Array:
    """The tenth of the rows that is deleted: sorted row numbers."""
    chosen: Array = np.sort(np.random.default_rng(13).permutation(rows)[: rows // 10])
    return chosen


def prepare(name: str, rows: int | None, queries: int, limit: int, cache: Path) -> Arena:
    """The arena of a data set, from the cache or made now.

    Args:
        name: As for ``bench.datasets.load``, or ``generated[:field=value,...]`` as in :class:`bench.generated.Shape`.
        rows: Only so many.

    Raises:
        SystemExit: The data is not here; the text says what to do.
    """
    generated = name.partition(":")[0] == "generated"
    shape = Shape.parse(name.partition(":")[2]) if generated else None
    if shape is not None and rows is not None:
        shape = Shape(**{**shape.described(), "rows": rows})
    file = Path(name)
    stamp = [str(file.absolute()), file.stat().st_size, file.stat().st_mtime_ns] if file.is_file() else None
    key = json.dumps([_VERSION, name, rows, queries, limit, shape and shape.described(), stamp])
    label = "generated" if generated else file.stem
    folder = cache / "arenas" / f"{label}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    if not (folder / "about.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        print(f"preparing {name} in {folder}", flush=True)
        about = _generate(folder, shape, queries) if shape is not None else _copy(folder, name, rows, queries)
        _finish(folder, {**about, "limit": limit})
    return Arena(folder)


def _copy(folder: Path, name: str, rows: int | None, queries: int) -> dict[str, Any]:
    data = load(name, rows, queries)
    np.save(folder / "base.npy", data.base)
    np.save(folder / "queries.npy", data.queries)
    fields = {
        field: kind
        for field in data.metadata[0]
        for kind in (int, str)
        if all(type(row.get(field)) is kind for row in data.metadata)
    }
    columns = {field: np.array([row[field] for row in data.metadata]) for field in fields}
    np.savez(folder / "columns.npz", **columns)
    named = [Where(one.name, one.where["field"], one.where["op"], one.where["value"]) for one in data.conditions]
    return _about(data.name, data.real, data.metric, named)


def _generate(folder: Path, shape: Shape, queries: int) -> dict[str, Any]:
    generator = Generator(shape)
    base = open_memmap(folder / "base.npy", mode="w+", dtype=np.float32, shape=(shape.rows, shape.dim))
    topics, us = [], []
    for number in range(-(-shape.rows // CHUNK)):
        start = number * CHUNK
        vectors, topic, u = generator.chunk(number)
        base[start : start + CHUNK] = vectors[: shape.rows - start]
        topics.append(topic)
        us.append(u)
    base.flush()
    topic, u = np.concatenate(topics)[: shape.rows], np.concatenate(us)[: shape.rows]
    np.savez(folder / "columns.npz", topic=topic, u=u)
    np.save(folder / "queries.npy", generator.queries(queries))
    named = [Where(f"u {share:.1%}", "u", "<", int(share * U_RANGE)) for share in SHARES]
    # The topic whose share is nearest to 6 %, that of the real sets' correlated filter.
    names, counts = np.unique(topic, return_counts=True)
    chosen = int(np.argmin(np.abs(counts / shape.rows - 0.06)))
    named.append(Where(f"topic {counts[chosen] / shape.rows:.1%}, correlated", "topic", "==", str(names[chosen])))
    about = _about("generated", False, "cosine", named)
    return {**about, "generated": {**shape.described(), "two_nn_dimension": intrinsic_dimension(base)}}


def _about(name: str, real: bool, metric: str, conditions: list[Where]) -> dict[str, Any]:
    return {"name": name, "real": real, "metric": metric, "conditions": [one._asdict() for one in conditions]}


def _finish(folder: Path, about: dict[str, Any]) -> None:
    """Truth of all filters; ``about.json`` is written last and says that the arena is whole."""
    base = np.load(folder / "base.npy", mmap_mode="r")
    queries = np.load(folder / "queries.npy")
    with np.load(folder / "columns.npz") as file:
        columns = dict(file)
    masks = {one["name"]: Where(**one).mask(columns[one["field"]]) for one in about["conditions"]}
    masks = {name: mask for name, mask in masks.items() if mask.any()}
    conditions = [one for one in about["conditions"] if one["name"] in masks]
    matches = {name: int(mask.sum()) for name, mask in masks.items()}
    masks[ALL] = np.ones(len(base), dtype=bool)
    masks[LIVING] = masks[ALL].copy()
    masks[LIVING][deleted(len(base))] = False
    np.savez(folder / "truth.npz", **exact(base, queries, about["limit"], about["metric"], masks))
    about |= {"shape": list(base.shape), "conditions": conditions, "matches": matches}
    part = folder / "about.json.part"
    part.write_text(json.dumps(about, indent=1))
    part.replace(folder / "about.json")


def exact(base: Array, queries: Array, limit: int, metric: str, masks: Mapping[str, Array]) -> dict[str, Array]:
    """Exact nearest rows of each query among the rows of each mask, best first: int64[q, min(limit, matches)]."""
    rows = {name: np.full((len(queries), limit), -1, dtype=np.int64) for name in masks}
    far = {name: np.full((len(queries), limit), np.inf) for name in masks}
    for start in range(0, len(base), _BLOCK):
        block = np.asarray(base[start : start + _BLOCK], dtype=np.float32)
        distance = -(queries @ block.T).astype(np.float64)
        if metric == "l2":
            distance = 2.0 * distance + np.einsum("nd,nd->n", block, block, dtype=np.float64)
        for name, mask in masks.items():
            inside = np.flatnonzero(mask[start : start + _BLOCK])
            if not len(inside):
                continue
            narrowed = distance if len(inside) == len(block) else distance[:, inside]
            near = _smallest(narrowed, limit)
            both = np.concatenate([far[name], np.take_along_axis(narrowed, near, axis=1)], axis=1)
            numbers = np.concatenate([rows[name], start + inside[near]], axis=1)
            order = np.argsort(both, axis=1, kind="stable")[:, :limit]
            far[name] = np.take_along_axis(both, order, axis=1)
            rows[name] = np.take_along_axis(numbers, order, axis=1)
    return {name: found[:, : min(limit, int(masks[name].sum()))] for name, found in rows.items()}


def _smallest(values: Array, limit: int) -> Array:
    if values.shape[1] <= limit:
        return np.broadcast_to(np.arange(values.shape[1]), values.shape)
    found: Array = np.argpartition(values, limit - 1, axis=1)[:, :limit]
    return found
