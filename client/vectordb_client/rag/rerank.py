"""Reranking: a second, slower model reads question and passage together. The seam, and cross-encoders behind it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from vectordb.errors import DeadlineExceeded
from vectordb_client.rag import extras
from vectordb_client.rag.arguments import whole
from vectordb_client.rag.batches import batched
from vectordb_client.transport.retry import Clock


@runtime_checkable
class Reranker(Protocol):
    """Judges passages. Implementations are thread-safe.

    Attributes:
        name: The model's name; part of an answer's configuration fingerprint.
    """

    @property
    def name(self) -> str: ...

    def scores(self, question: str, texts: Sequence[str], timeout: float | None = None) -> Sequence[float]:
        """How well each text answers the question, higher is better; on any scale.

        Raises:
            DeadlineExceeded: ``timeout`` seconds are over.
        """
        ...


class CrossEncoderReranker:
    """A cross-encoder of the ``sentence-transformers`` package. Thread-safe: calls take turns.

    Source: Nogueira & Cho 2019 (passage re-ranking with BERT).

    Args:
        model: A ``CrossEncoder``, or the name or folder of one.
        batch_size: Pairs judged at a time; the deadline is looked at between.
        **options: For ``CrossEncoder``, such as ``device``, where a name is given.

    Raises:
        FailedPrecondition: A name was given and the package is not installed.
    """

    def __init__(self, model: Any, *, batch_size: int = 16, **options: Any) -> None:
        self._name = model if isinstance(model, str) else ""
        if isinstance(model, str):
            model = extras.load("sentence_transformers", "embed", "a cross-encoder").CrossEncoder(model, **options)
        self._model = model
        self._batch_size = whole("batch_size", batch_size, 1)
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        return self._name or str(getattr(self._model.config, "_name_or_path", "") or type(self._model).__name__)

    def scores(self, question: str, texts: Sequence[str], timeout: float | None = None) -> list[float]:
        """The model's scores, one a text, as it gives them."""
        clock, found = Clock(timeout), list[float]()
        for batch in batched(texts, self._batch_size):
            if clock.remaining() == 0.0:
                raise DeadlineExceeded(
                    f"reranking judged {len(found)} of {len(texts)} passages in {timeout} s; give it fewer candidates "
                    "or a longer timeout",
                    timeout=timeout,
                )
            with self._lock:
                judged = self._model.predict(
                    [(question, text) for text in batch], batch_size=self._batch_size, show_progress_bar=False
                )
            found.extend(np.asarray(judged, dtype=np.float64).reshape(len(batch), -1)[:, -1].tolist())
        return found
