"""Where sentences begin and end: rules of punctuation, without a model and without a language."""

from __future__ import annotations

import re
from collections.abc import Iterator

from vectordb_client.rag.chunking.base import Span

_END = re.compile(
    r"""(?P<full>[.!?\u2026]+["'\u2019\u201d)\]\u00bb]*)(?=\s)"""  # Latin, Greek, Cyrillic, ...
    r"""|[\u3002\uff01\uff1f\u0964\u06d4]["'\u2019\u201d\u300d\u300f)\]]*"""  # Chinese, Hindi, Urdu: no space follows
    r"""|\n[ \t]*\n\s*"""  # a blank line ends whatever stands before it
)
_ABBREVIATION = re.compile(
    r"(?:\b(?:[A-Za-z]|Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc|cf|al|Fig|fig|Figs|Eq|eq|No|no|Nos|Vol|vol|pp|Inc|Ltd|Co|Corp|"
    r"approx|ca|bzw|Nr|Abb|z\.B|d\.h|e\.g|i\.e|U\.S|U\.K|a\.m|p\.m))\.$"
)
_LOOK_BACK = 12


def sentence_spans(text: str) -> Iterator[Span]:
    """The sentences of a text in order, white space at their ends left out; together they hold all that is no space.

    A full stop ends a sentence unless it closes a known abbreviation or an initial, or a small letter follows.
    """
    start = 0
    for found in _END.finditer(text):
        if found["full"] is not None and not _ends(text, found):
            continue
        yield from _trimmed(text, start, found.end())
        start = found.end()
    yield from _trimmed(text, start, len(text))


def _ends(text: str, found: re.Match[str]) -> bool:
    if found["full"] != ".":
        return True
    following = text[found.end() : found.end() + 3].lstrip()[:1]
    return not following.islower() and not _ABBREVIATION.search(text, max(0, found.end() - _LOOK_BACK), found.end())


def _trimmed(text: str, start: int, end: int) -> Iterator[Span]:
    stretch = text[start:end]
    if bare := stretch.strip():
        begins = start + len(stretch) - len(stretch.lstrip())
        yield Span(begins, begins + len(bare))
