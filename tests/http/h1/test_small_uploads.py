"""A request's body that came with its head goes up with it: in one write, and without a task."""

import asyncio

import pytest

from llama import Stream, testing
from llama.http import client, reverse_proxy, server
from tests.http.upstreams import OK, Upstream

HEAD = b"POST / HTTP/1.1\r\nHost: a.example\r\n"


class Recorder:
    """An upstream that answers once it has read so much; it keeps each read, and whether a task sent it."""

    def __init__(self, *ends: bytes) -> None:
        self.ends = ends
        self.reads: list[bytes] = []
        self.tasks = 0

    async def __call__(self, stream: Stream) -> None:
        for end in self.ends:
            got = b""
            while not got.endswith(end):
                data = await stream.read()
                if not data:
                    return
                self.tasks += "send an HTTP body" in [task.get_name() for task in asyncio.all_tasks()]
                self.reads.append(data.partition(b"\r\n\r\n")[2] if data.startswith(b"POST") else data)
                got += data
            await stream.write(OK)


async def said(recorder: Recorder, *parts: bytes) -> bytes:
    """What the client of a reverse proxy hears. In lockstep, each write is one read of the other side."""
    async with (
        client(Upstream(recorder, testing.lockstep_pair)) as fetcher,
        testing.connect(
            server()(reverse_proxy("http://a.example", client=fetcher)), pair=testing.lockstep_pair
        ) as stream,
    ):
        for part in parts:
            await stream.write(part)
        heard = b""
        while heard.count(b"\r\n\r\nok") < len(recorder.ends) and (data := await stream.read()):
            heard += data
        return heard


async def test_a_body_that_came_with_its_head_is_one_write_and_no_task() -> None:
    recorder = Recorder(b"hello")
    assert b" 200 OK\r\n" in await said(recorder, HEAD + b"Content-Length: 5\r\n\r\nhello")
    assert recorder.reads == [b"hello"]
    assert recorder.tasks == 0


async def test_so_is_the_one_of_a_request_that_was_sent_too_early() -> None:
    recorder = Recorder(b"hello", b"again")
    requests = HEAD + b"Content-Length: 5\r\n\r\nhello" + HEAD + b"Content-Length: 5\r\n\r\nagain"
    assert (await said(recorder, requests)).count(b" 200 OK\r\n") == 2
    assert recorder.reads == [b"hello", b"again"]
    assert recorder.tasks == 0


@pytest.mark.parametrize(
    ("framing", "first", "later", "reads"),
    [
        (b"Content-Length: 5", b"", b"hello", [b"", b"hello"]),
        (b"Content-Length: 5", b"he", b"llo", [b"", b"he", b"llo"]),
        (b"Transfer-Encoding: chunked", b"2\r\nhe\r\n", b"0\r\n\r\n", [b"", b"2\r\nhe\r\n", b"0\r\n\r\n"]),
        (b"Transfer-Encoding: chunked", b"2\r", b"\nhe\r\n0\r\n\r\n", [b"", b"2\r\nhe\r\n", b"0\r\n\r\n"]),
    ],
)
async def test_a_body_that_comes_later_goes_up_by_a_task_as_it_comes(
    framing: bytes, first: bytes, later: bytes, reads: list[bytes]
) -> None:
    recorder = Recorder(reads[-1])
    assert b" 200 OK\r\n" in await said(recorder, HEAD + framing + b"\r\n\r\n" + first, later)
    assert recorder.reads == reads
    assert recorder.tasks > 0


async def test_who_waits_for_continue_is_asked_for_the_body_all_the_same() -> None:
    head = HEAD + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    async with (
        client(Upstream(waiting, testing.lockstep_pair)) as fetcher,
        testing.connect(server()(reverse_proxy("http://a.example", client=fetcher))) as stream,
    ):
        await stream.write(head)
        assert await stream.read() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await stream.write(b"hello")
        assert b" 200 OK\r\n" in await stream.read()


async def waiting(stream: Stream) -> None:
    """An upstream that asks for the body."""
    while b"\r\n\r\n" not in await stream.read():
        pass
    await stream.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert await stream.read() == b"hello"
    await stream.write(OK)


async def test_a_chunk_that_is_none_breaks_the_request_off() -> None:
    recorder = Recorder(b"0\r\n\r\n")
    heard = await said(recorder, HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;\x00\r\nhello\r\n0\r\n\r\n")
    assert heard.startswith(b"HTTP/1.1 400 ")
    assert recorder.reads in ([], [b""])
