"""A connection that was just accepted when stopping begins: its first request is not lost."""

from llama import testing
from llama.http import server
from llama.http._h1.request_head_reader import FIRST_BYTES_TIMEOUT
from tests.http.serving import CLOSING, client_of, get, hello


async def test_a_first_request_after_stopping_began_is_answered() -> None:
    async with client_of(server()(hello)) as client:
        client.shutdown.stop()  # the handler has not run yet
        await client.say(get())
        assert await client.hear_end() == CLOSING


async def test_a_first_request_in_flight_is_answered() -> None:
    async with testing.clock() as clock, client_of(server()(hello)) as client:
        await clock.settle()
        client.shutdown.stop()
        await clock.advance(FIRST_BYTES_TIMEOUT / 2)
        await client.say(get())
        assert await client.hear_end() == CLOSING


async def test_a_connection_without_a_request_ends_within_a_second() -> None:
    async with testing.clock() as clock, client_of(server()(hello)) as client:
        await clock.settle()
        client.shutdown.stop()
        await clock.advance(FIRST_BYTES_TIMEOUT * 0.9)
        assert not client.served.done()
        await clock.advance(FIRST_BYTES_TIMEOUT * 0.1)
        assert await client.hear_end() == b""


async def test_an_old_connection_without_a_request_ends_immediately() -> None:
    async with testing.clock() as clock, client_of(server()(hello)) as client:
        await clock.advance(FIRST_BYTES_TIMEOUT)
        client.shutdown.stop()
        assert await client.hear_end() == b""


async def test_a_recent_connection_gets_the_rest_of_the_second() -> None:
    async with testing.clock() as clock, client_of(server()(hello)) as client:
        await clock.settle()
        await clock.advance(FIRST_BYTES_TIMEOUT * 0.75)
        client.shutdown.stop()
        await clock.advance(FIRST_BYTES_TIMEOUT * 0.2)
        assert not client.served.done()
        await clock.advance(FIRST_BYTES_TIMEOUT * 0.1)
        assert await client.hear_end() == b""
