import asyncio
import logging
from functools import partial

import pytest

from llama import PeerAddress, RefusedError, Shutdown, Stream, tcp, testing


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


async def test_the_clients_stream_leads_to_the_handler() -> None:
    async with testing.connect(echo) as stream:
        await stream.write(b"hi")
        assert await stream.read() == b"hi"


async def test_after_a_normal_return_the_client_sees_the_end() -> None:
    async def greet(stream: Stream) -> None:
        await stream.write(b"hello")

    async with testing.connect(greet) as stream:
        assert await stream.read() == b"hello"
        assert await stream.read() == b""


async def test_leaving_closes_the_client_and_waits_for_the_handler() -> None:
    log: list[str] = []

    async def watch(stream: Stream) -> None:
        assert await stream.read() == b""
        await asyncio.sleep(0)
        log.append("saw the end")

    async with testing.connect(watch):
        pass
    assert log == ["saw the end"]


async def test_an_expected_error_is_logged_and_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    async def refuse(stream: Stream) -> None:
        raise RefusedError("not you")

    with caplog.at_level(logging.WARNING, "llama"):
        async with testing.connect(refuse) as stream:
            assert await stream.read() == b""
    assert caplog.messages == ["not you"]


async def test_a_reset_in_the_handler_resets_the_client() -> None:
    async def breaks(stream: Stream) -> None:
        raise ConnectionResetError("the upstream is gone")

    async with testing.connect(breaks) as stream:
        with pytest.raises(ConnectionResetError):
            await stream.read()


async def test_a_bug_is_raised_when_the_block_is_left() -> None:
    async def buggy(stream: Stream) -> None:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        async with testing.connect(buggy) as stream:
            with pytest.raises(ConnectionResetError):
                await stream.read()


async def test_a_bug_is_raised_with_the_error_it_caused() -> None:
    async def buggy(stream: Stream) -> None:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ConnectionResetError) as caught:
        async with testing.connect(buggy) as stream:
            await stream.read()
    assert caught.value.__notes__ == ["the handler had raised ZeroDivisionError('a bug')"]


async def test_a_block_that_raises_cancels_the_handler() -> None:
    ended: list[str] = []

    async def stuck(stream: Stream) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    with pytest.raises(KeyError):
        async with testing.connect(stuck):
            await asyncio.sleep(0)
            raise KeyError("in the block")
    assert ended == ["cancelled"]


async def test_the_handler_has_a_shutdown_and_a_peer() -> None:
    seen: list[object] = []

    async def look(stream: Stream) -> None:
        seen.append(stream.extensions.get(PeerAddress))
        seen.append(Shutdown.current())

    async with testing.connect(look, peer=PeerAddress("198.51.100.7", 7)):
        pass
    assert seen[0] == PeerAddress("198.51.100.7", 7) and seen[1] is not Shutdown.current()
    async with testing.connect(look, peer=None):
        pass
    assert seen[2] is None


async def test_another_pair_of_streams_may_be_used() -> None:
    async with (
        testing.connect(echo, pair=partial(testing.lockstep_pair, piece=1)) as stream,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(stream.write(b"ab"))
        assert [await stream.read(), await stream.read()] == [b"a", b"b"]


async def test_a_service_that_takes_no_stream_is_rejected() -> None:
    with pytest.raises(TypeError, match=r"testing\.connect\(\) gives Stream, tcp\.connect\(\) takes Target"):
        async with testing.connect(tcp.connect()):  # type: ignore[arg-type]
            pass


# Conversations.


async def shout(stream: Stream) -> None:
    await stream.write(b"READY\r\n")
    while data := await stream.read():
        if data == b"quit\n":
            return
        if data == b"crash\n":
            raise OSError("crashed")
        await stream.write(data.upper())
    await stream.write(b"BYE")


async def test_a_conversation() -> None:
    await testing.run_transcript(
        shout,
        "<< READY\r\n",
        ">> hello",
        "<< HE",
        "<< LLO",
        b">> \x80",
        b"<< \x80",
        ">> number 5",
        "<~ NUMBER [0-9]",
        ">>",
        "<< BYE",
        "<<",
    )


async def test_how_a_conversation_ends() -> None:
    await testing.run_transcript(shout, "<~ READY\\s+", ">> quit\n", "<<")
    await testing.run_transcript(shout, "<~ .*\n", ">> crash\n", "<!")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["<< REDDY"], "expected b'REDDY', heard b'READY\\r\\n'"),
        (["<< READY\r\n", ">> a", "<< AB", ">>"], "expected b'AB', and nothing came after b'A'"),
        (["<< READY\r\n", ">> quit\n", "<< more"], "expected b'more', and the end came after b''"),
        (["<< REA", "<<"], "expected the end, heard b'DY\\r\\n'"),
        (["<~ .*\n", ">> x", "<!"], "expected a break, heard b'X'"),
        (["<~ .*\n", ">> quit\n", "<!"], "expected a break, the end came"),
    ],
)
async def test_a_mismatch_shows_the_conversation(lines: list[str], says: str) -> None:
    async with testing.clock(autojump=True):
        with pytest.raises(AssertionError) as caught:
            await testing.run_transcript(shout, *lines)
    *told, last = str(caught.value).splitlines()
    assert last == says
    assert [line[:2] for line in told] == [line[:2] for line in lines[: len(told)]]


async def test_a_line_without_a_mark_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"invalid line .*: expected >>, <<, <~ or <!"):
        await testing.run_transcript(shout, "hello")
