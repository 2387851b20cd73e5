"""The server's HTTP/2: what a client hears."""

from __future__ import annotations

import asyncio
import logging

import pytest

from llama import http, stack
from llama._core.errors import OverloadedError, TruncatedError
from llama._core.stream import Stream
from llama.http import Headers, Request, Response
from llama.http._h2.wire import frames
from llama.http._h2.wire.frames import frame, rst_stream
from llama.http._limits import H2Limits
from tests.http.h2.raw_client import fields, talk_to
from tests.http.h2.wire.h2_pair import GET, POST
from tests.http.serving import client_of, echo, hello


async def test_a_request_is_answered() -> None:
    async with talk_to(stack(http.server(), hello)) as talk:
        await talk.ask()
        await talk.hear("1 response 200 content-length=5", "1 data hello end")


async def test_the_date_is_told() -> None:
    async with talk_to(stack(http.server(), hello)) as talk:
        await talk.ask()
        while not talk.side.lines:
            await talk.more()
        assert " date=" in talk.side.lines[0] and talk.side.lines[0].endswith(" GMT")


async def test_an_exchange_sees_what_it_would_see_over_http_1() -> None:
    seen: list[Request] = []

    async def app(request: Request) -> Response:
        seen.append(request)
        return Response(204)

    async with talk_to(stack(http.server(), app)) as talk:
        await talk.ask(fields("GET", "/a?b", ("x-one", "1"), ("cookie", "a=b"), ("cookie", "c=d")))
        await talk.hear("1 response 204 end")
    (request,) = seen
    assert (request.method, request.scheme, request.authority, request.path) == ("GET", "http", "a", "/a?b")
    assert (request.version, request.url, request.query) == ("2", "http://a/a?b", "b")
    assert list(request.headers) == [("host", "a"), ("x-one", "1"), ("cookie", "a=b; c=d")]
    assert str(request.client) == "192.0.2.1:5"
    assert await request.body.read() == b""


@pytest.mark.parametrize("size", [0, 1, 100_000, 3_000_000])
async def test_a_body_goes_up_and_comes_back(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    async with talk_to(stack(http.server(), echo)) as talk:
        stream = await talk.ask(POST, end=False)

        async def send() -> None:
            at = 0
            while at < size:
                room = min(16_384, talk.side.engine.room(stream), size - at)
                if room > 0:
                    talk.side.engine.send_data(stream, data[at : at + room], end=False)
                    at += room
                    await talk.flush()
                else:
                    await talk.more()
                    got = talk.side.bodies.get(1, b"")
                    talk.side.engine.consumed(stream, len(got) - given[0])
                    given[0] = len(got)
                    await talk.flush()
            talk.side.engine.send_data(stream, b"", end=True)
            await talk.flush()

        given = [0]
        await send()
        while stream.state < 4:
            got = talk.side.bodies.get(1, b"")
            talk.side.engine.consumed(stream, len(got) - given[0])
            given[0] = len(got)
            await talk.flush()
            assert await talk.more()
        assert talk.side.bodies.get(1, b"") == data[:size]


async def test_trailers_go_both_ways() -> None:
    async def app(request: Request) -> Response:
        body = await request.body.read()
        response = Response(200, body=[body])
        response.trailers = Headers({"Got": (request.trailers or Headers())["x-sum"]})
        return response

    async with talk_to(stack(http.server(), app)) as talk:
        stream = await talk.ask(POST, end=False)
        await talk.send(stream, b"abc")
        talk.side.engine.send_head(stream, [("x-sum", "3")], end=True)
        await talk.flush()
        await talk.hear("1 response 200", "1 data abc", "1 trailers got=3")


async def test_informational_responses_come_before_the_final_one() -> None:
    async def app(request: Request) -> Response:
        await request.send_informational(103, {"Link": "</a>"})
        return Response(200)

    async with talk_to(stack(http.server(), app)) as talk:
        await talk.ask()
        await talk.hear("1 interim 103 link=</a>", "1 response 200 end")


async def test_a_client_that_waits_is_told_to_go_on() -> None:
    async with talk_to(stack(http.server(), echo)) as talk:
        stream = await talk.ask(fields("POST", "/", ("expect", "100-continue")), end=False)
        await talk.hear("1 response 200")
        del stream
    read = asyncio.Event()

    async def app(request: Request) -> Response:
        body = await request.body.read()
        read.set()
        return Response(200, body=body)

    async with talk_to(stack(http.server(), app)) as talk:
        stream = await talk.ask(fields("POST", "/", ("expect", "100-continue")), end=False)
        await talk.hear("1 interim 100")
        await talk.send(stream, b"x", end=True)
        await talk.hear("1 response 200 content-length=1", "1 data x end")


async def test_an_expectation_that_cannot_be_met_is_417() -> None:
    async with talk_to(stack(http.server(), echo)) as talk:
        await talk.ask(fields("POST", "/", ("expect", "magic")), end=False)
        lines = await talk.until("end")
        assert lines[0].startswith("1 response 417")


async def test_head_has_a_length_and_no_body() -> None:
    async with talk_to(stack(http.server(), hello)) as talk:
        await talk.ask(fields("HEAD"))
        await talk.hear("1 response 200 content-length=5 end")


async def test_fields_of_the_connection_are_dropped_and_names_are_in_lower_case() -> None:
    async def app(request: Request) -> Response:
        headers = {"Connection": "x-a", "X-A": "1", "Keep-Alive": "5", "X-B": "2", "Upgrade": "h3"}
        return Response(200, headers, b"x")

    async with talk_to(stack(http.server(), app)) as talk:
        await talk.ask()
        await talk.hear("1 response 200 x-b=2 content-length=1", "1 data x end")


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError("a bug"), 500), (TimeoutError(), 504), (OverloadedError("full"), 503)]
)
async def test_an_exception_is_answered_by_what_it_means(error: Exception, status: int) -> None:
    async def app(request: Request) -> Response:
        raise error

    async with talk_to(stack(http.server(), app)) as talk:
        await talk.ask()
        lines = await talk.until("end")
        assert lines[0].startswith(f"1 response {status} ") and "proxy-status=llama; error=" in lines[0]
        await talk.ask()
        await talk.until("end")


