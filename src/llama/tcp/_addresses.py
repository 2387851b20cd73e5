"""The local address of a connection."""

from __future__ import annotations

import contextlib
import socket

from llama._core.extensions import Extensions
from llama._core.server import Local


def local_address(extensions: Extensions) -> Local | None:
    """Return the address that a client connected to, from the extensions or else from the socket."""
    local = extensions.get(Local)
    sock = None if local is not None else extensions.get(socket.socket)
    if sock is not None:
        with contextlib.suppress(OSError):  # already closed
            name = sock.getsockname()
            local = Local(*name[:2]) if isinstance(name, tuple) else Local(str(name), 0)
            extensions.set(local)
    return local
