"""Retrieved text as data: what makes it unable to speak as anyone but itself. Pure functions.

Text from documents may hold instructions ("ignore the above and ..."), the control tokens of chat templates, a forged
end of the fence that it stands in, citations of its own, or characters that only a machine sees. None of that reaches
the model's instructions: control tokens are broken up, invisible characters left out, citation-like brackets rounded,
and the fence's mark is derived from everything that it encloses, so that no text can hold it.

Source: Greshake et al. 2023 (indirect prompt injection); Hines et al. 2024 (spotlighting by delimiting).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

# Zero-width and bidirectional controls, tag characters, the rarer variation selectors, other control characters. The
# joiners U+200C and U+200D stay: Persian, Hindi and emoji need them.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb"
    "\U000e0000-\U000e007f\U000e0100-\U000e01ef]"
)
# What chat templates put between turns: <|im_start|> (also with U+FF5C as the bar), <s>, <start_of_turn>, [INST].
_BARRED = re.compile(r"<(?=[|\uff5c])|(?<=[|\uff5c])>")
_TAG = re.compile(
    r"<(?=/?(?:s|bos|eos|pad|unk|sep|cls|mask|think|start_of_turn|end_of_turn|start_of_image|system|user|assistant|human|"
    r"model|developer|tool|tool_call|tool_response|function|instructions?|passages?|data|sys)[\s>:/])",
    re.IGNORECASE,
)
_BRACKETED = re.compile(r"\[(?=/?(?:INST|SYS|TOOL_CALLS|AVAILABLE_TOOLS|TOOL_RESULTS)\])|<(?=</?SYS>>)|<(?=/?SYS>>)")
_MARKER = re.compile(r"[\[\u3010\uff3b](\s*\d{1,4}(?:\s*[,;\u2013-]\s*\d{1,4})*\s*)[\]\u3011\uff3d]")
_MARK_BYTES = 6


class Neutral(NamedTuple):
    """A text that can be fenced, and how many places of it were changed."""

    text: str
    changes: int


def neutralised(text: str) -> Neutral:
    """A text without control tokens, invisible characters and citation markers; everything else as it was."""
    changes = 0
    for pattern, instead in (
        (_INVISIBLE, ""),
        (_MARKER, r"(\1)"),
        (_BARRED, lambda found: "< " if found[0] == "<" else " >"),
        (_TAG, "< "),
        (_BRACKETED, lambda found: found[0] + " "),
    ):
        text, count = pattern.subn(instead, text)
        changes += count
    return Neutral(text, changes)


def mark_for(texts: Sequence[str], seed: int | None = None) -> str:
    """A word that stands in none of ``texts``: the same for the same texts and seed, else as good as random.

    It is a keyed hash of all that it fences: to forge it, an author would have to know the question and every other
    passage, and find a text that holds its own hash. Should it be there all the same, the next one is taken.
    """
    digest = blake2b(key=str(seed).encode()[:64], digest_size=32)
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    state = digest.digest()
    while True:
        state = blake2b(state, digest_size=32).digest()
        mark = state[:_MARK_BYTES].hex()
        if not any(mark in text.lower() for text in texts):
            return mark
