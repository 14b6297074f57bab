"""Writing requests checked and turned into operations, which the committer carries out (``writer.py``).

Whatever can be wrong with what users gave is found here; nothing later fails on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vectordb.engine import checks
from vectordb.engine.operations import Delete, UpdateMetadata, Write
from vectordb.engine.results import Key
from vectordb.errors import InvalidArgument
from vectordb.ids import encoded_ids
from vectordb.row_policy import require_rows, scoped_key
from vectordb.validate import check_filter, check_metadata

if TYPE_CHECKING:
    from vectordb.engine.checks import CheckedRows
    from vectordb.engine.live import LiveCollection
    from vectordb.requests import DeleteRequest, UpdateMetadataRequest, WriteRequest


def rows_written(live: LiveCollection, request: WriteRequest, size: int) -> tuple[CheckedRows, Write]:
    """The rows, of ``size`` bytes, and the operation that writes them.

    Raises:
        InvalidArgument, DimensionMismatch, InvalidVector: A row is bad; the error names it.
        PermissionDenied: A row lies outside the policy. ResourceExhausted: More than a cap allows.
    """
    rows = checks.check_write(live.config, request, size, live.limits)
    if request.policy is not None:
        require_rows(request.policy, rows.ids, rows.metadata)
    return rows, Write(request.mode, rows, request.if_version, request.policy)


def metadata_updated(live: LiveCollection, request: UpdateMetadataRequest) -> UpdateMetadata:
    """Raises: InvalidArgument, InvalidFilter: A field is bad, or nothing is selected or changed."""
    _check_selection(live, request)
    if not request.set and not request.unset:
        raise InvalidArgument("give set, unset, or both; otherwise nothing would change", field="set")
    for path in request.unset:
        if not all(path.split(".")):
            raise InvalidArgument(f"unset has a bad field path {path!r:.60}; 'a' or 'a.b'", field="unset")
    new = checks.decoded(request.set, 0) if request.set else {}
    check_metadata(new, live.config.fields, row=0, max_bytes=live.limits.max_metadata_bytes)
    return UpdateMetadata(_ids(request), request.where, new, request.unset, request.if_version, request.policy)


def rows_deleted(live: LiveCollection, request: DeleteRequest) -> Delete:
    """Raises: InvalidArgument, InvalidFilter: Nothing is selected, or by something that is wrong."""
    _check_selection(live, request)
    return Delete(_ids(request), request.where, request.if_version, request.policy)


def key_of(
    request: WriteRequest | UpdateMetadataRequest | DeleteRequest, fingerprint: Callable[[], bytes]
) -> Key | None:
    """The request's idempotency key, if it has one. Raises InvalidArgument: it is none."""
    given = request.idempotency_key
    checks.check_idempotency_key(given)
    scoped = scoped_key(request.policy, given)
    return None if given is None or scoped is None else Key.of(given, scoped, fingerprint())


def _check_selection(live: LiveCollection, request: UpdateMetadataRequest | DeleteRequest) -> None:
    checks.check_selectors(request.ids, request.where)
    live.limits.check_filter(request.where)
    check_filter(request.where, live.config.fields)


def _ids(request: UpdateMetadataRequest | DeleteRequest) -> list[bytes] | None:
    return None if request.ids is None else encoded_ids(request.ids)