@pytest.mark.parametrize(
    "response", [Response(99), Response(200, {"Content-Length": "9"}, b"x"), Response(101)]
)
async def test_a_response_that_cannot_be_sent_is_500(response: Response) -> None:
    async def app(request: Request) -> Response:
        return response

    async with talk_to(stack(http.server(), app)) as talk:
        await talk.ask()
        assert (await talk.until("end"))[0].startswith("1 response 500")


async def test_a_body_that_breaks_off_or_does_not_fit_resets_the_stream() -> None:
    async def broken() -> object:
        yield b"x"
        raise TruncatedError("gone")

    async def app(request: Request) -> Response:
        if request.path == "/long":
            return Response(200, {"Content-Length": "1"}, [b"xx"])
        if request.path == "/short":
            return Response(200, {"Content-Length": "3"}, [b"xx"])
        return Response(200, body=broken())  # type: ignore[arg-type]

    async with talk_to(stack(http.server(), app)) as talk:
        for path in ("/", "/long", "/short"):
            await talk.ask(fields("GET", path))
            assert (await talk.until("by peer"))[-1].endswith("reset INTERNAL_ERROR by peer")


async def test_a_head_that_is_too_large_is_431() -> None:
    server = http.server(h2=H2Limits(max_header_list_size=1000))
    async with talk_to(stack(server, hello)) as talk:
        await talk.ask([*GET, ("x", "y" * 2000)])
        lines = await talk.until("end")
        assert lines[0].startswith("1 response 431")
        await talk.ask()
        await talk.hear("3 response 200 content-length=5", "3 data hello end")


async def test_thirty_streams_with_an_oversized_cookie_get_431_and_the_connection_lives() -> None:
    async with talk_to(stack(http.server(), hello)) as talk:
        for id in range(1, 61, 2):
            await talk.ask([*GET, ("cookie", "c" * 70_000)])
            lines = await talk.until("end")
            assert lines[0].startswith(f"{id} response 431")
        await talk.ask()
        await talk.hear("61 response 200 content-length=5", "61 data hello end")


# several at a time


