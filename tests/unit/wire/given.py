"""What the tests of messages draw from, and a message's trip."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import strategies as st

TEXT = st.text(max_size=8)
INT64 = st.integers(-(2**63), 2**63 - 1)
WHEN = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))
SCALAR = st.booleans() | INT64 | st.floats(allow_nan=False, allow_infinity=False) | TEXT | WHEN


def again(message):
    """The message after a trip as bytes."""
    return type(message).FromString(message.SerializeToString())
