"""Any endpoint that speaks the OpenAI embeddings protocol: a cloud, vLLM, Ollama, llama.cpp, ..."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vectordb.errors import DimensionMismatch, InvalidArgument
from vectordb_client.rag import extras
from vectordb_client.rag.arguments import number, whole
from vectordb_client.rag.batches import batched
from vectordb_client.rag.embedding.tokens import Pieces
from vectordb_client.rag.embedding.vectors import vectors_of
from vectordb_client.rag.llm.failures import out_of_time, translated
from vectordb_client.rag.llm.pump import Pump
from vectordb_client.transport.retry import Clock

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEFAULT_MAX_TOKENS = 512
"""What nearly every embedding model takes; most cut longer texts off without a word."""


class OpenAIEmbedder:
    """A model behind an OpenAI-compatible endpoint, through the ``openai`` package, which retries. Thread-safe.

    Args:
        model: The model's name at the endpoint.
        base_url: Such as ``http://localhost:11434/v1`` (Ollama); by default ``OPENAI_BASE_URL`` or OpenAI's own.
        api_key: By default ``OPENAI_API_KEY``; local servers take any.
        dimensions: Length of the vectors to ask for, where the model can shorten them.
        max_tokens: What the model takes (8192 for OpenAI's): chunks are made to fit.
        query_prompt, document_prompt: Put before every text, such as ``"query: "`` and ``"passage: "`` for E5.
        tokenizer: From a text to the spans of its tokens, int64[n, 2]; without it tokens are estimated from above.
        batch_size: Texts of one request.
        timeout: Seconds of one request.
        retries: Repetitions of a request that failed on its way or was limited.

    Raises:
        FailedPrecondition: The package is not installed.
        InvalidArgument: A number is out of range.

    Calls raise ``Unavailable``, ``DeadlineExceeded``, ``ResourceExhausted``, ``Unauthenticated``,
    ``PermissionDenied``, ``NotFound``, ``InvalidArgument`` as the endpoint fails or refuses.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        dimensions: int | None = None,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        query_prompt: str = "",
        document_prompt: str = "",
        tokenizer: Callable[[str], NDArray[np.int64]] | None = None,
        batch_size: int = 64,
        timeout: float = 60.0,
        retries: int = 2,
    ) -> None:
        self._openai = extras.load("openai", "llm", "an OpenAI-compatible endpoint")
        if not isinstance(model, str) or not model:
            raise InvalidArgument(f"model is a string that is not empty, got {model!r:.60}", field="model")
        self._batch_size = whole("batch_size", batch_size, 1)
        self._timeout = number("timeout", timeout, "is seconds greater than 0", math.ulp(0.0))
        max_tokens, retries = whole("max_tokens", max_tokens, 1), whole("retries", retries, 0)
        dimensions = None if dimensions is None else whole("dimensions", dimensions, 1)
        # The package insists on a key; local servers do not look at it.
        key = api_key or os.environ.get("OPENAI_API_KEY") or "none"
        self._client = self._openai.OpenAI(base_url=base_url, api_key=key, timeout=self._timeout, max_retries=retries)
        self._model = model
        self._dimensions, self._dim = dimensions, dimensions
        self._prompts = (document_prompt, query_prompt)
        self._tokenizer = tokenizer
        self._pieces = Pieces(max_tokens)
        self._max_tokens = max_tokens
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        return self._model

    @property
    def revision(self) -> str:
        """Empty: endpoints do not tell. The stored probe tells models apart."""
        return ""

    @property
    def dim(self) -> int:
        """Found out by embedding one text where ``dimensions`` does not say."""
        with self._lock:
            if self._dim is None:
                self._dim = self._request(["dimension"]).shape[1]
            return self._dim

    @property
    def max_tokens(self) -> int | None:
        """In the tokenizer's tokens where one was given, else in pieces that bound them; the longer prompt left out."""
        longest = max(len(self.token_spans(prompt)) for prompt in self._prompts)
        limit = self._max_tokens if self._tokenizer is not None else self._pieces.max_tokens
        return max(1, (limit or self._max_tokens) - longest)

    def token_spans(self, text: str) -> NDArray[np.int64]:
        """The spans of the text's tokens, or of pieces: int64[n, 2]."""
        return self._pieces.token_spans(text) if self._tokenizer is None else self._tokenizer(text)

    def embed_documents(self, texts: Sequence[str], timeout: float | None = None) -> NDArray[np.float32]:
        """Vectors of texts that are searched: float32[n, dim]; within ``timeout`` seconds, retries included."""
        return self._embed(texts, self._prompts[0], timeout)

    def embed_queries(self, texts: Sequence[str], timeout: float | None = None) -> NDArray[np.float32]:
        """Vectors of texts to search with: float32[n, dim]; likewise."""
        return self._embed(texts, self._prompts[1], timeout)

    def _embed(self, texts: Sequence[str], prompt: str, timeout: float | None) -> NDArray[np.float32]:
        """Batches of texts of similar length, so that an endpoint that pads wastes little; in the order given."""
        clock = Clock(timeout)
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        for rows in batched(order, self._batch_size):
            found = self._request([prompt + texts[row] for row in rows], clock)
            if found.shape[1] != vectors.shape[1]:
                raise DimensionMismatch(
                    f"{self._model!r} returned vectors of {found.shape[1]} numbers, before it was {vectors.shape[1]}",
                    expected=vectors.shape[1],
                    got=found.shape[1],
                )
            vectors[rows] = found
        return vectors

    def _request(self, texts: list[str], clock: Clock | None = None) -> NDArray[np.float32]:
        address = str(self._client.base_url)
        try:
            answer = self._answer(texts, clock)
        except TimeoutError:
            assert clock is not None
            raise out_of_time(self._model, address, clock.timeout, "") from None
        except Exception as error:  # also of what reads the answer: an endpoint may send anything
            raise translated(self._openai, error, self._model, address, "", self._timeout) from error
        data = getattr(answer, "data", None)
        if not isinstance(data, list) or len(data) != len(texts):
            got = len(data) if isinstance(data, list) else 0
            raise InvalidArgument(
                f"{self._model!r} at {address} returned {got} vectors for {len(texts)} texts: {answer!r:.200}; "
                "is it an embedding model?",
                got=got,
                expected=len(texts),
            )
        if all(isinstance(row.index, int) for row in data):  # else they are in the order of the texts
            data = sorted(data, key=lambda row: row.index)
        return vectors_of([row.embedding for row in data], len(texts), self._model)

    def _answer(self, texts: list[str], clock: Clock | None) -> Any:
        options: dict[str, Any] = {} if self._dimensions is None else {"dimensions": self._dimensions}
        options |= {"model": self._model, "input": texts, "encoding_format": "float"}
        if clock is None or (left := clock.remaining()) is None:
            return self._client.embeddings.create(**options)
        # The package bounds each attempt, and of it each wait: only the caller's clock bounds all together.
        within = min(left, self._timeout)
        with Pump(lambda: [self._client.embeddings.create(**options, timeout=within)]) as pump:
            return next(pump.items(clock))
