"""The connector through an HTTP proxy, against scripted proxies."""

import errno

import pytest

from llama import (
    ConfigError,
    LlamaError,
    RefusedError,
    Shutdown,
    Stream,
    Target,
    UnreachableError,
    describe,
    http,
    tcp,
    testing,
    tls,
)
from llama.tcp._policy.address_filter import restrict
from llama.testing._transcript import converse

A = Target("a.example", 443)
ASKED = "<< CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n"


class Scripted:
    """A connector to a proxy that follows a transcript; `lines` are sent by the proxy."""

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


@pytest.mark.parametrize(
    "answer",
    [
        "HTTP/1.1 200 Connection established\r\n\r\n",
        "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    ],
)
async def test_a_target_is_reached(answer: str) -> None:
    proxy = Scripted(ASKED, f">> {answer}220 hello", "<< hi", ">> there")
    stream = await http.connect("proxy.example:3128", connect=proxy)(A)
    assert await stream.read() == b"220 hello"
    await converse(stream, ">> hi", "<< there")
    await stream.aclose()
    assert proxy.targets == [Target("proxy.example", 3128)]


async def test_a_response_may_arrive_in_chunks() -> None:
    pieces = [f">> {each}" for each in "HTTP/1.1 200 OK\r\n\r\nhi"]
    stream = await http.connect("proxy.example:3128", connect=Scripted(ASKED, *pieces))(A)
    assert await stream.read(1) + await stream.read(1) == b"hi"
    await stream.aclose()


async def test_credentials_and_headers_are_sent() -> None:
    proxy = Scripted(
        "<< CONNECT [::1]:80 HTTP/1.1\r\nHost: [::1]:80\r\nUser-Agent: llama\r\n"
        "Proxy-Authorization: Basic am9objpzZWNyZXQ=\r\n\r\n",
        ">> HTTP/1.1 200 OK\r\n\r\n",
    )
    connect = http.connect(
        "proxy.example:3128", user="john", password="secret", headers={"User-Agent": "llama"}, connect=proxy
    )
    await (await connect(Target("::1", 80))).aclose()


async def failure(*lines: str) -> LlamaError:
    proxy = Scripted(ASKED, *lines)
    async with Shutdown():
        with pytest.raises(LlamaError) as raised:
            await http.connect("proxy.example:3128", connect=proxy)(A)
    assert proxy.broken
    return raised.value


@pytest.mark.parametrize("status", ["407 Proxy Authentication Required", "403 Forbidden"])
async def test_an_authorization_failure_raises_refused(status: str) -> None:
    error = await failure(f">> HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")
    assert isinstance(error, RefusedError)
    assert str(error) == f"cannot reach a.example:443 through proxy proxy.example:3128: {status}"


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("502 Bad Gateway\r\nProxy-Status: llama; error=connection_refused", errno.ECONNREFUSED),
        ("502 Bad Gateway\r\nProxy-Status: llama; error=dns_error; rcode=NXDOMAIN", errno.EHOSTUNREACH),
        ("504 Gateway Timeout", errno.ETIMEDOUT),
        ("502 Bad Gateway", None),
        ("302 Found\r\nLocation: http://a.example/", None),
    ],
)
async def test_other_statuses_raise_unreachable_with_the_cause(answer: str, number: int | None) -> None:
    error = await failure(f">> HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n")
    assert isinstance(error, UnreachableError)
    assert answer.split("\r\n")[0] in str(error)
    assert (error.__cause__ and getattr(error.__cause__, "errno", None)) == number


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([">> SSH-2.0-OpenSSH\r\n\r\n"], "malformed status line"),
        ([">> HTTP/1.1 200 OK\r\n", ">>"], "closed the connection before its response was complete"),
        ([">> " + "HTTP/1.1 100 Continue\r\n\r\n" * 17], "more than 16 interim responses"),
        ([">> HTTP/1.1 200 OK\r\n" + "X: y\r\n" * 20000], "larger than 65536 bytes"),
    ],
)
async def test_a_malformed_response_raises_unreachable(lines: list[str], words: str) -> None:
    error = await failure(*lines)
    assert isinstance(error, UnreachableError)
    assert words in str(error)


@pytest.mark.parametrize(
    "target", [Target("unix:/x", 0), Target("a b", 80), Target("a.example", 0), Target("", 1)]
)
async def test_a_target_that_is_invalid_for_connect(target: Target) -> None:
    proxy = Scripted()
    with pytest.raises(UnreachableError, match="requires a host and a port"):
        await http.connect("proxy.example:3128", connect=proxy)(target)
    assert proxy.targets == []


async def test_address_filters_apply_to_literal_addresses() -> None:
    target = restrict(Target("a.example", 80), lambda address: address != "192.0.2.1", "not that one")
    with pytest.raises(RefusedError, match="not that one"):
        await http.connect("proxy.example:3128", connect=Scripted())(
            Target("192.0.2.1", 80, target.extensions)
        )


async def test_a_proxy_that_does_not_respond_times_out() -> None:
    silent = Scripted(ASKED)
    async with testing.clock() as clock, Shutdown() as shutdown:
        connect = http.connect("proxy.example:3128", connect=silent, handshake_timeout=5)

        async def reach() -> str:
            with pytest.raises(TimeoutError) as raised:
                await connect(A)
            return str(raised.value)

        task = shutdown.spawn(reach())
        await clock.advance(5)
        assert (
            await task
            == "cannot reach a.example:443 through proxy proxy.example:3128: no response within 5 s"
        )
    assert silent.broken


def test_invalid_settings_raise_when_the_connector_is_built() -> None:
    with pytest.raises(ConfigError, match="both user and password"):
        http.connect("proxy.example:3128", user="john")
    with pytest.raises(ConfigError, match="a colon in the user"):
        http.connect("proxy.example:3128", user="jo:hn", password="x")
    with pytest.raises(ConfigError, match="not an address"):
        http.connect("proxy.example")
    with pytest.raises(TypeError, match="call it"):
        http.connect("proxy.example:3128", connect=tcp.connect)  # type: ignore[arg-type]


def test_the_description_shows_the_chain_of_connectors() -> None:
    chain = describe(http.connect("proxy.example:443", connect=tls.connect()))
    assert chain == "http.connect(proxy.example:443) > tls.connect() > tcp.connect()"
