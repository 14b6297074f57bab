"""Bare libraries, called as directly as Python can: the limits. Nothing durable, filters as ready bitmaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.compare.arena import Rows, Where
from bench.compare.peers.base import EF_CONSTRUCTION, Ground, M, Peer, Search


class _Raw(Peer):
    """Rows gathered while they are written, then one build."""

    can_filter = False
    can_delete = False
    can_write_beside = False

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._parts: list[Any] = []
        self._index: Any = None
        self._file = ground.folder / "index"

    def create(self) -> None:
        self.ground.folder.mkdir(parents=True, exist_ok=True)

    def write(self, rows: Rows) -> None:
        self._parts.append(rows.vectors)

    def _vectors(self) -> Any:
        vectors = np.concatenate(self._parts)
        self._parts.clear()
        return vectors

    def close(self) -> None:
        self._index = None


class FaissHalf(_Raw):
    """faiss ``IndexHNSWSQ`` of half precision; saved, and mapped when opened again."""

    precision: ClassVar[str] = "fp16"
    can_filter = True
    build: ClassVar[dict[str, Any]] = {"m": M, "ef_construction": EF_CONSTRUCTION, "precision": "fp16"}

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        import faiss

        self._faiss: Any = faiss
        self._parameters: dict[tuple[int, int], Any] = {}

    def finish(self) -> None:
        faiss, dim = self._faiss, self.ground.dim
        metric = faiss.METRIC_L2 if self.ground.metric == "l2" else faiss.METRIC_INNER_PRODUCT
        if self.precision == "f32":
            index = faiss.IndexHNSWFlat(dim, M, metric)
        else:
            index = faiss.IndexHNSWSQ(dim, self._coded(), M, metric)
        index.hnsw.efConstruction = EF_CONSTRUCTION
        faiss.omp_set_num_threads(self.ground.threads)
        vectors = self._kept(self._vectors())
        index.train(vectors)
        index.add(vectors)
        faiss.write_index(index, str(self._file))
        faiss.omp_set_num_threads(1)
        self._index = index

    def reopen(self) -> None:
        self._faiss.omp_set_num_threads(1)
        self._index = self._faiss.read_index(str(self._file), self._faiss.IO_FLAG_MMAP_IFC)

    def filter(self, where: Where, mask: Any) -> Any:
        bits = np.packbits(mask, bitorder="little")
        # The selector points into `bits`: it must live as long.
        return self._faiss.IDSelectorBitmap(len(mask), self._faiss.swig_ptr(bits)), bits

    def _search_parameters(self, search: Search) -> Any:
        key = (search.width, id(search.where))
        if key not in self._parameters:
            parameters = self._faiss.SearchParametersHNSW(efSearch=search.width)
            if search.where is not None:
                parameters.sel = search.where[0]
            self._parameters[key] = parameters
        return self._parameters[key]

    def search(self, search: Search) -> Any:
        return self._index.search(
            self._asked(search.vector[None]), self.ground.limit, params=self._search_parameters(search)
        )[1][0]

    def search_batch(self, searches: Sequence[Search]) -> Any:
        vectors = np.stack([search.vector for search in searches])
        self._faiss.omp_set_num_threads(self.ground.threads)
        found = self._index.search(
            self._asked(vectors), self.ground.limit, params=self._search_parameters(searches[0])
        )[1]
        self._faiss.omp_set_num_threads(1)
        return list(found)

    def _coded(self) -> Any:
        return self._faiss.ScalarQuantizer.QT_fp16

    def _kept(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows as faiss is to be given them."""
        return vectors

    def _asked(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Queries likewise."""
        return queries

    def rows(self, answer: Any) -> list[int]:
        return [row for row in answer.tolist() if row >= 0]


class FaissBytes(FaissHalf):
    """faiss ``IndexHNSWSQ`` of bytes: it ranks by products of bytes, and nothing is rescored."""

    precision = "int8"
    build: ClassVar[dict[str, Any]] = {"m": M, "ef_construction": EF_CONSTRUCTION, "precision": "int8"}

    _scale = np.float32(1.0)

    def _coded(self) -> Any:
        return self._faiss.ScalarQuantizer.QT_8bit_direct_signed

    def _kept(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        self._scale = np.float32(127.0 / np.abs(vectors).max())
        np.save(self._file.with_suffix(".npy"), self._scale)
        return np.rint(vectors * self._scale)

    def reopen(self) -> None:
        super().reopen()
        self._scale = np.float32(np.load(self._file.with_suffix(".npy")))

    def _asked(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        # It compares bytes with bytes, and would cut fractions off.
        return np.rint(queries * self._scale)


class FaissFull(FaissHalf):
    """faiss ``IndexHNSWFlat``."""

    precision = "f32"
    build: ClassVar[dict[str, Any]] = {"m": M, "ef_construction": EF_CONSTRUCTION, "precision": "f32"}


class FaissExact(FaissHalf):
    """faiss ``IndexFlat``: exact search, under a filter over the matching rows gathered beforehand. f32."""

    width = ""
    build: ClassVar[dict[str, Any]] = {"index": "none, brute force", "precision": "f32"}

    def finish(self) -> None:
        self._index = self._flat(self._vectors())
        self._faiss.write_index(self._index, str(self._file))
        self._faiss.omp_set_num_threads(1)

    def _flat(self, vectors: Any) -> Any:
        metric = self._faiss.METRIC_L2 if self.ground.metric == "l2" else self._faiss.METRIC_INNER_PRODUCT
        index = self._faiss.IndexFlat(self.ground.dim, metric)
        index.add(vectors)
        return index

    def filter(self, where: Where, mask: Any) -> Any:
        numbers = np.flatnonzero(mask)
        return self._flat(self._index.reconstruct_batch(numbers)), numbers

    def search(self, search: Search) -> Any:
        if search.where is None:
            return self._index.search(search.vector[None], self.ground.limit)[1][0]
        index, numbers = search.where
        return numbers[index.search(search.vector[None], min(self.ground.limit, len(numbers)))[1][0]]

    def search_batch(self, searches: Sequence[Search]) -> Any:
        self._faiss.omp_set_num_threads(self.ground.threads)
        found = self._index.search(np.stack([search.vector for search in searches]), self.ground.limit)[1]
        self._faiss.omp_set_num_threads(1)
        return list(found)


class Hnswlib(_Raw):
    """hnswlib; its filter is a Python call a visited node, which is no limit of anything: left out."""

    def _new(self) -> Any:
        import hnswlib

        space = {"cosine": "ip", "dot": "ip", "l2": "l2"}[self.ground.metric]
        return hnswlib.Index(space=space, dim=self.ground.dim)

    def finish(self) -> None:
        vectors = self._vectors()
        self._index = self._new()
        self._index.init_index(max_elements=len(vectors), M=M, ef_construction=EF_CONSTRUCTION)
        self._index.add_items(vectors, num_threads=self.ground.threads)
        self._index.save_index(str(self._file))

    def reopen(self) -> None:
        self._index = self._new()
        self._index.load_index(str(self._file))

    def search(self, search: Search) -> Any:
        self._index.set_ef(search.width)
        return self._index.knn_query(search.vector, k=self.ground.limit, num_threads=1)[0][0]

    def search_batch(self, searches: Sequence[Search]) -> Any:
        self._index.set_ef(searches[0].width)
        vectors = np.stack([search.vector for search in searches])
        return list(self._index.knn_query(vectors, k=self.ground.limit, num_threads=self.ground.threads)[0])

    def rows(self, answer: Any) -> list[int]:
        return [int(row) for row in answer]


class Usearch(_Raw):
    """usearch of half precision (bf16)."""

    width = "expansion_search"
    build: ClassVar[dict[str, Any]] = {"connectivity": M, "expansion_add": EF_CONSTRUCTION, "dtype": "bf16"}

    def _new(self) -> Any:
        from usearch.index import Index

        metric = {"cosine": "ip", "dot": "ip", "l2": "l2sq"}[self.ground.metric]
        return Index(ndim=self.ground.dim, metric=metric, dtype="bf16", connectivity=M, expansion_add=EF_CONSTRUCTION)

    def finish(self) -> None:
        vectors = self._vectors()
        self._index = self._new()
        self._index.add(np.arange(len(vectors), dtype=np.uint64), vectors, threads=self.ground.threads)
        self._index.save(str(self._file))

    def reopen(self) -> None:
        self._index = self._new()
        self._index.view(str(self._file))

    def search(self, search: Search) -> Any:
        self._index.expansion_search = search.width
        return self._index.search(search.vector, self.ground.limit, threads=1).keys

    def search_batch(self, searches: Sequence[Search]) -> Any:
        self._index.expansion_search = searches[0].width
        vectors = np.stack([search.vector for search in searches])
        return list(self._index.search(vectors, self.ground.limit, threads=self.ground.threads).keys)

    def rows(self, answer: Any) -> list[int]:
        return [int(row) for row in answer]


class Svs(_Raw):
    """Intel SVS: Vamana of half precision. Source: Subramanya et al. 2019 (DiskANN); LVQ refuses other processors."""

    width = "search_window_size"
    build: ClassVar[dict[str, Any]] = {"graph_max_degree": 2 * M, "window_size": EF_CONSTRUCTION, "precision": "f16"}

    def finish(self) -> None:
        import svs

        vectors = self._vectors()
        distance = svs.DistanceType.L2 if self.ground.metric == "l2" else svs.DistanceType.MIP
        parameters = svs.VamanaBuildParameters(
            graph_max_degree=2 * M, window_size=EF_CONSTRUCTION, alpha=1.2 if self.ground.metric == "l2" else 0.95
        )
        self._index = svs.Vamana.build(
            parameters, vectors.astype(np.float16), distance, num_threads=self.ground.threads
        )
        self._file.mkdir(exist_ok=True)
        self._index.save(str(self._file / "config"), str(self._file / "graph"), str(self._file / "data"))

    def reopen(self) -> None:
        import svs

        distance = svs.DistanceType.L2 if self.ground.metric == "l2" else svs.DistanceType.MIP
        data = svs.VectorDataLoader(str(self._file / "data"), svs.DataType.float16)
        self._index = svs.Vamana(
            str(self._file / "config"), svs.GraphLoader(str(self._file / "graph")), data, distance,
            num_threads=self.ground.threads,
        )  # fmt: skip

    def _set(self, width: int, threads: int) -> None:
        if self._index.search_window_size != width:
            self._index.search_window_size = width
        if self._index.num_threads != threads:
            self._index.num_threads = threads

    def search(self, search: Search) -> Any:
        self._set(search.width, 1)
        return self._index.search(search.vector[None].astype(np.float16), self.ground.limit)[0][0]

    def search_batch(self, searches: Sequence[Search]) -> Any:
        self._set(searches[0].width, self.ground.threads)
        vectors = np.stack([search.vector for search in searches]).astype(np.float16)
        return list(self._index.search(vectors, self.ground.limit)[0])

    def rows(self, answer: Any) -> list[int]:
        return [int(row) for row in answer]


class Scann(_Raw):
    """ScaNN: leaves, anisotropic codes, exact rescoring. Source: Guo et al. 2020. Built as its guide advises."""

    width = "leaves_to_search"
    widths = (1, 1_000)
    build: ClassVar[dict[str, Any]] = {"num_leaves": "sqrt(n)", "dims_per_block": 2, "reorder": 100}

    def finish(self) -> None:
        from scann import scann_ops_pybind as scann

        vectors = self._vectors()
        leaves = max(1, int(np.sqrt(len(vectors))))
        distance = "squared_l2" if self.ground.metric == "l2" else "dot_product"
        builder = scann.builder(vectors, self.ground.limit, distance).set_n_training_threads(self.ground.threads)
        self._index = (
            builder.tree(num_leaves=leaves, num_leaves_to_search=leaves // 10 + 1, training_sample_size=100_000)
            .score_ah(2, anisotropic_quantization_threshold=0.2)
            .reorder(100)
            .build()
        )
        self._index.set_num_threads(self.ground.threads)
        self._file.mkdir(exist_ok=True)
        self._index.serialize(str(self._file))

    def reopen(self) -> None:
        from scann import scann_ops_pybind as scann

        self._index = scann.load_searcher(str(self._file))

    def search(self, search: Search) -> Any:
        return self._index.search(search.vector, self.ground.limit, leaves_to_search=search.width)[0]

    def search_batch(self, searches: Sequence[Search]) -> Any:
        vectors = np.stack([search.vector for search in searches])
        found = self._index.search_batched_parallel(
            vectors, self.ground.limit, leaves_to_search=searches[0].width, batch_size=64
        )
        return list(found[0])

    def rows(self, answer: Any) -> list[int]:
        return [int(row) for row in answer]
