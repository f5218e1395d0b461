"""Tells a service manager that the controller is ready or stopping (sd_notify(3)), when there is one."""

from __future__ import annotations

import os
import socket


def notify_service_manager(state: str) -> None:
    """Send `state` ("READY=1", "STOPPING=1") to the socket in NOTIFY_SOCKET; nothing happens without one.

    Raises OSError when the socket is named but does not take it.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.connect("\0" + path[1:] if path.startswith("@") else path)
        manager.sendall(state.encode())
