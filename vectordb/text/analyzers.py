"""From a text to the words that are indexed and searched.

``standard`` follows the Unicode word boundaries (UAX #29) with three differences, measured on XQuAD:

* A full stop, colon or apostrophe between letters parts words ("Newton's" is found by "Newton"; Turkish nDCG@10 0.890
  with it joined, 0.913 so). Between digits it joins, as in UAX #29: "1,000", "3.14".
* Scripts without blanks (Han, kana, Hangul, Thai, Lao, Khmer, Burmese) are indexed as single characters and as pairs
  of neighbours, and searched by the pairs; a character is a base with its marks. (XQuAD nDCG@10: Chinese 0.981, Thai
  0.976; whole runs 0.94 and less.)
* Marks belong to words wherever they follow a letter. Python's own ``\\w`` lacks them (Hindi 0.809 instead of 0.953).

Then case is folded in the compatibility form (NFKC). There is no stop list: BM25 gives frequent words next to no
weight, and phrases need them. A language's name as the analyzer adds its Snowball stemmer.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from vectordb.errors import InvalidArgument

STANDARD = "standard"
LONGEST = 255
"""Characters of a word; what follows is cut off, in texts and queries alike."""

_VERSION = 1
"""Raised when the same text gives other words: indexes of another version are made anew."""

_NUMBERS = r"(?:(?<=\d)[.,'](?=\d)\w+)*"
_ASCII_WORD = re.compile(r"\w+" + _NUMBERS, re.ASCII)
_PAIRED = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\ua9e0-\ua9ff"
    "\uaa60-\uaa7f\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
_HAS_PAIRED = re.compile(f"[{_PAIRED}]")
_PARTED = re.compile(f"[{_PAIRED}]+|[^{_PAIRED}]+")
_IGNORED = dict.fromkeys([0x00AD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, *range(0xFE00, 0xFE10)])
"""Characters that show nothing and part nothing: soft hyphen, joiners, variation selectors."""


class Words(NamedTuple):
    """The words of one text.

    Attributes:
        words: In order.
        places: The place of each in the text, counted in words; None where the i-th is at place i.
        length: Places there are.
    """

    words: list[str]
    places: list[int] | None
    length: int


class Analyzer:
    """How the texts of one collection become words. Immutable, thread-safe.

    Attributes:
        name: ``standard`` or the name of a language.
        fingerprint: Changes with whatever may change the words: indexes of another fingerprint are made anew.
    """

    __slots__ = ("fingerprint", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.fingerprint = f"{name} {_VERSION} unicode {unicodedata.unidata_version}"
        if name != STANDARD:
            import Stemmer

            self.fingerprint += f" snowball {Stemmer.version()}"

    def words(self, text: str) -> Words:
        """The words to index, not yet stemmed (:meth:`stems`); without blanks, characters and their pairs."""
        return _analysed(text, singles=True)

    def asked(self, text: str) -> Words:
        """The words to search by, not yet stemmed: of characters that have a neighbour only the pairs."""
        return _analysed(text, singles=False)

    def stems(self, words: Sequence[str]) -> list[bytes]:
        """What words are indexed under, in UTF-8. The caller asks once a distinct word."""
        if self.name != STANDARD:
            import Stemmer

            # One of its own each time: a stemmer is not safe to share between threads, and costs microseconds.
            words = Stemmer.Stemmer(self.name, 0).stemWords(words)
        return [word[:LONGEST].encode() for word in words]


@lru_cache
def analyzer(name: str) -> Analyzer:
    """The analyzer of a name.

    Raises:
        InvalidArgument: There is none of this name; ``field`` is ``analyzer``.
    """
    if name not in names():
        raise InvalidArgument(f"analyzer {name!r} is unknown; one of {', '.join(map(repr, names()))}", field="analyzer")
    return Analyzer(name)


@lru_cache
def names() -> tuple[str, ...]:
    """All names: ``standard``, then the languages in order."""
    import Stemmer

    return (STANDARD, *Stemmer.algorithms())


def _analysed(text: str, *, singles: bool) -> Words:
    if text.isascii():
        words = _ASCII_WORD.findall(text.lower())
        return Words(words, None, len(words))
    text = unicodedata.normalize("NFKC", text).casefold().translate(_IGNORED)
    text = unicodedata.normalize("NFC", text)
    patterns = _patterns()
    words = patterns.word.findall(text)
    if not _HAS_PAIRED.search(text):
        return Words(words, None, len(words))
    found: list[str] = []
    places: list[int] = []
    place = 0
    for word in words:
        for piece in (word,) if word.isascii() else _PARTED.findall(word):
            if not _HAS_PAIRED.match(piece):
                # What is left of a word may begin with a mark, which stands for nothing by itself.
                if piece[0].isalnum() or piece[0] == "_":
                    found.append(piece)
                    places.append(place)
                    place += 1
                continue
            characters = patterns.character.findall(piece)
            for i, character in enumerate(characters):
                if singles or len(characters) == 1:
                    found.append(character)
                    places.append(place + i)
                if i + 1 < len(characters):
                    found.append(character + characters[i + 1])
                    places.append(place + i)
            place += len(characters)
    return Words(found, places, place)


class _Patterns(NamedTuple):
    word: re.Pattern[str]
    character: re.Pattern[str]


@lru_cache
def _patterns() -> _Patterns:
    """Patterns that know the marks of all scripts; made when the first text needs them, in 20 ms."""
    marks = _marks()
    word = rf"\w[\w{marks}]*(?:(?<=\d)[.,'\u2019](?=\d)\w[\w{marks}]*)*"
    return _Patterns(re.compile(word), re.compile(f"[^{marks}][{marks}]*|[{marks}]+"))


def _marks() -> str:
    """Everything of the categories Mn, Mc and Me as ranges of a character class."""
    ranges: list[list[int]] = []
    for code in (*range(0x20000), *range(0xE0100, 0xE01F0)):
        if unicodedata.category(chr(code))[0] == "M":
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"{re.escape(chr(low))}-{re.escape(chr(high))}" for low, high in ranges)
