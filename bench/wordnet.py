"""All of WordNet 3.0 as vectors: 117,659 glosses embedded here with MiniLM, once, and kept in the cache.

The dictionary is the Debian package ``wordnet-base`` (licence: WordNet 3.0, Princeton University 2006); 1,000 synsets,
drawn with a fixed seed, are the queries, the other 116,659 the rows. Embedding takes about ten minutes on two cores; it
is done in pieces that are kept, so an interrupted run goes on where it was.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

QUERIES = 1_000
_PIECE = 2_048
_PARTS = ("noun", "verb", "adj", "adv")
_LEXNAMES = [
    "adj.all", "adj.pert", "adv.all", "noun.Tops", "noun.act", "noun.animal", "noun.artifact", "noun.attribute",
    "noun.body", "noun.cognition", "noun.communication", "noun.event", "noun.feeling", "noun.food", "noun.group",
    "noun.location", "noun.motive", "noun.object", "noun.person", "noun.phenomenon", "noun.plant", "noun.possession",
    "noun.process", "noun.quantity", "noun.relation", "noun.shape", "noun.state", "noun.substance", "noun.time",
    "verb.body", "verb.change", "verb.cognition", "verb.communication", "verb.competition", "verb.consumption",
    "verb.contact", "verb.creation", "verb.emotion", "verb.motion", "verb.perception", "verb.possession",
    "verb.social", "verb.stative", "verb.weather", "adj.ppl",
]  # fmt: skip
"""Lexicographer files by number: lexnames(5WN)."""

Synset = tuple[str, dict[str, Any]]


def load(cache: Path) -> tuple[NDArray[Any], NDArray[Any], list[dict[str, Any]]]:
    """Rows float32[116659, 384], queries float32[1000, 384], and a map of scalar metadata a row.

    Raises:
        SystemExit: The dictionary is not on this machine.
    """
    folder = dictionary()
    synsets = [synset for part in _PARTS for synset in parsed(folder / f"data.{part}", part)]
    vectors = _embedded([text for text, _ in synsets], cache)
    asked = np.zeros(len(synsets), dtype=bool)
    asked[np.random.default_rng(3).choice(len(synsets), QUERIES, replace=False)] = True
    metadata = [synsets[row][1] for row in np.flatnonzero(~asked)]
    return vectors[~asked], vectors[asked], metadata


def dictionary() -> Path:
    """The folder with ``data.noun`` and its siblings: ``$WNSEARCHDIR``, or where Debian puts it."""
    folder = Path(os.environ.get("WNSEARCHDIR", "/usr/share/wordnet"))
    if not (folder / "data.noun").is_file():
        raise SystemExit(f"no WordNet in {folder}: install wordnet-base, or set WNSEARCHDIR to its folder 'dict'")
    return folder


def parsed(path: Path, part: str) -> Iterator[Synset]:
    """Text ("word, synonym: gloss") and metadata of each synset of a ``data.POS`` file: wndb(5WN)."""
    for line in path.read_text(encoding="latin-1").splitlines():
        if line.startswith(" "):
            continue  # The licence stands at the head, indented.
        fields, _, gloss = line.partition(" | ")
        head = fields.split()
        count = int(head[3], 16)
        words = [re.sub(r"\((a|p|ip)\)$", "", word).replace("_", " ") for word in head[4 : 4 + 2 * count : 2]]
        gloss = gloss.strip()
        yield (
            f"{', '.join(words)}: {gloss}",
            {
                "pos": part,
                "lexname": _LEXNAMES[int(head[1])],
                "word": words[0],
                "word_length": len(words[0]),
                "n_words": count,
                "n_pointers": int(head[4 + 2 * count]),
                "gloss_length": len(gloss),
            },
        )


def _embedded(texts: list[str], cache: Path) -> NDArray[Any]:
    """float32[n, 384], computed where the cache has no whole file yet."""
    whole = cache / "wordnet-minilm.npy"
    if not whole.is_file():
        pieces = cache / "wordnet-minilm-pieces"
        pieces.mkdir(parents=True, exist_ok=True)
        starts = range(0, len(texts), _PIECE)
        for start in starts:
            _piece(texts[start : start + _PIECE], pieces / f"{start:06d}.npy")
            print(f"\rembedding WordNet: {min(start + _PIECE, len(texts)):,} of {len(texts):,}", end="", flush=True)
        print()
        _save(whole, np.concatenate([np.load(pieces / f"{start:06d}.npy") for start in starts]))
        for piece in pieces.iterdir():
            piece.unlink()
        pieces.rmdir()
    vectors: NDArray[Any] = np.load(whole)
    return vectors


def _piece(texts: list[str], path: Path) -> None:
    if path.is_file():
        return
    from vectordb_client.rag import MiniLM

    _save(path, MiniLM(threads=min(2, len(os.sched_getaffinity(0)))).embed_documents(texts))


def _save(path: Path, values: NDArray[Any]) -> None:
    """Written beside and renamed: a file with this name is whole."""
    beside = path.with_suffix(".part.npy")
    np.save(beside, values)
    beside.replace(path)
