"""All of WordNet 3.0: 117,659 synsets with their glosses, read from its files and embedded here with MiniLM.

The files are those of the Debian package ``wordnet-base`` (``data.noun`` and its like, as wndb(5) describes them), in
``/usr/share/wordnet`` or ``$WORDNET``. Embedding takes some minutes and is kept in ``$VECTORDB_BENCH_CACHE``
(``~/.cache/vectordb-bench``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

QUERIES = 1_000
"""Synsets that are set aside to search with, drawn at random."""

_FILES = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
_LEXNAMES = tuple(
    f"{pos}.{name}"
    for pos, names in (
        ("adj", "all pert"),
        ("adv", "all"),
        ("noun", "Tops act animal artifact attribute body cognition communication event feeling food group location"),
        (
            "noun",
            "motive object person phenomenon plant possession process quantity relation shape state substance time",
        ),
        ("verb", "body change cognition communication competition consumption contact creation emotion motion"),
        ("verb", "perception possession social stative weather"),
        ("adj", "ppl"),
    )
    for name in names.split()
)
"""The lexicographer files by number, lexnames(5WN)."""
_MARKER = re.compile(r"\((?:a|p|ip)\)$")
_EXAMPLE = re.compile(r'"[^"]*"')


class Synset(NamedTuple):
    """One meaning: its words and gloss as one text, and what is known of it."""

    text: str
    metadata: dict[str, Any]


def load(folder: Path | None = None) -> tuple[NDArray[np.float32], NDArray[np.float32], list[dict[str, Any]]]:
    """Vectors float32[116659, 384] of all synsets but the queries, the queries float32[1000, 384], and metadata.

    Raises:
        SystemExit: The files are not here; the text says what to do.
    """
    folder = folder or Path(os.environ.get("WORDNET", "/usr/share/wordnet"))
    if not (folder / "data.noun").is_file():
        raise SystemExit(f"no WordNet in {folder}: install Debian's wordnet-base, or name its folder in $WORDNET")
    synsets = list(read(folder))
    vectors = _embedded([synset.text for synset in synsets])
    chosen = np.zeros(len(synsets), bool)
    chosen[np.random.default_rng(2006).choice(len(synsets), QUERIES, replace=False)] = True
    metadata = [synset.metadata for synset, asked in zip(synsets, chosen.tolist(), strict=True) if not asked]
    return vectors[~chosen], vectors[chosen], metadata


def read(folder: Path) -> Iterator[Synset]:
    """The synsets of all four files, in their order."""
    for name in _FILES:
        with (folder / f"data.{name}").open(encoding="utf-8") as lines:
            for line in lines:
                if not line.startswith("  "):  # the licence stands before the data
                    yield _synset(name, line)


def _synset(pos: str, line: str) -> Synset:
    head, _, gloss = line.partition(" | ")
    fields = head.split(" ")
    count = int(fields[3], 16)
    words = [_MARKER.sub("", word).replace("_", " ") for word in fields[4 : 4 + 2 * count : 2]]
    gloss = gloss.strip()
    return Synset(
        f"{', '.join(words)}: {gloss}",
        {
            "pos": pos,
            "lexname": _LEXNAMES[int(fields[1])],
            "word": words[0],
            "n_words": count,
            "n_pointers": int(fields[4 + 2 * count]),
            "n_examples": len(_EXAMPLE.findall(gloss)),
            "gloss_length": len(gloss),
            "proper": words[0][0].isupper(),
        },
    )


def _embedded(texts: list[str]) -> NDArray[np.float32]:
    cache = Path(os.environ.get("VECTORDB_BENCH_CACHE") or Path.home() / ".cache" / "vectordb-bench")
    path = cache / f"wordnet-minilm-{len(texts)}.npy"
    if path.is_file():
        return np.load(path).astype(np.float32)
    from vectordb_client.rag import MiniLM

    print(f"embedding {len(texts):,} glosses with MiniLM, once ...", flush=True)
    # Texts of like length together: a batch costs what its longest text costs.
    order = np.argsort([len(text) for text in texts], kind="stable")
    vectors = np.empty((len(texts), 384), np.float32)
    model = MiniLM()
    for start in range(0, len(order), 512):
        rows = order[start : start + 512]
        vectors[rows] = model.embed_documents([texts[row] for row in rows.tolist()])
    cache.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part.npy")
    np.save(partial, vectors.astype(np.float16))
    partial.replace(path)
    return np.load(path).astype(np.float32)
