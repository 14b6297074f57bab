r"""What a user typed, as units to search for.

    word         the word, as the analyzer makes it
    word*        every word that begins so (in an index with stems: every stem)
    word~        every word within 1 edit (from 3 characters on) or 2 (from 6 on); word~1 and word~2 say how many
    "two words"  the words one after the other

A record matches when any unit does; the more of them, and the rarer, the better. Nothing that can be typed is an error:
a quote without its other end, a star by itself and all other signs part words, as they do in texts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from vectordb.text.analyzers import LONGEST
from vectordb.text.fuzzy import MOST_EDITS, default_edits

if TYPE_CHECKING:
    from vectordb.text.analyzers import Analyzer, Words

_CLAUSE = re.compile(r'"([^"]*)"|([^\s"]+)')
_OPERATOR = re.compile(r"(.*[^*~])(\*|~(\d?))", re.DOTALL)


class Term(NamedTuple):
    """One word as it stands in the index."""

    word: bytes


class Prefix(NamedTuple):
    """All words that begin so, and the stem of the prefix taken as a word, which may be shorter."""

    prefix: bytes
    stem: bytes


class Fuzzy(NamedTuple):
    """All words within so many edits."""

    word: str
    edits: int


class Phrase(NamedTuple):
    """Words at places relative to the first: at least two."""

    words: tuple[bytes, ...]
    places: tuple[int, ...]


Unit: TypeAlias = Term | Prefix | Fuzzy | Phrase


class TextQuery(NamedTuple):
    """A query in the order in which it is scored.

    Attributes:
        units: Distinct units.
        counts: How often each was given.
    """

    units: tuple[Unit, ...]
    counts: tuple[int, ...]


def parse(text: str, how: Analyzer) -> TextQuery:
    """The units of a query, in the order in which they first occur; none where it has no word."""
    found = Counter(_units(text, how))
    return TextQuery(tuple(found), tuple(found.values()))


def _units(text: str, how: Analyzer) -> Iterator[Unit]:
    for clause in _CLAUSE.finditer(text):
        quoted, plain = clause.groups()
        if quoted is not None:
            yield from _phrase(how.asked(quoted), how)
            continue
        operator = _OPERATOR.fullmatch(plain)
        if operator is None:
            yield from map(Term, how.stems(how.asked(plain).words))
            continue
        body, sign, edits = operator.groups()
        words = how.asked(body).words
        yield from map(Term, how.stems(words[:-1]))
        yield from _inexact(words[-1:], sign, edits, how)


def _inexact(words: list[str], sign: str, edits: str | None, how: Analyzer) -> Iterator[Unit]:
    for word, stem in zip(words, how.stems(words), strict=True):
        if sign == "*":
            yield Prefix(word[:LONGEST].encode(), stem)
            continue
        near = stem.decode()
        most = min(int(edits), MOST_EDITS) if edits else default_edits(near)
        yield Fuzzy(near, most) if most else Term(stem)


def _phrase(words: Words, how: Analyzer) -> Iterator[Unit]:
    stems = how.stems(words.words)
    if len(stems) < 2:
        yield from map(Term, stems)
        return
    yield Phrase(tuple(stems), tuple(range(len(stems)) if words.places is None else words.places))
