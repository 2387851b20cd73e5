"""A test of a whole stack: no sockets, no sleeps, and no plugin to install but llama itself."""

from llama import Stream, testing


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


async def test_echo() -> None:
    async with testing.connect(echo) as stream:
        await stream.write(b"hi")
        assert await stream.read() == b"hi"
        await stream.write_eof()
        assert await stream.read() == b""
