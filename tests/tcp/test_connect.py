import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from llama import Stream, Target, UnreachableError, serve, tcp, testing, unix
from llama.tcp._connect import interleave
from llama.tcp._io.stream import SocketStream

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]


def resolver(*addresses: str) -> Resolver:
    """Knows one name."""

    async def resolve(host: str, port: int) -> list[str]:
        assert host == "name.example"
        return list(addresses)

    return resolve


async def greet(stream: Stream) -> None:
    await stream.write(b"hello")


async def hears_greeting(stream: Stream) -> bool:
    try:
        return await stream.read() == b"hello"
    finally:
        await stream.aclose()


@asynccontextmanager
async def greeter(host: str = "127.0.0.1", port: int = 0) -> AsyncGenerator[int]:
    async with serve(tcp.server((host, port), greet)) as server:
        yield server.port


@contextmanager
def black_hole(host: str, port: int = 0) -> Generator[int]:
    """A listener with a full queue: what connects next gets no answer."""
    with contextlib.ExitStack() as exits:
        listener = exits.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(4):
            client = exits.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@contextmanager
def closed_port() -> Generator[int]:
    """A port of 127.0.0.1 that is taken, and on which nobody listens."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


# One address.


async def test_an_address_needs_no_resolver() -> None:
    async with greeter() as port:
        stream = await tcp.connect(resolver=resolver())(Target("127.0.0.1", port))
        assert await hears_greeting(stream)


async def test_the_system_resolver_resolves_localhost() -> None:
    async with greeter() as port:
        assert await hears_greeting(await tcp.connect()(Target("localhost", port)))


async def test_a_unix_target_is_connected_by_its_path(tmp_path: Path) -> None:
    path = f"unix:{tmp_path}/sock"
    async with serve(greet, listen=path):
        assert await hears_greeting(await tcp.connect()(Target.parse(path)))
        assert await hears_greeting(await unix.connect(f"{tmp_path}/sock")(Target("ignored.example", 80)))


async def test_a_port_without_a_listener_is_unreachable() -> None:
    with closed_port() as port, pytest.raises(UnreachableError) as caught:
        await tcp.connect()(Target("127.0.0.1", port))
    assert str(caught.value) == f"cannot connect to 127.0.0.1:{port}: Connection refused"
    assert caught.value.status == 502
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


async def test_a_missing_path_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(
        UnreachableError, match=f"cannot connect to unix:{tmp_path}/no: No such file or directory"
    ):
        await unix.connect(f"{tmp_path}/no")(Target("x", 0))


async def test_an_unknown_name_is_unreachable() -> None:
    async def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(
        UnreachableError, match=r"cannot connect to no\.example:80: Name or service not known"
    ):
        await tcp.connect(resolver=unknown)(Target("no.example", 80))


async def test_a_name_without_addresses_is_unreachable() -> None:
    with pytest.raises(
        UnreachableError, match=r"cannot connect to name\.example:80: name\.example has no address"
    ):
        await tcp.connect(resolver=resolver())(Target("name.example", 80))


async def test_a_resolver_that_returns_names_is_an_error() -> None:
    with pytest.raises(
        UnreachableError, match=r"the resolver returned 'other\.example', which is not an IP address"
    ):
        await tcp.connect(resolver=resolver("other.example"))(Target("name.example", 80))


# Several addresses.


async def test_after_a_refused_address_the_next_is_tried_immediately() -> None:
    async with greeter("127.0.0.2") as port, testing.clock():  # in which no time passes
        stream = await tcp.connect(resolver=resolver("127.0.0.1", "127.0.0.2"))(Target("name.example", port))
        assert await hears_greeting(stream)


async def test_after_a_silent_address_the_next_is_tried_in_a_quarter_second() -> None:
    with black_hole("127.0.0.1") as port:
        async with greeter("127.0.0.2", port), testing.clock(autojump=True) as clock:
            before = clock.time()
            connect = tcp.connect(resolver=resolver("127.0.0.1", "127.0.0.2"))
            stream = await connect(Target("name.example", port))
            assert await hears_greeting(stream)
            assert 0.25 <= clock.time() - before < 0.3


async def test_a_slow_address_may_still_win() -> None:
    """The second attempt fails while the first is under way: the first goes on."""
    with black_hole("127.0.0.1") as port:
        async with asyncio.TaskGroup() as group:
            connect = tcp.connect(resolver=resolver("127.0.0.1", "127.0.0.3"), timeout=1)
            attempt = group.create_task(refused(connect(Target("name.example", port))))
        assert isinstance(attempt.result(), TimeoutError)


async def refused(awaitable: Awaitable[object]) -> Exception:
    with pytest.raises(OSError) as caught:
        await awaitable
    return caught.value


async def test_when_every_address_refuses_the_first_error_is_raised() -> None:
    with closed_port() as port:
        connect = tcp.connect(resolver=resolver("127.0.0.1", "127.0.0.2", "127.0.0.3"))
        with pytest.raises(
            UnreachableError, match=f"cannot connect to name.example:{port}: Connection refused"
        ):
            await connect(Target("name.example", port))


async def test_the_other_connections_of_the_race_are_closed() -> None:
    accepted: list[str] = []
    gone = asyncio.Event()

    async def watch(stream: Stream) -> None:
        accepted.append(str(stream))
        with contextlib.suppress(OSError):
            while await stream.read():
                pass
        gone.set()

    async with serve(watch, listen="127.0.0.1:0") as server:
        connect = tcp.connect(resolver=resolver("127.0.0.1", "127.0.0.1", "127.0.0.1"))
        stream = await connect(Target("name.example", server.port))
        await stream.aclose()
        await gone.wait()
    assert len(accepted) >= 1  # and the suite's own fixture finds no descriptor left


async def test_a_cancelled_race_leaks_nothing() -> None:
    with black_hole("127.0.0.1") as port:
        connect = tcp.connect(resolver=resolver("127.0.0.1", "127.0.0.1", "127.0.0.1"))
        async with asyncio.TaskGroup() as group:
            attempt = group.create_task(keep(connect(Target("name.example", port))))
            await asyncio.sleep(0.3)
            attempt.cancel()
        assert attempt.cancelled()


async def keep(awaitable: Awaitable[Stream]) -> Stream:
    return await awaitable


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ([], []),
        (["192.0.2.1"], ["192.0.2.1"]),
        (
            ["2001:db8::1", "2001:db8::2", "192.0.2.1", "192.0.2.2"],
            ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2"],
        ),
        (
            ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1"],
            ["192.0.2.1", "2001:db8::1", "192.0.2.2", "192.0.2.3"],
        ),
        (["fe80::1%eth0", "192.0.2.1"], ["fe80::1%eth0", "192.0.2.1"]),
    ],
)
def test_address_families_are_interleaved_starting_with_the_first(given: list[str], taken: list[str]) -> None:
    assert interleave(given) == taken


# Timeouts.


async def test_a_silent_address_ends_in_a_timeout() -> None:
    with black_hole("127.0.0.1") as port:
        async with testing.clock(autojump=True):
            with pytest.raises(TimeoutError, match=rf"no connection to 127\.0\.0\.1:{port} within 2\.5 s"):
                await tcp.connect(timeout=2.5)(Target("127.0.0.1", port))


async def test_the_timeout_covers_the_resolver() -> None:
    async def slow(host: str, port: int) -> list[str]:
        await asyncio.sleep(3600)
        return []

    async with testing.clock(autojump=True):
        with pytest.raises(TimeoutError, match=r"no connection to name\.example:80 within 3 s"):
            await tcp.connect(timeout=3, resolver=slow)(Target("name.example", 80))


async def test_a_timeout_of_the_caller_is_not_converted() -> None:
    with black_hole("127.0.0.1") as port:
        async with testing.clock(autojump=True):
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(1):
                    await tcp.connect(timeout=5)(Target("127.0.0.1", port))
    assert str(caught.value) == ""


@pytest.mark.parametrize("timeout", [None, 5])
async def test_a_timeout_of_the_kernel_is_unreachable(
    timeout: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gives_up(dial: object) -> int:
        raise OSError(errno.ETIMEDOUT, "Connection timed out")

    monkeypatch.setattr("llama.tcp._io.dial.Dial._begin", gives_up)
    with pytest.raises(UnreachableError, match=r"cannot connect to 192\.0\.2\.1:80: Connection timed out"):
        await tcp.connect(timeout=timeout)(Target("192.0.2.1", 80))


# Options.


async def test_the_local_address_and_port_can_be_bound() -> None:
    async with greeter() as port:
        stream = await tcp.connect(bind=("127.0.0.9", 0))(Target("127.0.0.1", port))
        assert isinstance(stream, SocketStream)
        assert stream.socket.getsockname()[0] == "127.0.0.9"
        assert await hears_greeting(stream)


async def test_an_address_that_cannot_be_bound_is_an_error() -> None:
    with pytest.raises(UnreachableError, match="Cannot assign requested address"):
        await tcp.connect(bind=("192.0.2.1", 0))(Target("127.0.0.1", 9))


async def test_the_bind_address_selects_the_family() -> None:
    async with greeter() as port:
        connect = tcp.connect(bind=("127.0.0.1", 0), resolver=resolver("::1", "127.0.0.1"))
        assert await hears_greeting(await connect(Target("name.example", port)))


@pytest.mark.parametrize("on", [True, False])
async def test_nodelay_is_on_by_default(on: bool) -> None:
    async with greeter() as port:
        stream = await tcp.connect(nodelay=on)(Target("127.0.0.1", port))
        assert isinstance(stream, SocketStream)
        assert bool(stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)) == on
        await stream.aclose()


async def test_keep_alive_is_opt_in() -> None:
    async with greeter() as port:
        plain = await tcp.connect()(Target("127.0.0.1", port))
        probing = await tcp.connect(keepalive=30)(Target("127.0.0.1", port))
        assert isinstance(plain, SocketStream) and isinstance(probing, SocketStream)
        assert plain.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        assert probing.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert probing.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
        for stream in (plain, probing):
            await stream.aclose()


async def test_bytes_that_arrive_before_the_connector_returns_are_kept() -> None:
    async with greeter() as port:
        for _ in range(20):
            stream = await tcp.connect()(Target("127.0.0.1", port))
            await asyncio.sleep(0)
            assert await hears_greeting(stream)
