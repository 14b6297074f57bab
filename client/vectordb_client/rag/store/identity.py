"""Which embedding model wrote a collection, and whether another one is the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vectordb.errors import InvalidArgument, ModelMismatch
from vectordb_client.rag.embedding.vectors import vectors_of

if TYPE_CHECKING:
    from vectordb_client.rag.embedding.base import Embedder

_PROBE = "The embedding of this sentence, as document and as query, tells two models apart."
_SAME = 0.99
"""Cosine of two probes of one model: other processors and other batch sizes change the last digits, not more."""
_DIGITS = 5


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """A model as it is stored beside its vectors.

    Attributes:
        normalized: Whether it returns vectors of unit length.
        probe: The vectors of one sentence as document and as query, one after the other, 2 * dim numbers, rounded.
    """

    name: str
    revision: str
    dim: int
    normalized: bool
    probe: tuple[float, ...]

    @property
    def probe_hash(self) -> str:
        """A short name of the probe, equal where it is equal to the digit."""
        return hashlib.sha256(np.asarray(self.probe, dtype=np.float64).tobytes()).hexdigest()[:12]

    def __str__(self) -> str:
        revision = f" revision {self.revision}" if self.revision else ""
        return f"{self.name!r}{revision}, dim {self.dim}, probe {self.probe_hash}"

    def same_as(self, other: ModelIdentity) -> bool:
        """Whether vectors of both may be compared with each other."""
        facts = ("name", "revision", "dim", "normalized")
        if any(getattr(self, fact) != getattr(other, fact) for fact in facts):
            return False
        ours, theirs = (np.asarray(identity.probe).reshape(2, -1) for identity in (self, other))
        lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        return bool(np.all((ours * theirs).sum(axis=1) >= _SAME * lengths))

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "name": self.name,
            "revision": self.revision,
            "dim": self.dim,
            "normalized": self.normalized,
            "probe": list(self.probe),
            "probe_hash": self.probe_hash,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> ModelIdentity:
        """What :meth:`to_json` made."""
        return cls(
            stored["name"], stored["revision"], stored["dim"], stored["normalized"], tuple(map(float, stored["probe"]))
        )


def identify(embedder: Embedder) -> ModelIdentity:
    """The identity of a model: embeds one sentence twice.

    Raises:
        InvalidArgument: It returns something else than one vector of its length without NaN.
    """
    methods = (embedder.embed_documents, embedder.embed_queries)
    vectors = [vectors_of(embed([_PROBE]), 1, embedder.name) for embed in methods]
    for vector in vectors:
        if vector.shape != (1, embedder.dim) or not np.isfinite(vector).all():
            raise InvalidArgument(
                f"embedder {embedder.name!r} says dim {embedder.dim}, but one text became an array of shape "
                f"{vector.shape}{'' if np.isfinite(vector).all() else ' with NaN or infinity'}",
                embedder=embedder.name,
            )
    probe = np.concatenate(vectors, axis=None).astype(np.float64)
    lengths = np.linalg.norm(probe.reshape(2, -1), axis=1)
    return ModelIdentity(
        name=embedder.name,
        revision=embedder.revision,
        dim=int(embedder.dim),
        normalized=bool(np.allclose(lengths, 1.0, atol=1e-3)),
        probe=tuple(probe.round(_DIGITS).tolist()),
    )


def mismatch(name: str, stored: ModelIdentity, given: ModelIdentity) -> ModelMismatch:
    """The error that names both models and the way out."""
    return ModelMismatch(
        f"knowledge base {name!r} was written with the embedding model {stored}, but the one given is {given}; "
        "vectors of two models cannot be compared: give the first one, or call kb.migrate(new_embedder), which embeds "
        "everything again beside the live collection and then switches",
        knowledge_base=name,
        stored=str(stored),
        given=str(given),
    )
