"""Frames of HTTP/2 (RFC 9113) as gRPC uses them: what both ends of a connection of our own need to know.

Used where grpc's own machinery costs more than the call: by the client's connections, and by the server's lane.
"""

from __future__ import annotations

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""The first bytes of a client."""
DATA, HEADERS, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 8, 9
"""Kinds of frames."""
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
ODD = 0x28
"""Flags of padding and of priorities, which no peer of ours uses."""
HEADER_TABLE, ENABLE_PUSH, MOST_STREAMS, FIRST_WINDOW_SIZE, FRAME_SIZE = 1, 2, 3, 4, 5
"""Names of settings."""
FRAME = struct.Struct(">IBI")
"""Length and kind together, flags, stream."""
MESSAGE = struct.Struct(">BI")
"""What gRPC puts before a message: whether it is compressed, and its length."""
LARGEST_WINDOW = (1 << 31) - 1
FIRST_WINDOW = 65_535
"""Bytes that a peer takes before it has said anything else."""
LEAST_FRAME = 16_384
"""Bytes of a frame that every peer takes."""
LARGEST_FRAME = (1 << 24) - 1


def frame(kind: int, flags: int, stream: int, data: bytes) -> bytes:
    """One frame."""
    return FRAME.pack(len(data) << 8 | kind, flags, stream) + data


def settings(*values: tuple[int, int]) -> bytes:
    """A frame of settings, by their names."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *value) for value in values))


def window(more: int, stream: int = 0) -> bytes:
    """A frame that lets the peer send so many bytes more; of the whole connection, or of one stream."""
    return frame(WINDOW, 0, stream, struct.pack(">I", more))


LANE_KEY = "vectordb-lane"
"""Metadata: of a client that asks for the server's lane; trailing, its address; and of each call there, its key."""