async def test_streams_are_answered_as_they_are_ready() -> None:
    events = {f"/{name}": asyncio.Event() for name in "abc"}

    async def app(request: Request) -> Response:
        await events[request.path].wait()
        return Response(200, body=request.path)

    async with talk_to(stack(http.server(), app)) as talk:
        for path in events:
            await talk.ask(fields("GET", path))
        for path, id in (("/c", 5), ("/a", 1), ("/b", 3)):
            events[path].set()
            await talk.hear(f"{id} response 200 content-length=2", f"{id} data {path} end")


async def test_a_body_nobody_reads_stalls_no_other_stream() -> None:
    waiting = asyncio.Event()

    async def app(request: Request) -> Response:
        if request.path == "/wait":
            await waiting.wait()
        return Response(200, body=str(len(await request.body.read(10_000_000))))

    async with talk_to(stack(http.server(), app)) as talk:
        stuck = await talk.ask(fields("POST", "/wait"), end=False)
        for _ in range(4):
            await talk.send(stuck, bytes(16_000))
        other = await talk.ask(fields("POST", "/"), end=False)
        await talk.send(other, bytes(3_000_000), end=True)
        await talk.hear("3 response 200 content-length=7", "3 data 3000000 end")
        waiting.set()
        await talk.send(stuck, bytes(100_000), end=True)
        await talk.hear("1 response 200 content-length=6", "1 data 164000 end")


async def test_large_bodies_take_turns_and_small_ones_pass_between() -> None:
    async def app(request: Request) -> Response:
        return Response(200, body=bytes(1_000_000 if request.path == "/large" else 10))

    limits = H2Limits(initial_window=4_000_000, max_window=4_000_000)
    async with talk_to(stack(http.server(), app), limits) as talk:
        for path in ("/large", "/large", "/small"):
            await talk.ask(fields("GET", path))
        await talk.until("end")
        assert talk.side.streams[5].state >= 4
        assert talk.side.streams[1].state < 4 and talk.side.streams[3].state < 4
        lengths: list[int] = []
        while talk.side.streams[1].state < 4 and talk.side.streams[3].state < 4:
            await talk.more()
            bodies = talk.side.bodies
            lengths.append(abs(len(bodies.get(1, b"")) - len(bodies.get(3, b""))))
        assert max(lengths) < 250_000


async def test_what_is_urgent_goes_first() -> None:
    async def app(request: Request) -> Response:
        return Response(200, body=bytes(1_000_000))

    limits = H2Limits(initial_window=4_000_000, max_window=4_000_000)
    async with talk_to(stack(http.server(), app), limits) as talk:
        for urgency in (6, 1):
            await talk.ask(fields("GET", "/", ("priority", f"u={urgency}")))
        lines = await talk.until("end")
        assert lines[-1].startswith("3 ")
        assert len(talk.side.bodies.get(1, b"")) < 300_000


async def test_no_more_is_asked_of_a_body_than_the_client_takes() -> None:
    asked = 0

    async def chunks() -> object:
        nonlocal asked
        for _ in range(200):
            asked += 1
            yield bytes(10_000)

    async def app(request: Request) -> Response:
        return Response(200, body=chunks())  # type: ignore[arg-type]

    async with talk_to(stack(http.server(), app)) as talk:
        stream = await talk.ask()
        while len(talk.side.bodies.get(1, b"")) < 65_535:
            await talk.more()
        await talk.settle()
        assert asked == 7
        assert len(await talk.body(stream)) == 2_000_000


# who leaves


async def test_a_reset_cancels_the_handler() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def app(request: Request) -> Response:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return Response(200)

    async with talk_to(stack(http.server(), app)) as talk:
        stream = await talk.ask()
        await started.wait()
        talk.side.engine.reset(stream, frames.CANCEL)
        await talk.flush()
        await cancelled.wait()
        await talk.settle()
        assert talk.lines() == []


async def test_a_reset_while_the_body_goes_out_closes_the_response() -> None:
    closed = asyncio.Event()

    async def app(request: Request) -> Response:
        response = Response(200, body=bytes(10_000_000))
        response.on_close(closed.set)
        return response

    async with talk_to(stack(http.server(), app)) as talk:
        stream = await talk.ask()
        await talk.until("data 16384")
        talk.side.engine.reset(stream, frames.CANCEL)
        await talk.flush()
        await closed.wait()


