"""A child process of ``bench indexes``: opens a folder, searches it, and prints what memory that took, as JSON."""

from __future__ import annotations

import json
import os
import sys

import numpy as np

import vectordb.engine.database
import vectordb.index.faiss_hnsw  # noqa: F401 - the libraries are there before, and are not counted
from bench.systems.base import memory
from bench.systems.engine import COLLECTION
from vectordb_client import connect


def main() -> None:
    """``python -m bench.resident FOLDER QUERIES.npy``."""
    folder, queries = sys.argv[1], np.load(sys.argv[2])
    before = memory(os.getpid())
    with connect(folder) as db:
        collection = db.collection(COLLECTION)
        for query in queries:
            collection.search(query, include=())
        after = memory(os.getpid())
    print(json.dumps({name: after[name] - before[name] for name in after}))


if __name__ == "__main__":
    main()
