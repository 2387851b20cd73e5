"""The smallest HTTP proxy that a chain can go through."""

from llama import Bridge, ConnectionHandler, Stream, Target, tcp
from llama.http._h1.wire.fields import HeadBuffer
from llama.http._h1.wire.head import parse_request


def connect_proxy(credentials: str) -> ConnectionHandler:
    """A handler that answers CONNECT from who brings these Basic credentials."""
    relay, connect = tcp.relay(), tcp.connect()

    async def handle(stream: Stream) -> None:
        buffer, found = HeadBuffer(), None
        while found is None:
            found = buffer.feed(await stream.read())
        head = parse_request(found[0])
        assert head.method == "CONNECT"
        assert head.headers["proxy-authorization"] == f"Basic {credentials}"
        stream.unread(found[1])
        bridge = Bridge(stream, Target.parse(head.target), connect)
        try:
            await bridge.upstream()
            await stream.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await relay(bridge)
            await bridge.aclose()
        finally:
            bridge.abort()

    return handle
