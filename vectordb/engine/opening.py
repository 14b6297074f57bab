"""Opening a folder's storage: what came back is held against what was acknowledged."""

from __future__ import annotations

import logging
from pathlib import Path

from vectordb.engine.catalogue import Catalogue
from vectordb.errors import Corruption, VectorDBError
from vectordb.storage.acked import Acked, AckedPage, Loss, lost, read_acked
from vectordb.storage.base import Storage
from vectordb.storage.rocks import RocksStorage
from vectordb.storage.rocks_options import Sizes

_log = logging.getLogger("vectordb.engine")


def open_storage(folder: Path, sizes: Sizes, accept_loss: bool) -> RocksStorage:
    """The folder's RocksDB; of a damaged log what lies before the damage, where that is all that was acknowledged.

    A power loss leaves anything behind the last sync: holes too, with intact records after them. To tell those from
    damage to what was synced takes the ACKED page.

    Raises:
        Corruption: It is damaged, and acknowledged data with it (unless ``accept_loss``), or more than its log is.
    """
    path = folder / "rocksdb"
    try:
        return RocksStorage(path, **sizes._asdict())
    except Corruption as damage:
        acked = read_acked(folder / "ACKED")
        if not (acked.known or accept_loss):
            raise
        try:
            # Opened for writing, RocksDB would remove what lies behind the damage.
            left = RocksStorage(path, read_only=True, rescue=True, **sizes._asdict())
        except VectorDBError:
            raise damage from None
        try:
            catalogue = Catalogue(left)
            losses = _losses(acked, left, catalogue)
        finally:
            left.close()
        if losses and not accept_loss:
            raise _lossy(folder, losses, catalogue) from damage
        _log.warning("folder %s: writes behind the last acknowledged one are damaged and left out (%s)", folder, damage)
        return RocksStorage(path, rescue=True, **sizes._asdict())


def check_loss(folder: Path, page: AckedPage, storage: Storage, catalogue: Catalogue, accept_loss: bool) -> None:
    """Sees that all that was acknowledged came back; from a loss that is accepted the page goes on.

    Raises:
        Corruption: Some is missing, and ``accept_loss`` is false.
    """
    acked, versions = page.load(), catalogue.versions()
    losses = _losses(acked, storage, catalogue)
    if losses and not accept_loss:
        raise _lossy(folder, losses, catalogue)
    gone = [number for number in acked.versions if number not in versions]
    if losses or gone:
        page.reset(storage.sync(), versions, gone)


def _losses(acked: Acked, storage: Storage, catalogue: Catalogue) -> list[Loss]:
    """What was acknowledged and did not come back."""
    return lost(acked, storage.sequence(), catalogue.versions(), catalogue.next_number())


def _lossy(folder: Path, losses: list[Loss], catalogue: Catalogue) -> Corruption:
    names = {number: name for name, number in catalogue.numbers().items()}
    told = "; ".join(
        str(loss) + (f" ({names[loss.collection]!r})" if loss.collection in names else "") for loss in losses
    )
    return Corruption(
        f"folder {folder} came back without acknowledged data: {told}. Restore it from a backup, or open it "
        "with accept_loss=True to go on with what is left",
        path=str(folder),
        losses=[str(loss) for loss in losses],
    )
