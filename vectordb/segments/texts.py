"""The text index of a published segment: writing it into the segment's folder, and opening it where it is sound.

It stands in a folder of its own, so that damage to it, or another analyzer, costs no more than making it anew from the
texts in storage: vectors and their index stay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from vectordb.errors import Corruption
from vectordb.segments.info import TextInfo
from vectordb.segments.store import damage, text_ref
from vectordb.text.files import encoded, open_index

if TYPE_CHECKING:
    from vectordb.segments.segment import Segment
    from vectordb.segments.store import SegmentStore
    from vectordb.text.index import TextIndex

TEXT_DATA = "text.bin"


class OpenedText(NamedTuple):
    """Whether a segment has its text index now, and what was wrong with the one that was set aside."""

    there: bool
    problems: list[str]


def publish_text(store: SegmentStore | None, segment: Segment, text: TextIndex) -> None:
    """Gives a segment the index over its rows' texts, published where there is a store.

    Nothing where the segment knows that no row has a word.

    Raises:
        ResourceExhausted: The disk is full; nothing is left behind.
    """
    if segment.data.info.documents == 0:
        return
    if store is None:
        segment.set_text(text, 0)
        return
    with store.draft() as draft:
        with draft.writer(TEXT_DATA) as file:
            for piece in encoded(text):
                file.write(piece)
        ref = store.publish_text(draft, TextInfo(segment.name, text.fingerprint, text.documents))
    path = store.path(ref) / TEXT_DATA
    # Opened again: mapped, it can leave memory when it is not used.
    segment.set_text(open_index(path), path.stat().st_size)


def open_text(
    store: SegmentStore, segment: Segment, fingerprint: str, cancelled: Callable[[], bool] = lambda: False
) -> OpenedText:
    """Maps the text index of an opened segment, if it is sound and of the collection's analyzer; else sets it aside.

    Args:
        fingerprint: Of the analyzer.
        cancelled: Polled during full checks.

    Raises:
        InterruptedError: ``cancelled`` turned true.
        ResourceExhausted: The process has no more files or memory to open it with; nothing is set aside.
    """
    if segment.data.info.documents == 0:
        return OpenedText(True, [])
    ref = text_ref(segment.name)
    if not store.path(ref).is_dir():
        return OpenedText(False, [])
    problems = store.check(ref, cancelled)
    if not problems:
        path = store.path(ref) / TEXT_DATA
        try:
            text = open_index(path)
        except (Corruption, OSError) as err:
            problems = [damage(err)]
        else:
            if text.n != segment.rows:
                problems = [f"'{path}' covers {text.n} rows, its segment has {segment.rows}"]
            elif text.fingerprint == fingerprint:
                segment.set_text(text, path.stat().st_size)
                return OpenedText(True, [])
    if problems:
        store.quarantine(ref)
    else:
        store.remove(ref)
    return OpenedText(False, problems)
