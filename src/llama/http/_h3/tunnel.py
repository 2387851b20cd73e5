"""A Stream over one HTTP/3 request stream, for CONNECT (RFC 9114 section 4.4)."""

from __future__ import annotations

from llama._core.stream import closed_error
from llama.http._h3.stream import H3_CONNECT_ERROR, H3_NO_ERROR, H3_REQUEST_CANCELLED, H3Stream
from llama.http._stream_tunnel import StreamTunnel


class H3Tunnel(StreamTunnel):
    """A byte stream over a channel. The creator of the channel closes it after the stream."""

    __slots__ = ("_channel",)

    def __init__(self, channel: H3Stream) -> None:
        super().__init__()
        self._channel = channel

    def __repr__(self) -> str:
        return f"<tunnel over HTTP/3 stream {self._channel.number}>"

    async def _receive(self, limit: int) -> bytes:
        return await self._channel.read(limit)

    @property
    def _is_sending(self) -> bool:
        return self._channel.error is None and not self._channel.stopped

    async def _send(self, piece: memoryview) -> None:
        await self._channel.send(piece)

    def _end(self) -> None:
        self._channel.end()

    def _finish(self, *, broken: bool) -> None:
        if not broken:
            self._channel.end()
        self._free(H3_REQUEST_CANCELLED if broken else H3_NO_ERROR)

    def _cut(self) -> None:
        self._free(H3_CONNECT_ERROR)

    def _free(self, code: int) -> None:
        self._channel.fail(closed_error(self))
        self._channel.drop()
        self._channel.abort(code)
