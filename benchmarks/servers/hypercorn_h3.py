"""`hypercorn_h3.py LISTEN CERT KEY`: the small ASGI application in hypercorn, over TLS and QUIC at one port.

In one process: that is the same as one worker. aioquic 1.2 tells the end of a request again when that was sent
again, which ends hypercorn's QUIC server; later versions do not, but mitmproxy has only this one beside it.
"""

from __future__ import annotations

import asyncio
import sys
from importlib import import_module
from typing import Any

from benchmarks.servers.app import app

config: Any = import_module("hypercorn.config").Config()
receiver: Any = import_module("aioquic.quic.stream").QuicStreamReceiver
received = receiver.handle_frame


def handle_frame(self: Any, frame: Any) -> Any:
    """What later versions do."""
    return None if self.is_finished else received(self, frame)


if __name__ == "__main__":
    config.bind = config.quic_bind = [sys.argv[1]]
    config.certfile, config.keyfile = sys.argv[2:4]
    config.loglevel = "ERROR"
    receiver.handle_frame = handle_frame
    asyncio.run(import_module("hypercorn.asyncio").serve(app, config))
