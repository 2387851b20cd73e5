"""Relays between a TLS session and a plain socket, either way round."""

import asyncio
import hashlib
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from llama import Bridge, Shutdown, Stream, Target, TruncatedError, tcp
from llama.tls._pump import DecryptPump, EncryptPump
from tests.tcp.socket_pairs import over_tcp
from tests.tls.sessions import shaken


@asynccontextmanager
async def relayed(
    *, tls_first: bool
) -> AsyncGenerator[tuple[Stream, Stream, asyncio.Task[BaseException | None]]]:
    """Both ends of a relay and its outcome: a TLS peer and a plain one, or the other way round."""
    async with shaken(over_tcp) as (secret, inside), over_tcp() as (open_, beside):
        client, target = (inside, beside) if tls_first else (beside, inside)

        async def reach(_: Target) -> Stream:
            return target

        async def outcome() -> BaseException | None:
            try:
                await tcp.relay()(Bridge(client, Target("target", 1), reach))
            except Exception as error:
                client.abort()
                target.abort()
                return error
            await client.aclose()
            await target.aclose()
            return None

        yield secret, open_, Shutdown.current().spawn(outcome())


async def send_in_pieces(stream: Stream, data: bytes, seed: int) -> None:
    rng, at = random.Random(seed), 0
    while at < len(data):
        size = rng.choice([1, 600, 16_383, 16_384, 16_385, 70_000, 300_000])
        await stream.write(data[at : at + size])
        at += size
    await stream.write_eof()


async def digest(stream: Stream) -> str:
    seen = hashlib.sha256()
    while data := await stream.read():
        seen.update(data)
    return seen.hexdigest()


either = pytest.mark.parametrize("tls_first", [True, False], ids=["TLS client", "TLS target"])


@either
async def test_pieces_of_any_size_go_both_ways_at_once(tls_first: bool) -> None:
    data = random.Random(7).randbytes(6_000_000)
    async with relayed(tls_first=tls_first) as (one, two, done):
        async with asyncio.TaskGroup() as group:
            seen = [group.create_task(digest(each)) for each in (one, two)]
            group.create_task(send_in_pieces(one, data, 1))
            group.create_task(send_in_pieces(two, data, 2))
        assert {task.result() for task in seen} == {hashlib.sha256(data).hexdigest()}
        assert await done is None


@either
async def test_messages_go_back_and_forth(tls_first: bool) -> None:
    async with relayed(tls_first=tls_first) as (one, two, done):
        for size in (1, 600, 16_384, 2, 20_000):
            for here, there in ((one, two), (two, one)):
                await here.write(b"m" * size)
                got = 0
                while got < size:
                    got += len(await there.read())
                assert got == size
        await one.write_eof()
        assert await two.read() == b""
        await two.write(b"last words")
        await two.write_eof()
        assert await one.read() == b"last words"
        assert await one.read() == b""
        assert await done is None


@either
async def test_a_slow_reader_slows_its_writer(tls_first: bool) -> None:
    data = bytes(16_000_000)
    async with relayed(tls_first=tls_first) as (one, two, done):
        for here, there in ((one, two), (two, one)):
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(here.write(data))
                for _ in range(300):
                    await asyncio.sleep(0)
                assert not writing.done()
                got = 0
                while got < len(data):
                    got += len(await there.read())
        await one.write_eof()
        await two.write_eof()
        assert await done is None


async def test_a_session_without_close_notify_resets_the_other_side() -> None:
    async with relayed(tls_first=True) as (secret, plain, done):
        await secret.write(b"half of it")
        assert await plain.read() == b"half of it"
        await secret._inner.write_eof()  # type: ignore[attr-defined]  # without close_notify
        with pytest.raises(ConnectionResetError):
            await plain.read()
        assert isinstance(await done, TruncatedError)


async def test_a_damaged_record_ends_the_relay() -> None:
    async with relayed(tls_first=True) as (secret, plain, done):
        await secret._inner.write(b"\x17\x03\x03\x00\x20" + bytes(32))  # type: ignore[attr-defined]
        with pytest.raises(ConnectionResetError):
            await plain.read()
        assert "failed authentication" in str(await done)


async def test_sessions_over_sockets_use_their_own_pumps() -> None:
    async with shaken(over_tcp) as (_, session), over_tcp() as (_, plain):
        pump = session.make_pump(session, plain, lambda pump, error: None)  # type: ignore[attr-defined]
        back = session.make_pump(plain, session, lambda pump, error: None)  # type: ignore[attr-defined]
        assert isinstance(pump, DecryptPump) and isinstance(back, EncryptPump)
