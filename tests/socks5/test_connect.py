"""The connector: against scripted proxies, and against llama's own server."""

import errno
import socket

import pytest

from llama import (
    ConfigError,
    ConnectionHandler,
    Connector,
    Extensions,
    LlamaError,
    PeerAddress,
    RefusedError,
    Shutdown,
    Stream,
    Target,
    UnreachableError,
    describe,
    serve,
    socks5,
    tcp,
    testing,
)
from llama.testing._transcript import converse
from tests.socks5.worlds import Echoes, Fails, echo

A = Target("a.example", 443)
ASKED = "<< \x05\x01\x00\x03\x09a.example\x01\xbb"
OK = ">> \x05\x00\x00\x01\0\0\0\0\0\0"


class Scripted:
    """A connector to a proxy that follows a transcript; `lines` are the proxy's."""

    def __init__(self, *lines: str) -> None:
        self.lines = lines
        self.targets: list[Target] = []
        self.broken = False

    async def __call__(self, target: Target, /) -> Stream:
        self.targets.append(target)
        here, there = testing.memory_pair()
        Shutdown.current().spawn(self._play(there))
        return here

    async def _play(self, stream: Stream) -> None:
        await converse(stream, *self.lines)
        try:
            while await stream.read():
                pass
        except OSError:
            self.broken = True
        stream.abort()


async def test_a_target_is_reached() -> None:
    proxy = Scripted("<< \x05\x01\x00", ">> \x05\x00", ASKED, OK, "<< hi", ">> there")
    stream = await socks5.connect("proxy.example", connect=proxy)(A)
    await converse(stream, ">> hi", "<< there")
    await stream.aclose()
    assert proxy.targets == [Target("proxy.example", 1080)]


async def test_early_data_of_the_target_is_not_lost() -> None:
    proxy = Scripted("<< \x05\x01\x00", ">> \x05\x00", ASKED, f"{OK}220 hello")
    stream = await socks5.connect("proxy.example:9050", connect=proxy)(A)
    assert await stream.read() == b"220 hello"
    await stream.aclose()


async def test_an_answer_may_come_in_pieces() -> None:
    pieces = [f">> {each}" for each in "\x05\x00\x00\x03\x09b.example\x00\x50"]
    proxy = Scripted("<< \x05\x01\x00", ">> \x05", ">> \x00", ASKED, *pieces, ">> hi")
    stream = await socks5.connect("proxy.example", connect=proxy)(A)
    assert await stream.read() == b"hi"
    await stream.aclose()


async def test_credentials_are_sent_to_a_proxy_that_requires_them() -> None:
    asks = Scripted(
        "<< \x05\x02\x00\x02", ">> \x05\x02", "<< \x01\x04john\x06secret", ">> \x01\x00", ASKED, OK
    )
    does_not = Scripted("<< \x05\x02\x00\x02", ">> \x05\x00", ASKED, OK)
    for proxy in (asks, does_not):
        stream = await socks5.connect("proxy.example", user="john", password="secret", connect=proxy)(A)
        await stream.aclose()


async def failure(*lines: str, user: str | None = None, target: Target = A) -> LlamaError:
    proxy = Scripted(*lines)
    async with Shutdown():
        with pytest.raises(LlamaError) as raised:
            await socks5.connect("proxy.example", user=user, password=user, connect=proxy)(target)
    assert proxy.broken
    return raised.value


@pytest.mark.parametrize(
    ("code", "number", "words"),
    [
        (1, None, "general SOCKS server failure"),
        (3, errno.ENETUNREACH, "network unreachable"),
        (4, errno.EHOSTUNREACH, "host unreachable"),
        (5, errno.ECONNREFUSED, "connection refused"),
        (6, errno.ETIMEDOUT, "TTL expired"),
        (7, errno.EOPNOTSUPP, "command not supported"),
        (8, errno.EAFNOSUPPORT, "address type not supported"),
        (99, None, "reply code 99"),
    ],
)
async def test_a_reply_is_the_error_it_names(code: int, number: int | None, words: str) -> None:
    refusal = f">> \x05{chr(code)}\x00\x01\0\0\0\0\0\0"
    error = await failure("<< \x05\x01\x00", ">> \x05\x00", ASKED, refusal)
    assert isinstance(error, UnreachableError)
    assert str(error) == f"cannot reach a.example:443 through proxy proxy.example:1080: {words}"
    assert (error.__cause__ and getattr(error.__cause__, "errno", None)) == number


async def test_a_target_that_is_not_allowed_is_refused() -> None:
    refusal = ">> \x05\x02\x00\x01\0\0\0\0\0\0"
    error = await failure("<< \x05\x01\x00", ">> \x05\x00", ASKED, refusal)
    assert isinstance(error, RefusedError)
    assert "connection not allowed by ruleset" in str(error)


async def test_a_proxy_that_refuses_the_client() -> None:
    error = await failure("<< \x05\x01\x00", ">> \x05\xff")
    assert isinstance(error, RefusedError)
    assert "wants a name and password" in str(error)
    error = await failure("<< \x05\x02\x00\x02", ">> \x05\x02", "<< \x01\x01x\x01x", ">> \x01\x01", user="x")
    assert isinstance(error, RefusedError)
    assert "does not accept the name and password" in str(error)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([">> HTTP/1.1 400 Bad Request"], "version 72: expected 5"),
        ([">> \x05\x01"], "chose method 1"),
        ([">> \x05", ">>"], "left before its choice of a method was whole"),
        ([">> \x05\x00", ASKED, ">> \x05\x00\x00\x09"], "address type 9"),
    ],
)
async def test_a_server_that_does_not_speak_socks_is_unreachable(answer: list[str], words: str) -> None:
    error = await failure("<< \x05\x01\x00", *answer)
    assert isinstance(error, UnreachableError)
    assert words in str(error)


