"""The form that a collection's segments have, or are being given: an index kind, its parameters, a quantization."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from vectordb.index.registry import AUTO, get_kind, resolve
from vectordb.storage.catalogue import Choice
from vectordb.types import QuantizationSpec

if TYPE_CHECKING:
    from vectordb.errors import VectorDBError
    from vectordb.index.base import IndexKind
    from vectordb.segments.segment import Segment
    from vectordb.types import CollectionConfig

_PATIENCE = 2
"""Rounds of a reindex that may end with more than half of their rows sealed anew."""


class Form:
    """What a configuration asks for, resolved. Immutable.

    Attributes:
        config: The configuration.
        choice: Its index and quantization, as given.
        kind: The approximate kind that segments get; None where search stays exact.
        resolved: The choice with all its parameters.
        lean: The same in codes, for where memory does not suffice to build it; None where the user chose a
            quantization, or the kind has none to build in.

    Raises:
        InvalidArgument: The kind cannot do what is asked. FailedPrecondition: It cannot be loaded.
    """

    __slots__ = ("choice", "config", "kind", "lean", "resolved")

    def __init__(self, config: CollectionConfig) -> None:
        self.config = config
        self.choice = Choice(config.index, config.quantization)
        self.resolved = resolve(config.index, config.metric, config.quantization, config.dim)
        kind = get_kind(self.resolved.kind)
        stays_exact = kind.capabilities.exact and self.resolved.quantization is None
        self.kind: IndexKind | None = None if stays_exact else kind
        self.lean: Form | None = None
        codes = kind.capabilities.lean
        able = codes is not None and config.metric in kind.capabilities.quantizations.get(codes, ())
        if codes is not None and able and config.quantization is None:
            self.lean = self.of(Choice(config.index, QuantizationSpec(codes, {})))

    def of(self, choice: Choice) -> Form:
        """The form that the collection has by another choice. Raises as the class."""
        return Form(replace(self.config, index=choice.index, quantization=choice.quantization))

    def wants_index(self, segment: Segment) -> bool:
        """Whether an approximate index is due for a segment of this size."""
        if self.kind is None or not segment.vector_count:
            return False
        large = segment.vector_count * 4 * self.config.dim >= self.config.tuning.index_bytes
        return large or self.config.index.kind != AUTO

    def fits(self, segment: Segment) -> bool:
        """Whether the index that a segment has is one of this form."""
        if segment.built is None or self.kind is None:
            return False
        info, wanted = segment.built.info, self.resolved
        return (info.kind, info.params, info.quantization) == (wanted.kind, wanted.params, wanted.quantization)

    def is_lean(self, segment: Segment) -> bool:
        """Whether the index that a segment has is one in codes, for want of memory."""
        return self.lean is not None and self.lean.fits(segment)

    def lacks(self, segment: Segment) -> bool:
        """Whether a segment should have an index of this form and has not."""
        return self.wants_index(segment) and not self.fits(segment)


class Target:
    """A running reindex: the form that a collection is being given, and how far it is.

    Segments that it has built an index for are its *shadows*: they share columns and changes with the serving ones, so
    that whatever happens to the rows happens to both. They take their place in one step once no segment lacks one.

    Segments are sealed meanwhile. It works in rounds: one is done when all segments that there were at its beginning
    are covered. What was sealed during it makes the next. Where writers seal as fast as it builds that would never
    end: then the last segments take the new form without an index, as if they had been sealed after the swap.

    Attributes:
        form: The new form.
        shadows: What is built, by the name of the segment.
        building: The segment at work; its merge waits, as those of the shadows.
        building_progress: How much of its index is done.
        waited: Whether a caller waits for the end.
        error: Why it failed, was cancelled or was replaced.
        ended: Whether it is over.
    """

    __slots__ = (
        "_round_rows", "_shown", "_strikes", "_upto", "building", "building_progress", "ended", "error", "form",
        "shadows", "waited",
    )  # fmt: skip

    def __init__(self, form: Form, segments: Iterable[Segment]) -> None:
        self.form = form
        self.shadows: dict[str, Segment] = {}
        self.building: str | None = None
        self.building_progress = 0.0
        self.waited = False
        self.error: VectorDBError | None = None
        self.ended = False
        self._upto, self._round_rows = 0, 0
        for segment in segments:
            self._upto, self._round_rows = segment.hi, self._round_rows + segment.rows
        self._strikes = 0
        self._shown = 0.0

    def holds(self, segment: Segment) -> bool:
        """Whether a segment may not be merged or indexed in the old form, because its new index is built or being
        built."""
        return segment.name == self.building or segment.name in self.shadows

    def lacks(self, segment: Segment) -> bool:
        """Whether a segment has yet to be built for."""
        return segment.name not in self.shadows and self.form.lacks(segment)

    def waiting(self, segments: Iterable[Segment]) -> list[Segment]:
        """The segments to build for before the swap, which is due where there are none. Begins the next round."""
        left = [s for s in segments if self.lacks(s)]
        inside = [s for s in left if s.lo < self._upto]
        if inside or not left:
            return inside
        rows = sum(s.rows for s in left)
        self._strikes += 2 * rows > self._round_rows
        if self._strikes >= _PATIENCE:
            return []
        self._round_rows, self._upto = rows, left[-1].hi
        return left

    def swapped(self, segment: Segment) -> Segment:
        """What takes a segment's place at the end."""
        if self.form.wants_index(segment):
            shadow = segment if self.form.fits(segment) else self.shadows.get(segment.name)
            if shadow is not None:
                return shadow
        return segment.without_index() if segment.names_index else segment

    def progress(self, segments: Iterable[Segment]) -> float:
        """Fraction done, 0 to 1, never falling."""
        done, total = 0.0, 0
        for segment in segments:
            if self.form.wants_index(segment):
                total += segment.rows
                if not self.lacks(segment):
                    done += segment.rows
                elif segment.name == self.building:
                    done += segment.rows * self.building_progress
        self._shown = max(self._shown, done / total if total else 1.0)
        return self._shown
