"""Sealing and merging: which rows survive, what is folded in, and when an index is extended."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from vectordb.encoding import encode_metadata
from vectordb.index.base import BuildCancelled, BuildOptions, CannotExtend
from vectordb.metadata.rowset import from_rows
from vectordb.segments.build import build_index, carry_over, extendable, seal
from vectordb.segments.columns import SealOptions
from vectordb.segments.opening import open_segment
from vectordb.segments.snapshot import Snapshot
from vectordb.segments.store import SegmentStore
from vectordb.segments.tail import Tail, TailSection
from vectordb.segments.texts import open_text
from vectordb.text.analyzers import analyzer
from vectordb.types import QuantizationSpec


def replaced(options: SealOptions, **facts: object) -> SealOptions:
    from dataclasses import replace

    return replace(options, **facts)


def grown(world, sizes: list[int], churn: int) -> list[TailSection]:
    """Adjacent sections of the given sizes, changed at random."""
    sections = []
    for size in sizes:
        sections.append(TailSection(6, world.next_offset, None))
        world.holders.append(sections[-1])
        sections[-1].append(world.batch(size))
    world.churn(churn)
    return sections


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("holes", [False, True])
def test_a_merge_keeps_exactly_the_living(
    make_world: Callable, options: SealOptions, place: SegmentStore | None, seed: int, holes: bool
) -> None:
    world = make_world(seed, holes=holes)
    sections = grown(world, [40, 90, 1, 60], 10)
    version = world.version
    progress: list[float] = []
    first = seal([s.view(version) for s in sections[:2]], place, replaced(options, progress=progress.append))
    second = seal([s.view(version) for s in sections[2:]], place, options)
    assert progress == sorted(progress)
    assert progress[-1] == 1.0
    assert (first.lo, first.hi) == (sections[0].lo, sections[1].hi)
    assert first.data.info.covered_version == version
    for merged, of in ((first, sections[:2]), (second, sections[2:])):
        assert merged.view(version).dead == 0
        world.check(merged.view(version), exactly=world.alive(version, of[0].lo, of[-1].hi))
    world.holders = [first, second]
    world.churn(10)
    both = seal([first.view(world.version), second.view(world.version)], place, options)
    view = both.view(world.version)
    assert not view.replacements
    world.check(view, exactly=world.alive(world.version))


def test_later_changes_are_carried_over(make_world: Callable, options: SealOptions, place: SegmentStore | None) -> None:
    world = make_world(3)
    sections = grown(world, [60, 60], 4)
    since = world.version
    views = [section.view(since) for section in sections]
    world.churn(12)
    merged = seal(views, place, options)
    carry_over(sections, merged, since)
    held = world.alive(since)
    for version in range(since, world.version + 1):
        world.check(merged.view(version), exactly=held)
    world.holders = [merged]
    world.churn(3)
    world.check(merged.view(world.version), exactly=held)


def payloads(world) -> Callable:
    """What storage would have, by offset and version; dead rows have left it."""

    def read(offsets: np.ndarray, versions: np.ndarray) -> list[bytes | None]:
        assert len(offsets) == len(versions)
        return [
            encode_metadata(dict(world.rows[o].payloads)[v]) if world.rows[o].alive(world.version) else None
            for o, v in zip(offsets.tolist(), versions.tolist(), strict=True)
        ]

    return read


@pytest.mark.parametrize("keep_first", [False, True])
def test_metadata_that_a_source_lacks_is_read_from_storage(
    make_world: Callable, options: SealOptions, store: SegmentStore, keep_first: bool
) -> None:
    world = make_world(5, holes=True)
    sections = grown(world, [50, 70], 6)
    bare = seal([sections[0].view(world.version)], None, options)
    full = seal([sections[1].view(world.version)], store, options)
    world.holders = [bare, full]
    world.churn(12)
    sources = [bare.view(world.version), full.view(world.version)]
    assert sources[0].dead > 0
    assert sources[0].replacements
    merging = replaced(options, keep_first=keep_first, stored=payloads(world))
    merged = seal(sources, store, merging)
    assert (merged.view(world.version).dead > 0) == keep_first
    living = np.flatnonzero(merged.view(world.version).alive(np.arange(merged.rows)))
    offsets = merged.view(world.version).offsets(living).tolist()
    assert offsets == world.alive(world.version)
    expected = [encode_metadata(world.rows[o].payload(world.version)[1]) for o in offsets]
    assert merged.view(world.version).metadata(living) == expected
    if not keep_first:
        world.check(merged.view(world.version), exactly=offsets)


@pytest.mark.parametrize("why", ["nothing to read it with", "gone from storage"])
def test_metadata_that_is_not_to_be_had_leaves_the_column_out(
    make_world: Callable, options: SealOptions, store: SegmentStore, why: str
) -> None:
    world = make_world(6)
    sections = grown(world, [50, 70], 0)
    sources = [
        seal([s.view(world.version)], where, options).view(world.version)
        for s, where in zip(sections, (store, None), strict=True)
    ]
    gone = why == "gone from storage"
    merging = replaced(options, stored=lambda offsets, versions: [None] * len(offsets)) if gone else options
    merged = seal(sources, store, merging)
    assert merged.view(world.version).metadata(np.arange(5)) is None
    assert not list(store.path(merged.name).glob("metadata.*"))
    opened = open_segment(store, merged.ref, None)
    assert opened.problems == []
    assert opened.segment.view(world.version).ids(np.arange(120)) == [f"id-{i}" for i in range(120)]
    # The next merge that has the means writes it.
    again = seal([opened.segment.view(world.version)], store, replaced(options, stored=payloads(world)))
    every = np.arange(again.rows)
    assert again.view(world.version).metadata(every) == [
        encode_metadata(row.payload(world.version)[1]) for _, row in sorted(world.rows.items())
    ]


def test_nothing_alive_makes_no_segment(make_world: Callable, options: SealOptions, place: SegmentStore | None) -> None:
    world = make_world()
    (section,) = grown(world, [5], 0)
    world.delete(5)
    assert seal([section.view(world.version)], place, options) is None
    assert place is None or list(place.root.iterdir()) == []


def test_rows_without_any_vector(make_world: Callable, options: SealOptions, place: SegmentStore | None) -> None:
    world = make_world()
    (section,) = grown(world, [30], 0)
    for row in world.rows.values():
        row.vector = None
    batch = world.batch(30)
    assert batch.vectors is not None
    plain = TailSection(6, 0, None)
    plain.append(type(batch)(batch.offsets, batch.ids, batch.payload_versions, batch.metadata, texts=batch.texts))
    for row in world.rows.values():
        row.vector = None
    merged = seal([plain.view(world.version)], place, options)
    assert merged.vector_count == 0
    world.check(merged.view(world.version))
    assert section.vector_count > 0


def test_sources_out_of_order_are_refused(make_world: Callable, options: SealOptions) -> None:
    world = make_world()
    first, second = (section.view(world.version) for section in grown(world, [5, 5], 0))
    for sources in ([second, first], [first, first], []):
        with pytest.raises(ValueError, match=r"sources must be|at least one source"):
            seal(sources, None, options)


def test_cancelling_leaves_nothing(make_world: Callable, options: SealOptions, store: SegmentStore, kind) -> None:
    world = make_world()
    (section,) = grown(world, [50], 0)
    polls = iter([False, True])
    with pytest.raises(BuildCancelled):
        seal([section.view(1)], store, replaced(options, cancelled=lambda: next(polls)))
    assert list(store.root.iterdir()) == []


class TestIndex:
    def test_it_shares_rows_and_changes(
        self, make_world: Callable, options: SealOptions, place: SegmentStore | None, kind
    ) -> None:
        world = make_world()
        (section,) = grown(world, [80], 3)
        plain = seal([section.view(world.version)], place, options)
        held = world.alive(world.version)
        built = build_index(plain, place, kind, BuildOptions())
        world.holders = [plain]
        world.churn(3)
        view = built.view(world.version)
        world.check(view, exactly=held)
        assert view.kind is kind
        # Positions of the index are those of the matrix.
        at = np.flatnonzero([world.rows[o].vector is not None for o in held])
        found = view.index.search(view.vectors_at(at[7:8]), 1)
        assert view.rows_of(found.rows[0]).tolist() == [at[7]]
        allowed = view.allowed_positions(from_rows(at[20:30]))
        found = view.index.search(view.vectors_at(at[:1]), 50, allowed=allowed)
        assert (
            sorted(view.rows_of(found.rows[0]).tolist())
            == [-1] * (len(at) - 10 if len(at) < 50 else 40) + at[20:30].tolist()
        )

    def test_another_index_replaces_only_the_index(
        self, make_world: Callable, options: SealOptions, store: SegmentStore, kind
    ) -> None:
        world = make_world()
        (section,) = grown(world, [30], 0)
        plain = seal([section.view(1)], store, options)
        first = build_index(plain, store, kind, BuildOptions())
        second = build_index(first, store, kind, BuildOptions(params={"m": 2}))
        assert first.ref != second.ref
        assert first.disk_bytes == second.disk_bytes > plain.disk_bytes == second.data_disk_bytes
        store.remove(first.ref)
        assert open_segment(store, second.ref, None).segment.built.info.params == {"m": 2}

    @pytest.mark.parametrize("missing", [False, True])
    def test_extension_keeps_positions_and_dead_rows(
        self, make_world: Callable, options: SealOptions, place: SegmentStore | None, kind, missing: bool
    ) -> None:
        world = make_world(2, missing_vectors=missing)
        big_section, small_section = grown(world, [200, 60], 0)
        plain = seal([big_section.view(world.version)], place, options)
        big = build_index(plain, place, kind, BuildOptions())
        small = seal([small_section.view(world.version)], place, options)
        world.holders = [big, small]
        for offsets in ([3, 77, 199], [0, 5, 210, 259]):
            world.delete_these(offsets)
        world.overlay(8)
        version = world.version
        sources = [big.view(version), small.view(version)]
        base = extendable(sources, kind, BuildOptions())
        assert base is sources[0]
        merged = seal(sources, place, replaced(options, keep_first=True))
        held = sorted(set(range(200)) | set(world.alive(version, 200)))
        index = build_index(merged, place, kind, BuildOptions(), base)
        world.check(index.view(version), exactly=held)
        dead = index.view(version).dead
        assert dead == index.data.info.dead == sources[0].dead
        # Every version that matters says the same, also after opening again, without storage's tombstones.
        if place is not None:
            index = open_segment(place, index.ref, None).segment
            assert open_text(place, index, analyzer("standard").fingerprint).there
            world.check(index.view(version), exactly=held)
        built = index.built.index
        assert np.array_equal(built.vectors, index.data.vectors.array)
        # The next merge, one that cannot extend, drops them.
        final = seal([index.view(version)], place, options)
        world.check(final.view(version), exactly=world.alive(version))

    def test_an_extension_extends(self, make_world: Callable, options: SealOptions, kind) -> None:
        world = make_world()
        big_section, small_section = grown(world, [50, 20], 0)
        big = build_index(seal([big_section.view(world.version)], None, options), None, kind, BuildOptions())
        sources = [big.view(world.version), small_section.view(world.version)]
        merged = seal(sources, None, replaced(options, keep_first=True))
        assert build_index(merged, None, kind, BuildOptions(), sources[0]).built.index.grown == 1
        assert build_index(merged, None, kind, BuildOptions()).built.index.grown == 0

    def test_what_cannot_be_extended_is_rebuilt(
        self, make_world: Callable, options: SealOptions, kind, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = make_world()
        sections = grown(world, [50, 20], 0)
        big = build_index(seal([sections[0].view(world.version)], None, options), None, kind, BuildOptions())
        sources = [big.view(world.version), sections[1].view(world.version)]
        merged = seal(sources, None, replaced(options, keep_first=True))

        def refuse(self: object, more: np.ndarray, build: BuildOptions) -> None:
            raise CannotExtend("range")

        monkeypatch.setattr(type(big.built.index), "extended", refuse)
        index = build_index(merged, None, kind, BuildOptions(), sources[0])
        assert np.array_equal(index.built.index.vectors, merged.data.vectors.array)

    def test_when_extension_does_not_pay(self, make_world: Callable, options: SealOptions, kind) -> None:
        world = make_world()
        sections = grown(world, [100, 20, 300], 0)
        version = world.version
        big = build_index(seal([sections[0].view(version)], None, options), None, kind, BuildOptions())
        little, large = sections[1].view(version), sections[2].view(version)
        assert extendable([big.view(version), little], kind, BuildOptions()) is not None
        assert extendable([big.view(version), little, large], kind, BuildOptions()) is None
        assert extendable([little, large], kind, BuildOptions()) is None
        assert extendable([big.view(version), little], kind, BuildOptions(params={"m": 1})) is None
        assert extendable([big.view(version), little], kind, BuildOptions(quantization=QuantizationSpec("sq8"))) is None
        for dead in range(5):
            assert extendable([big.view(version + dead), little], kind, BuildOptions()) is not None
            big.mark_deleted(np.array([dead], np.uint64), version + dead + 1)
        assert extendable([big.view(version + 5), little], kind, BuildOptions()) is None


def test_freezing_sealing_and_dropping(make_world: Callable, options: SealOptions, place: SegmentStore | None) -> None:
    """A tail as the collection uses it: rows go on arriving and changing while older ones are sealed."""
    world = make_world(4)
    tail = Tail(6, 0)
    segments: list = []
    kept: list[tuple[Snapshot, list[int]]] = []

    def snapshot() -> Snapshot:
        version = world.version
        return Snapshot(version, (*(s.view(version) for s in segments), *tail.views(version)))

    assert tail.freeze() == tail.lo == 0
    for _ in range(4):
        for _ in range(3):
            tail.append(world.batch(int(world.rng.integers(1, 80))))
            world.holders = [*segments, *tail.sections]
            world.churn(2)
        upto = tail.freeze()
        frozen = tail.sections[:-1]
        since = world.version
        views = [section.view(since) for section in frozen if section.rows]
        assert upto == world.next_offset == views[-1].hi
        tail.append(world.batch(10))
        world.holders = [*segments, *tail.sections]
        world.churn(3)
        kept.append((snapshot(), world.alive(world.version)))
        segment = seal(views, place, options)
        carry_over(frozen, segment, since)
        segments.append(segment)
        tail.drop(upto)
        assert tail.lo == upto
        assert tail.rows == 10
        kept.append((snapshot(), world.alive(world.version)))
    for taken, alive in kept:
        assert taken.rows == len(alive)
        found = []
        for part in taken.parts:
            world.check(part)
            every = np.arange(part.rows)
            found += part.offsets(every[part.alive(every)]).tolist()
        assert found == sorted(alive)
    assert tail.memory_bytes() > 0
    assert all(segment.memory_bytes() > 0 for segment in segments)
