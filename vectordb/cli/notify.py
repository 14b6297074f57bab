"""Telling systemd how a service is doing (``Type=notify``): one datagram to the socket that it names."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> bool:
    """Sends a state such as ``READY=1``; False where nobody asked for it. See sd_notify(3).

    Raises:
        OSError: The socket does not take it.
    """
    name = os.environ.get("NOTIFY_SOCKET", "")
    if not name:
        return False
    # A name of the abstract kind is written with @ in the place of its zero byte.
    address = "\0" + name[1:] if name.startswith("@") else name
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.sendto(state.encode(), address)
    return True
