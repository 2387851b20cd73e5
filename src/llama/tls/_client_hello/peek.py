"""Reads the ClientHello without consuming it."""

from __future__ import annotations

from email.utils import formatdate

from llama._core.errors import ProtocolError, TLSError, TooLargeError
from llama._core.stream import Stream
from llama.tls._client_hello.client_hello import ClientHello, HelloReader
from llama.tls._client_hello.records import BadRecord
from llama.tls._drain import drain

_FATAL = b"\x15\x03\x01\x00\x02\x02"  # an alert record, of level fatal
DECODE_ERROR = 50
UNRECOGNIZED_NAME = 112
NO_APPLICATION_PROTOCOL = 120
ACCESS_DENIED = 49


async def read_hello(stream: Stream) -> tuple[ClientHello, bytes]:
    """Read until the ClientHello is complete; return it and all bytes read.

    Raises TLSError for anything else, after sending the alert that the RFC requires, or status 400 in answer to a
    plain HTTP request; the bytes read are then lost.
    """
    reader = HelloReader()
    pieces: list[bytes] = []
    hello: ClientHello | None = None
    while hello is None:
        if not (data := await stream.read(16384)):
            raise TLSError(
                "the peer closed the connection before its ClientHello" if pieces else "the peer sent nothing"
            )
        pieces.append(data)
        try:
            hello = reader.feed(data)
        except (ProtocolError, TooLargeError) as error:
            await _answer(stream, error)
            raise TLSError(str(error)) from None
    return hello, b"".join(pieces) if len(pieces) > 1 else pieces[0]


async def peek_hello(stream: Stream, /) -> ClientHello:
    """Return the client's ClientHello, leave its bytes in the stream, and set it in the stream's extensions.

    It may be split over records and segments, up to 131,400 bytes without record headers. Raises TLSError if the
    client sends anything else.
    """
    try:
        hello, data = await read_hello(stream)
        stream.unread(data)
        await check_hello(stream, hello)
    except TLSError:
        await drain(stream)
        raise
    stream.extensions.set(hello)
    return hello


async def check_hello(stream: Stream, hello: ClientHello) -> None:
    """Send decode_error and raise TLSError for a hello with a malformed field."""
    try:
        hello.validate()
    except ProtocolError as error:
        await send_alert(stream, DECODE_ERROR)
        raise TLSError(str(error)) from None


async def _answer(stream: Stream, error: ProtocolError | TooLargeError) -> None:
    if not isinstance(error, BadRecord):
        await send_alert(stream, DECODE_ERROR)
    elif error.http_method:
        await _send(stream, _plain_http_response(error.http_method))
    elif error.alert is not None:
        await send_alert(stream, error.alert)


def _plain_http_response(method: bytes) -> bytes:
    body = b"400 Bad Request\n\nThis port expects HTTPS, but the request was sent in plain HTTP.\n"
    head = (
        f"HTTP/1.1 400 Bad Request\r\nDate: {formatdate(usegmt=True)}\r\n"
        f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode()
    return head if method == b"HEAD" else head + body


async def send_alert(stream: Stream, description: int) -> None:
    """Send an unencrypted fatal alert, before a session has keys (RFC 8446, section 6)."""
    await _send(stream, _FATAL + bytes((description,)))


async def _send(stream: Stream, data: bytes) -> None:
    try:
        await stream.write(data)
    except OSError:
        return  # the peer has closed the connection already


async def refuse(stream: Stream, description: int) -> None:
    """Send an unencrypted fatal alert and give the client time to read it."""
    await send_alert(stream, description)
    await drain(stream)
