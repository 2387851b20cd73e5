"""Responses whose bodies differ from what their heads declare, over HTTP/3."""

import asyncio
from collections.abc import AsyncIterator

import pytest

pytest.importorskip("qh3")

from llama import ProtocolError
from llama.http import Request, Response
from llama.http._h3.fields import Fields
from llama.http._h3.server import server_stream
from tests.http.h3.fixtures import client, h3


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    ("status", "length"), [(b"204", None), (b"304", b"5"), (b"200", b"3"), (b"200", b"9")]
)
async def test_a_body_of_another_length_is_an_error(
    status: bytes, length: bytes | None, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = asyncio.Event()

    async def late() -> AsyncIterator[bytes]:
        await read.wait()
        yield b"hello"

    async def answer(request: Request) -> Response:
        return Response(200, body=b"hello" if together else late())

    def encode(method: str, response: Response) -> tuple[Fields, int]:
        return [(b":status", status), *([(b"content-length", length)] if length else [])], -1

    monkeypatch.setattr(server_stream, "encode_response", encode)
    async with asyncio.timeout(5), h3(answer) as port, client() as ask:
        with pytest.raises(ProtocolError, match="declared"):
            response = await ask(Request("GET", f"https://localhost:{port}/"))
            read.set()
            try:
                await response.body.read()
            finally:
                await response.aclose()
