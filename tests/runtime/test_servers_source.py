"""What `run` takes."""

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import cast

import pytest

from llama import ConfigError, ConnectionHandler, Server, Stream, run, stack, tcp
from llama._runtime.servers_source import ServersSource, is_builder


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


class Service:
    async def __call__(self, stream: Stream) -> None:
        del stream


class Partly:
    async def __call__(self, stream: Stream | None = None) -> None:
        del stream


def build(address: str = "127.0.0.1:0") -> Server:
    return tcp.server(address, echo)


def build_at(address: str) -> Server:
    return tcp.server(address, echo)


async def nothing(*streams: Stream) -> None:
    del streams


def any_number(*streams: Stream) -> Awaitable[None]:
    return nothing(*streams)


@pytest.mark.parametrize(
    "part", [build, lambda: build(), partial(build_at, "127.0.0.1:0"), partial(build_at, address=":0")]
)
def test_a_function_without_required_arguments_is_a_builder(part: object) -> None:
    assert is_builder(part)


@pytest.mark.parametrize(
    "part",
    [
        echo,
        Service(),
        Partly(),
        build(),
        build_at,
        tcp.relay,
        tcp.relay(),
        stack(echo),
        any_number,
        7,
    ],
)
def test_a_service_is_not_a_builder(part: object) -> None:
    assert not is_builder(part)


def test_a_function_may_return_one_server_several_or_a_handler() -> None:
    assert [each.address for each in ServersSource([build], None).build()] == ["127.0.0.1:0"]
    assert [each.address for each in ServersSource([lambda: [build(), build(":0")]], None).build()] == [
        "127.0.0.1:0",
        ":0",
    ]
    assert [each.address for each in ServersSource([lambda: echo], ":0").build()] == [":0"]


def test_servers_are_built_once_a_function_is_called_each_time() -> None:
    server = build()
    fixed, changing = ServersSource([server], None), ServersSource([build], None)
    assert not fixed.is_reloadable and fixed.build() == (server,) == fixed.build()
    assert changing.is_reloadable and changing.build() != changing.build()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: run(), "there is nothing to serve"),
        (lambda: run(echo), "echo has no address: give listen=, or wrap it in tcp.server()"),
        (
            lambda: run(build(), listen=":0"),
            "listen= goes with one service; servers have their own addresses",
        ),
        (lambda: run(echo, echo, listen=":0"), "listen= goes with one service"),
        (
            lambda: run(cast("ConnectionHandler", tcp.relay), listen=":0"),
            "tcp.relay is a relay factory: call it",
        ),
        (lambda: run(list), "there is nothing to serve"),
        (lambda: run(lambda: echo), "echo has no address"),
    ],
)
def test_an_invalid_server_is_an_immediate_error(call: Callable[[], None], message: str) -> None:
    with pytest.raises(TypeError, match=re.escape(message)):
        call()


def test_run_inside_a_loop_recommends_serve() -> None:
    async def main() -> None:
        with pytest.raises(
            RuntimeError, match=re.escape("inside a running loop, use `async with serve(...)`")
        ):
            run(echo, listen="127.0.0.1:0")

    asyncio.run(main())


def test_run_outside_the_main_thread_recommends_serve() -> None:
    errors: list[str] = []

    def start() -> None:
        try:
            run(echo, listen="127.0.0.1:0")
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert errors == ["run() handles signals, which only the main thread receives: use serve() elsewhere"]


def test_an_error_at_the_start_is_raised(workers: str) -> None:
    def fail() -> Server:
        raise ConfigError("site.toml line 3: a port is missing")

    count = None if workers == "None" else int(workers)
    with pytest.raises(ConfigError, match="a port is missing"):
        run(fail, workers=count)
    with pytest.raises(OSError, match=re.escape("cannot listen on 192.0.2.1 port 1")):
        run(echo, listen="192.0.2.1:1", workers=count)


def test_a_failing_on_ready_ends_the_start(workers: str) -> None:
    def fail(addresses: tuple[str, ...]) -> None:
        raise ZeroDivisionError(*addresses)

    with pytest.raises(ZeroDivisionError, match=re.escape("127.0.0.1:")):
        run(echo, listen="127.0.0.1:0", workers=None if workers == "None" else int(workers), on_ready=fail)
