"""A distribution of its own with the index kind ``slow``: exact, but its builds take as long as a test wants.

With a ``gate``, a folder, each build waits until it can take a file out of it. ``BUILDS`` has what was asked for.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from vectordb.index.base import BuildCancelled, BuildOptions, Capabilities, Parameter
from vectordb.index.flat import FLAT, FlatIndex
from vectordb.metric import Metric


class Build(NamedTuple):
    """One call of ``build``: rows, parameters, quantization and trained file of the options."""

    rows: int
    params: dict[str, Any]
    quantization: str | None
    trained: Path | None


BUILDS: list[Build] = []


class SlowIndex(FlatIndex):
    """A flat index that is said to take one byte a number."""

    def memory_bytes(self) -> int:
        return int(self._vectors.size)


class SlowKind:
    """The kind ``slow``."""

    name = "slow"
    capabilities = Capabilities(
        family="slow",
        metrics=frozenset(Metric),
        quantizations={"sq8": frozenset(Metric)},
        filtered=True,
        build_params={
            "gate": Parameter(str, "", help="folder to take a file out of before each build"),
            "seconds": Parameter(float, 0.0, 0.0, 3600.0, "how long a build takes at least"),
            "fails": Parameter(bool, False, help="whether builds fail"),
            "tag": Parameter(int, 0, help="makes two equal choices different"),
        },
    )

    def build(self, vectors: Any, metric: Metric, options: BuildOptions) -> SlowIndex:
        params = options.params
        kind = None if options.quantization is None else options.quantization.kind
        BUILDS.append(Build(len(vectors), dict(params), kind, options.trained))
        if options.trained is not None:
            options.trained.read_bytes()
        end = time.monotonic() + float(params["seconds"])
        while True:
            options.progress(0.5)
            if options.cancelled():
                raise BuildCancelled
            if time.monotonic() >= end and _passed(str(params["gate"])):
                break
            time.sleep(0.002)
        if params["fails"]:
            raise RuntimeError("no such luck")
        return self._of(FLAT.build(vectors, metric, replace(options, quantization=None)))

    def load(self, path: Path, vectors: Any, metric: Metric, options: BuildOptions) -> SlowIndex:
        return self._of(FLAT.load(path, vectors, metric, replace(options, quantization=None)))

    @staticmethod
    def _of(index: FlatIndex) -> SlowIndex:
        return SlowIndex(index._vectors, index._metric, index._max_norm)


def _passed(gate: str) -> bool:
    if not gate:
        return True
    for name in os.listdir(gate):
        try:
            os.unlink(os.path.join(gate, name))
        except FileNotFoundError:
            continue
        return True
    return False


SLOW = SlowKind()
