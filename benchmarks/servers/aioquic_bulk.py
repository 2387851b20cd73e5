"""`aioquic_bulk.py LISTEN CERT KEY`: what `http3.py LISTEN CERT KEY bulk` does, by aioquic's own server.

It accepts by TCP too, once it is up, which is how one waits for it.
"""

from __future__ import annotations

import asyncio
import sys
from importlib import import_module
from typing import Any

connection: Any = import_module("aioquic.h3.connection")
events: Any = import_module("aioquic.h3.events")
quic_asyncio: Any = import_module("aioquic.asyncio")
quic_events: Any = import_module("aioquic.quic.events")
configuration: Any = import_module("aioquic.quic.configuration")
BYTES = bytes(range(256)) * 4096
FIELDS = [(b":status", b"200"), (b"content-type", b"application/octet-stream")]


class Bulk(quic_asyncio.QuicConnectionProtocol):  # type: ignore[misc]  # the library is not here for the checkers
    """One connection."""

    http: Any = None
    asked: dict[int, int]
    taken: dict[int, int]

    def quic_event_received(self, event: Any) -> None:
        """The library calls this."""
        if isinstance(event, quic_events.ProtocolNegotiated):
            self.http = connection.H3Connection(self._quic)
            self.asked, self.taken = {}, {}
        if self.http is not None:
            for each in self.http.handle_event(event):
                self.http_event(each)

    def http_event(self, event: Any) -> None:
        """A head, or bytes of a body."""
        number = event.stream_id
        if isinstance(event, events.HeadersReceived):
            asked = dict(event.headers)[b":path"].rpartition(b"?")[2]
            self.asked[number], self.taken[number] = int(asked) if asked.isdigit() else 0, 0
        elif isinstance(event, events.DataReceived):
            self.taken[number] += len(event.data)
        if event.stream_ended:
            asked, taken = self.asked.pop(number), self.taken.pop(number)
            self.http.send_headers(number, FIELDS)
            for _ in range(asked // len(BYTES)):
                self.http.send_data(number, BYTES, end_stream=False)
            self.http.send_data(number, b"" if asked else str(taken).encode(), end_stream=True)
            self.transmit()


async def main() -> None:
    """Serve until the process is ended."""
    listen, cert, key = sys.argv[1:]
    host, _, port = listen.rpartition(":")
    settings = configuration.QuicConfiguration(
        is_client=False, alpn_protocols=["h3"], max_datagram_frame_size=65536
    )
    settings.load_cert_chain(cert, key)
    await quic_asyncio.serve(host, int(port), configuration=settings, create_protocol=Bulk)
    await asyncio.start_server(lambda reader, writer: writer.close(), host, int(port))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
