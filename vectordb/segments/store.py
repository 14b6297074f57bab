"""The ``segments/`` folder of a database: which segments are there, whether they are sound, and removing them.

A *reference* names what the manifest names: ``"<segment>"`` for a segment without an index, or
``"<segment>/<index>"``. An index is a folder published into its segment's, so that a segment's own files never change
and another index can be built beside the one in use. ``"<segment>/text"`` is the index over its texts: a folder too, so
that it can be made anew by itself, but one that is always there and that no manifest names.

A full check reads every byte. Its result is remembered in a *stamp* outside the folder (size, inode, mtime and ctime of
every file): while those are unchanged, opening trusts it; a copied, restored or edited file is checked in full before
any loader sees it.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from vectordb.errors import Corruption, is_exhausted, refused
from vectordb.segments.files import TEMPORARY, Draft, checksum, remove_tree, sync_directory
from vectordb.segments.info import (
    INDEX_FILE,
    SEGMENT_FILE,
    TEXT_FILE,
    Files,
    IndexInfo,
    SegmentInfo,
    TextInfo,
    read_index_info,
    read_segment_info,
    read_text_info,
)

_log = logging.getLogger("vectordb.segments")

DAMAGED = "damaged-"
TEXT = "text"
_STAMP = ".stamp"
_KEPT = 4
"""Damaged folders kept for inspection; older ones are removed."""

Facts = dict[str, list[int]]


def split(ref: str) -> tuple[str, str | None]:
    """The names of segment and index (or None) in a reference."""
    segment, _, index = ref.partition("/")
    return segment, index or None


def text_ref(segment: str) -> str:
    """The reference of a segment's text index."""
    return f"{segment}/{TEXT}"


