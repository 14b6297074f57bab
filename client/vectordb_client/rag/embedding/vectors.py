"""What embedding models return, checked: whatever a user's function gives back becomes vectors or one clear error."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from vectordb.errors import DimensionMismatch, InvalidArgument

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb_client.rag.embedding.base import Embedder


def vectors_of(answer: Any, count: int, name: str) -> NDArray[np.float32]:
    """A model's answer for ``count`` texts as float32[count, dim].

    Raises:
        InvalidArgument: It is something else; the message says what came back and what is wanted.
    """
    if inspect.iscoroutine(answer):
        answer.close()
        _refuse(name, count, "a coroutine (give a function that is not async; asyncio.run may call yours)")
    try:
        array = np.asarray(answer)
    except Exception as error:  # ragged lists, arrays on another device, ...
        _refuse(name, count, f"{_shown(answer)} that is no array ({error})", error)
    if array.dtype.kind not in "fiu":
        what = _shown(answer) if array.dtype.kind == "O" else f"{_shown(answer)} of {array.dtype}"
        _refuse(name, count, what)
    if array.ndim != 2 or len(array) != count:
        _refuse(name, count, f"an array of shape {array.shape}")
    return array.astype(np.float32, copy=False)


def embedded_documents(embedder: Embedder, texts: Sequence[str], timeout: float | None = None) -> NDArray[np.float32]:
    """The vectors of texts that are searched: float32[n, dim].

    Raises:
        InvalidArgument: The embedder returned something else.
        DimensionMismatch: It returned another length than it promised.
    """
    found = embedded_within(embedder.embed_documents, texts, timeout)
    return promised(embedder, vectors_of(found, len(texts), embedder.name))


def embedded_queries(embedder: Embedder, texts: Sequence[str], timeout: float | None = None) -> NDArray[np.float32]:
    """The vectors of texts to search with; errors as :func:`embedded_documents`."""
    found = embedded_within(embedder.embed_queries, texts, timeout)
    return promised(embedder, vectors_of(found, len(texts), embedder.name))


def embedded_within(embed: Any, texts: Sequence[str], timeout: float | None) -> Any:
    """What a method of an embedder returns, told ``timeout`` where it takes one, as models behind a network do."""
    if timeout is not None:
        try:
            takes = "timeout" in inspect.signature(embed).parameters
        except (TypeError, ValueError):  # a function of C need not tell
            takes = False
        if takes:
            return embed(texts, timeout=timeout)
    return embed(texts)


def promised(embedder: Embedder, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vectors, where they have the embedder's length.

    Raises:
        DimensionMismatch: They have another.
    """
    if vectors.shape[1] != embedder.dim:
        raise DimensionMismatch(
            f"embedder {embedder.name!r} returned shape {vectors.shape} for {len(vectors)} texts, "
            f"it promised ({len(vectors)}, {embedder.dim})",
            expected=embedder.dim,
            got=vectors.shape[1],
        )
    return vectors


def _shown(answer: Any) -> str:
    if answer is None:
        return "None"
    kind = type(answer).__name__
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _refuse(name: str, count: int, what: str, cause: Exception | None = None) -> NoReturn:
    texts = "one text" if count == 1 else f"{count} texts"
    raise InvalidArgument(
        f"embedder {name!r} returned {what} for {texts}; a list of n texts becomes n rows of numbers, all of one "
        "length: a list of lists, or an array of shape (n, dim)",
        embedder=name,
        field="embedder",
    ) from cause