async def test_a_client_that_leaves_cancels_its_handlers() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def app(request: Request) -> Response:
        started.set()
        try:
            await request.body.read()
        finally:
            cancelled.set()
        return Response(200)

    async with talk_to(stack(http.server(), app)) as talk:
        await talk.ask(POST, end=False)
        await started.wait()
        await talk.stream.aclose()
        await cancelled.wait()


async def test_with_half_close_a_client_that_ended_its_side_is_answered() -> None:
    async with talk_to(stack(http.server(half_close=True), hello)) as talk:
        await talk.ask()
        await talk.stream.write_eof()
        assert (await talk.hear_end())[:2] == ["1 response 200 content-length=5", "1 data hello end"]


async def test_a_request_body_that_nobody_wants_is_read_a_little_and_then_stopped() -> None:
    async with talk_to(stack(http.server(), hello)) as talk:
        stream = await talk.ask(POST, end=False)
        await talk.hear("1 response 200 content-length=5", "1 data hello end")
        for _ in range(4):
            await talk.send(stream, bytes(16_000))
        await talk.until("1 reset NO_ERROR by peer")
        stream = await talk.ask(POST, end=False)
        await talk.hear("3 response 200 content-length=5", "3 data hello end")
        await talk.send(stream, b"x", end=True)
        await talk.settle()
        assert talk.lines() == []


async def test_who_waits_to_be_asked_for_a_body_is_not_waited_for() -> None:
    async with talk_to(stack(http.server(), hello)) as talk:
        await talk.ask(fields("POST", "/", ("expect", "100-continue")), end=False)
        async with asyncio.timeout(0.9):
            await talk.hear("1 response 200 content-length=5", "1 data hello end", "1 reset NO_ERROR by peer")


async def test_stopping_says_goodbye_twice_and_answers_what_is_there() -> None:
    event = asyncio.Event()

    async def app(request: Request) -> Response:
        await event.wait()
        return Response(200)

    async with talk_to(stack(http.server(), app)) as talk:
        await talk.ask()
        await talk.settle()
        talk.shutdown.stop()
        await talk.hear("goaway 2147483647 NO_ERROR", "goaway 1 NO_ERROR")
        event.set()
        assert (await talk.hear_end())[0] == "1 response 200 end"


async def test_stopping_ends_a_connection_that_is_idle() -> None:
    async with talk_to(stack(http.server(), hello)) as talk:
        await talk.ask()
        await talk.until("hello end")
        talk.shutdown.stop()
        assert (await talk.hear_end())[:2] == ["goaway 2147483647 NO_ERROR", "goaway 1 NO_ERROR"]


async def test_after_so_many_requests_the_connection_is_to_be_left() -> None:
    async with talk_to(stack(http.server(max_requests=2), hello)) as talk:
        await talk.ask()
        await talk.ask()
        lines = await talk.hear_end()
        assert "3 data hello end" in lines and "goaway 3 NO_ERROR" in lines


async def test_an_answer_with_connection_close_leaves_the_connection_too() -> None:
    async def app(request: Request) -> Response:
        return Response(200, {"Connection": "close"}, b"last")

    async with talk_to(stack(http.server(), app)) as talk:
        await talk.ask()
        lines = await talk.hear_end()
        assert "1 data last end" in lines and "goaway 1 NO_ERROR" in lines


# times


@pytest.mark.parametrize("name", ["idle_timeout", "first_byte_timeout"])
async def test_an_idle_connection_ends(name: str) -> None:
    async with talk_to(stack(http.server(**{name: 0.05}), hello)) as talk:  # type: ignore[arg-type]
        if name == "idle_timeout":
            await talk.ask()
            await talk.until("hello end")
        assert (await talk.hear_end())[-1].startswith("goaway")


async def test_a_head_that_does_not_end_ends_the_connection() -> None:
    async with talk_to(stack(http.server(head_timeout=0.05), hello)) as talk:
        await talk.raw(frame(frames.HEADERS, 0, 1, b"\x82"))
        assert (await talk.hear_end())[-1].startswith("goaway")