class SegmentStore:
    """The folder of all segments of one database. Thread-safe: every change is one rename.

    Args:
        root: The folder, made when absent.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def path(self, ref: str) -> Path:
        """The folder of a segment or of an index."""
        return self.root / ref

    def draft(self) -> Draft:
        """A new temporary folder."""
        return Draft(self.root)

    def publish_segment(self, draft: Draft, info: SegmentInfo) -> str:
        """Makes a draft a segment and stamps it; returns its reference."""
        draft.publish(info, self.root / info.name)
        self._stamp(info.name)
        return info.name

    def publish_index(self, draft: Draft, info: IndexInfo) -> str:
        """Makes a draft an index of its segment and stamps it; returns the reference of both."""
        ref = f"{info.segment}/{info.name}"
        draft.publish(info, self.root / ref)
        self._stamp(ref)
        return ref

    def publish_text(self, draft: Draft, info: TextInfo) -> str:
        """Makes a draft the text index of its segment and stamps it; returns its reference."""
        ref = text_ref(info.segment)
        draft.publish(info, self.root / ref)
        self._stamp(ref)
        return ref

    def text_info(self, ref: str) -> tuple[TextInfo, Files]:
        """The facts of a segment's text index (``"<segment>/text"``); raises ``Corruption``."""
        return read_text_info(self.root / ref / TEXT_FILE)

    def info(self, ref: str) -> tuple[SegmentInfo, Files]:
        """The facts of a reference's segment; raises ``Corruption``."""
        return read_segment_info(self.root / split(ref)[0] / SEGMENT_FILE)

    def index_info(self, ref: str) -> tuple[IndexInfo, Files]:
        """The facts of a reference's index; raises ``Corruption``."""
        return read_index_info(self.root / ref / INDEX_FILE)

    def refs(self) -> list[str]:
        """Everything published: segments first, each followed by its indexes."""
        found: list[str] = []
        for path in sorted(self.root.iterdir()):
            if path.is_dir() and not path.name.startswith((TEMPORARY, DAMAGED)):
                found.append(path.name)
                found += sorted(f"{path.name}/{index.name}" for index in path.glob("index-*"))
        return found

    def check(self, ref: str, cancelled: Callable[[], bool] = lambda: False) -> list[str]:
        """What is wrong with one folder, from its stamp where that still holds, else by a full check.

        A reference with an index is checked for the index alone; check its segment by the segment's own reference.

        Raises:
            ResourceExhausted: As :meth:`verify`. InterruptedError: ``cancelled`` turned true.
        """
        try:
            facts, files = self._facts(ref)
        except (Corruption, OSError) as err:
            return [damage(err)]
        if self._stamped(ref) == facts and _sizes_hold(facts, files):
            return []
        return self.verify(ref, cancelled)

    def verify(self, ref: str, cancelled: Callable[[], bool] = lambda: False) -> list[str]:
        """What is wrong with one folder, by reading every byte; stamps it when nothing is.

        A file that is missing or that the disk does not give is wrong like any other, also where it goes away while it
        is read: whether it went by right, because its segment was merged away meanwhile, only the caller can tell.

        Raises:
            InterruptedError: ``cancelled`` turned true.
            ResourceExhausted: The process has no more files or memory to look with: nothing is known then.
        """
        problems: list[str] = []
        try:
            before, files = self._facts(ref)
            for name, entry in files.items():
                path = self.root / ref / name
                size = before[name][0]
                if size != entry.size:
                    problems.append(f"'{path}' has {size} bytes instead of {entry.size}")
                elif checksum(path, cancelled) != entry.checksum:
                    problems.append(f"'{path}' does not meet its checksum")
            if not problems and self._facts(ref)[0] == before:
                self._write_stamp(ref, before)
        except InterruptedError:
            raise
        except (Corruption, OSError) as err:
            problems.append(damage(err))
        return problems

    def remove(self, ref: str) -> None:
        """Removes an index, or a segment with all its indexes. Open maps of the files stay valid.

        What the system does not let go is garbage for the next opening: nobody who has put something else in its place
        can do more about it.
        """
        try:
            self._unstamp(ref)
            remove_tree(self.root / ref, self.root)
        except OSError as error:
            _log.warning("'%s' cannot be removed; the next opening tries again: %s", self.root / ref, error)

    def quarantine(self, ref: str) -> Path | None:
        """Sets a damaged folder aside under ``damaged-...`` and keeps the last few of those; None when it is gone."""
        self._unstamp(ref)
        # Nanoseconds first, so that names sort by age.
        aside = self.root / f"{DAMAGED}{time.time_ns():020d}-{ref.replace('/', '.')}"
        try:
            (self.root / ref).rename(aside)
        except FileNotFoundError:
            return None
        sync_directory(self.root)
        for old in sorted(self.root.glob(f"{DAMAGED}*"))[:-_KEPT]:
            remove_tree(old, self.root)
        return aside

    def discard_damaged(self) -> list[str]:
        """Removes the damaged folders that were kept for inspection; returns their names."""
        found = sorted(path.name for path in self.root.glob(f"{DAMAGED}*"))
        for name in found:
            remove_tree(self.root / name, self.root)
        return found

    def is_staged(self) -> bool:
        """Whether the database's files are linked in a temporary folder, for a backup or a check."""
        return any(path.is_dir() for path in self.root.glob(f"{TEMPORARY}*/rocksdb"))

    def restamp(self, ref: str) -> None:
        """Renews a stamp that holds but for the ctime of the files, which linking and unlinking them changes."""
        stamp = self._stamped(ref)
        try:
            facts = self._facts(ref)[0]
        except (Corruption, OSError):
            return
        if stamp is not None and {n: f[:3] for n, f in stamp.items()} == {n: f[:3] for n, f in facts.items()}:
            self._write_stamp(ref, facts)

    def collect_garbage(self, named: Collection[str]) -> list[str]:
        """Removes temporary folders and whatever the manifest does not name; returns their names.

        To be called when nothing is being built: a segment between publication and manifest counts as garbage.

        Args:
            named: The references in the manifests of all collections.
        """
        segments = {split(ref)[0] for ref in named}
        keep = {*named, *segments, *map(text_ref, segments)}
        removed = [ref for ref in self.refs() if ref not in keep]
        for ref in removed:
            self.remove(ref)
        for path in self.root.glob(f"{TEMPORARY}*"):
            if path.is_dir():
                remove_tree(path, self.root)
            else:
                path.unlink(missing_ok=True)
            removed.append(path.name)
        stamps = {self._stamp_path(ref) for ref in keep}
        for path in self.root.glob(f"*{_STAMP}"):
            if path not in stamps:
                path.unlink(missing_ok=True)
        return removed

    def disk_bytes(self, ref: str) -> int:
        """Bytes of a segment's files and of the reference's index, as recorded."""
        sizes = sum(entry.size for entry in self.info(ref)[1].values())
        if split(ref)[1] is not None:
            sizes += sum(entry.size for entry in self.index_info(ref)[1].values())
        return sizes

    def _facts(self, ref: str) -> tuple[Facts, Files]:
        """What the file system says about every file of a folder, and what its JSON says."""
        inner = split(ref)[1]
        files: Files
        if inner is None:
            json_file, (_, files) = SEGMENT_FILE, self.info(ref)
        elif inner == TEXT:
            json_file, (_, files) = TEXT_FILE, self.text_info(ref)
        else:
            json_file, (_, files) = INDEX_FILE, self.index_info(ref)
        facts: Facts = {}
        for name in (json_file, *files):
            found = os.stat(self.root / ref / name)
            facts[name] = [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]
        return facts, files

    def _stamp_path(self, ref: str) -> Path:
        return self.root / f"{ref.replace('/', '.')}{_STAMP}"

    def _stamp(self, ref: str) -> None:
        self._write_stamp(ref, self._facts(ref)[0])

    def _write_stamp(self, ref: str, facts: Facts) -> None:
        # Not synced: a lost or torn stamp only costs a full check. So does one that a full disk does not take: it says
        # nothing of the files.
        path = self._stamp_path(ref)
        temporary = path.with_name(f"{TEMPORARY}{uuid4().hex}")
        with suppress(OSError):
            try:
                temporary.write_text(json.dumps(facts), encoding="utf-8")
                temporary.replace(path)
            except OSError:
                temporary.unlink(missing_ok=True)

    def _stamped(self, ref: str) -> Facts | None:
        try:
            stamp = json.loads(self._stamp_path(ref).read_bytes())
        except (OSError, ValueError):
            return None
        return stamp if isinstance(stamp, dict) else None

    def _unstamp(self, ref: str) -> None:
        for path in self._stamps_of(ref):
            path.unlink(missing_ok=True)

    def _stamps_of(self, ref: str) -> Iterator[Path]:
        yield self._stamp_path(ref)
        if split(ref)[1] is None:
            yield from self.root.glob(f"{ref}.*{_STAMP}")


def damage(error: Exception) -> str:
    """What an error says is wrong with a file.

    Raises:
        ResourceExhausted: It says nothing of the file, only that the system has no more files or memory to read it
            with: what is sound must not be taken for damaged then.
    """
    cause = error if isinstance(error, OSError) else error.__cause__
    if isinstance(cause, OSError) and is_exhausted(cause):
        raise refused("the files of a segment cannot be read", cause) from error
    return str(error)


def _sizes_hold(facts: Facts, files: Files) -> bool:
    return all(facts[name][0] == entry.size for name, entry in files.items())