@pytest.mark.parametrize("host", ["a" * 256, "unix:/x", "a b"])
async def test_a_host_that_cannot_be_sent_is_unreachable(host: str) -> None:
    error = await failure("<< \x05\x01\x00", ">> \x05\x00", target=Target(host, 80))
    assert isinstance(error, UnreachableError)
    assert "invalid host name" in str(error)


async def test_errors_of_the_connection_to_the_proxy_are_raised() -> None:
    with pytest.raises(UnreachableError, match="no way"):
        await socks5.connect("proxy.example", connect=Fails(UnreachableError("no way")))(A)


async def test_a_proxy_that_does_not_respond_times_out() -> None:
    silent = Scripted("<< \x05\x01\x00")
    async with testing.clock() as clock, Shutdown() as shutdown:
        connect = socks5.connect("proxy.example", connect=silent, handshake_timeout=5)
        task = shutdown.spawn(_reach(connect, A))
        await clock.advance(5)
        assert await task == "cannot reach a.example:443 through proxy proxy.example:1080: no answer in 5 s"
    assert silent.broken


async def _reach(connect: Connector, target: Target) -> str:
    try:
        await connect(target)
    except TimeoutError as error:
        return str(error)
    return "reached"


async def test_names_are_resolved_by_the_proxy_by_default() -> None:
    there = Echoes()
    async with serve(socks5.server(connect=there), listen="127.0.0.1:0") as server:
        for resolve in ("remote", "local"):
            stream = await socks5.connect(server.address, resolve=resolve)(Target("localhost", 80))
            await stream.aclose()
    assert there.targets[0] == Target("localhost", 80)
    assert there.targets[1].host in ("127.0.0.1", "::1")


async def test_a_name_that_cannot_be_resolved_locally() -> None:
    connect = socks5.connect("proxy.example", connect=Echoes(), resolve="local")
    with pytest.raises(UnreachableError, match=r"cannot resolve a\.\.example: .*"):
        await connect(Target("a..example", 80))


async def test_the_proxy_receives_only_the_clients_address() -> None:
    proxy = Scripted("<< \x05\x01\x00", ">> \x05\x00", ASKED, OK)
    told = Extensions(PeerAddress("192.0.2.1", 50000), "for the target alone")
    stream = await socks5.connect("proxy.example", connect=proxy)(Target("a.example", 443, told))
    await stream.aclose()
    assert list(proxy.targets[0].extensions) == [PeerAddress("192.0.2.1", 50000)]


def proxy_through(connect: Connector | None) -> ConnectionHandler:
    return socks5.server(auth={"john": "secret"}, connect=connect)


async def test_a_chain_of_three_reaches_the_target_and_reports_failures() -> None:
    async with (
        serve(echo, listen="127.0.0.1:0") as there,
        serve(proxy_through(None), listen="127.0.0.1:0") as third,
        serve(proxy_through(None), listen="127.0.0.1:0") as second,
        serve(proxy_through(None), listen="127.0.0.1:0") as first,
    ):
        connect: Connector | None = None
        for each in (first, second, third):
            connect = socks5.connect(each.address, user="john", password="secret", connect=connect)
        assert connect is not None
        assert describe(connect).count(" > ") == 3
        stream = await connect(Target("127.0.0.1", there.port))
        await converse(stream, ">> hi", "<< hi", ">>", "<<")
        await stream.aclose()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            closed = listener.getsockname()[1]
        with pytest.raises(UnreachableError, match="connection refused") as raised:
            await connect(Target("127.0.0.1", closed))
        assert isinstance(raised.value.__cause__, ConnectionRefusedError)


async def test_bulk_goes_through_a_chain_both_ways() -> None:
    size = 3_000_000
    async with (
        serve(echo, listen="127.0.0.1:0") as there,
        serve(socks5.server(), listen="127.0.0.1:0") as far,
        serve(socks5.server(connect=socks5.connect(far.address)), listen="127.0.0.1:0") as near,
    ):
        stream = await socks5.connect(near.address)(Target("127.0.0.1", there.port))
        async with Shutdown() as shutdown:
            task = shutdown.spawn(_write(stream, bytes(size)))
            count = 0
            while data := await stream.read():
                count += len(data)
            await task
        await stream.aclose()
    assert count == size


async def _write(stream: Stream, data: bytes) -> None:
    await stream.write(data)
    await stream.write_eof()


def test_settings_that_cannot_work_are_errors_at_start() -> None:
    with pytest.raises(ConfigError, match="both user and password"):
        socks5.connect("proxy.example", user="john")
    with pytest.raises(ConfigError, match="takes 1 to 255"):
        socks5.connect("proxy.example", user="john", password="")
    with pytest.raises(ConfigError, match="expected 'remote' or 'local'"):
        socks5.connect("proxy.example", resolve="here")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="not an address"):
        socks5.connect("proxy.example:x")
    with pytest.raises(TypeError, match="call it"):
        socks5.connect("proxy.example", connect=tcp.connect)  # type: ignore[arg-type]