async def test_a_body_that_does_not_come_is_408() -> None:
    async with talk_to(stack(http.server(body_timeout=0.05), echo_whole)) as talk:
        await talk.ask(POST, end=False)
        assert (await talk.until("end"))[0].startswith("1 response 408")


async def echo_whole(request: Request) -> Response:
    return Response(200, body=await request.body.read())


async def test_an_answer_that_does_not_come_is_504() -> None:
    async def app(request: Request) -> Response:
        await asyncio.Event().wait()
        return Response(200)

    async with talk_to(stack(http.server(handler_timeout=0.05), app)) as talk:
        await talk.ask()
        assert (await talk.until("end"))[0].startswith("1 response 504")


# tunnels


async def shout(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data.upper())
    await stream.write(b"bye")


async def tunnel(request: Request) -> Response:
    return Response(200, {"X-For": request.upgrade_protocol or request.authority}, upgrade=shout)


async def test_connect_makes_a_tunnel() -> None:
    async with talk_to(stack(http.server(), tunnel)) as talk:
        stream = await talk.ask([(":method", "CONNECT"), (":authority", "b:443")], end=False)
        await talk.hear("1 response 200 x-for=b:443")
        await talk.send(stream, b"hello")
        await talk.hear("1 data HELLO")
        await talk.send(stream, b"", end=True)
        await talk.hear("1 data bye", "1 data end")


async def test_an_extended_connect_makes_a_tunnel_for_its_protocol() -> None:
    async with talk_to(stack(http.server(), tunnel)) as talk:
        stream = await talk.ask([(":method", "CONNECT"), *GET[1:], (":protocol", "Shout")], end=False)
        await talk.hear("1 response 200 x-for=shout")
        await talk.send(stream, b"hello", end=True)
        await talk.hear("1 data HELLO", "1 data bye", "1 data end")


async def test_a_tunnel_that_is_reset_breaks_off(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "llama.server")
    broken: list[Exception] = []
    ended = asyncio.Event()

    async def handler(stream: Stream) -> None:
        try:
            while await stream.read():
                pass
        except OSError as error:
            broken.append(error)
            ended.set()
            raise

    async def app(request: Request) -> Response:
        return Response(upgrade=handler)

    async with talk_to(stack(http.server(), app)) as talk:
        stream = await talk.ask([(":method", "CONNECT"), (":authority", "b:443")], end=False)
        await talk.hear("1 response 200")
        talk.side.engine.reset(stream, frames.CANCEL)
        await talk.flush()
        await ended.wait()
        await talk.settle()
    assert isinstance(broken[0], ConnectionResetError)
    assert [each.levelname for each in caplog.records if "reset" in each.message] == ["INFO"]


async def test_connect_without_a_tunnel_is_501_and_an_upgrade_nobody_asked_for_500() -> None:
    async def app(request: Request) -> Response:
        return Response(200) if request.method == "CONNECT" else Response(upgrade=shout)

    async with talk_to(stack(http.server(), app)) as talk:
        await talk.ask([(":method", "CONNECT"), (":authority", "b:443")], end=False)
        assert (await talk.until("end"))[0].startswith("1 response 501")
        await talk.ask()
        assert (await talk.until("end"))[-2].startswith("3 response 500")


# how it begins


async def test_an_upgrade_from_http_1_is_not_taken() -> None:
    request = (
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n"
    )
    async with client_of(stack(http.server(), hello)) as client:
        await client.say(request)
        assert (await client.hear_end()).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("piece", [1, 5, 20])
async def test_a_preface_in_pieces_is_one(piece: int) -> None:
    async with client_of(stack(http.server(), hello)) as client:
        data = frames.PREFACE + frame(frames.SETTINGS, 0, 0)
        for at in range(0, len(data), piece):
            await client.say(data[at : at + piece])
        assert (await client.stream.read(5))[3:4] == b"\x04"


async def test_what_breaks_the_protocol_is_told_and_ends_the_connection() -> None:
    async with talk_to(stack(http.server(), hello)) as talk:
        await talk.raw(rst_stream(1, 0))
        assert await talk.hear_end() == ["goaway 0 PROTOCOL_ERROR"]
