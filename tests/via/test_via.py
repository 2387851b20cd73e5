"""Chains from URLs and from the environment."""

from pathlib import Path

import pytest

from llama import (
    ConfigError,
    Connector,
    Stream,
    Target,
    UnreachableError,
    describe,
    serve,
    socks5,
    stack,
    tls,
    via,
)
from llama._proxy_chain import EnvironmentConnect
from llama.testing._transcript import converse
from tests.socks5.worlds import Echoes, echo
from tests.via.http_proxy import connect_proxy


@pytest.mark.parametrize(
    ("urls", "chain"),
    [
        ([], "tcp.connect()"),
        (["socks5h://a.example"], "socks5.connect(a.example:1080) > tcp.connect()"),
        (["http://a.example"], "http.connect(a.example:80) > tcp.connect()"),
        (["https://a.example/"], "http.connect(a.example:443) > tls.connect() > tcp.connect()"),
        (
            ["socks5://a.example:9050", "http://john:secret@[::1]:3128"],
            "http.connect([::1]:3128) > socks5.connect(a.example:9050) > tcp.connect()",
        ),
    ],
)
def test_a_chain_is_built(urls: list[str], chain: str) -> None:
    assert describe(via(*urls)) == chain


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("a.example:1080", "'a.example:1080' is not a proxy URL: expected socks5://"),
        ("ftp://a.example", "'ftp://a.example' is not a proxy URL: expected socks5://"),
        ("socks5://", "expected socks5://[USER:PASSWORD@]HOST[:PORT]"),
        ("http://a.example/path", "expected http://"),
        ("http://a.example?x=1", "expected http://"),
        ("http://a.example:99999", "malformed"),
        ("http://[::1", "malformed"),
        ("socks5://john@a.example", "takes 1 to 255"),
        ("", "is not a proxy URL"),
        ("http://u:pa@@ss", "more than one @"),
        ("http://u:p@ss@a.example:80", "%40 for @"),
        ("http://u:p/ss@a.example", "malformed"),
        ("http://a.exa\nmple", "a space or a control character"),
        (" http://a.example", "a space or a control character"),
        ("http://a b.example", "a space or a control character"),
        ("http://a\\b.example", "an invalid host"),
        ("http://a%40b.example", "an invalid host"),
    ],
)
def test_an_invalid_proxy_url_is_an_immediate_error(url: str, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        via(url)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://john:secret@a.example",
        "http://john:secret@a.example/path",
        "john:secret@a.example:80",
        "http://john:secret@@a.example",
        "http://john:se@cret@a.example",
        "http://john:secret@a b.example",
    ],
)
def test_the_message_does_not_show_the_password(url: str) -> None:
    with pytest.raises(ConfigError) as raised:
        via(url)
    assert "secret" not in str(raised.value)


async def test_credentials_are_unquoted() -> None:
    there = Echoes()
    auth = {"jo:hn": "s@cret/"}
    async with serve(socks5.server(auth=auth, connect=there), listen="127.0.0.1:0") as server:
        stream = await via(f"socks5h://jo%3Ahn:s%40cret%2F@127.0.0.1:{server.port}")(Target("a.example", 80))
        await stream.aclose()


async def test_socks5_resolves_locally_and_socks5h_remotely() -> None:
    there = Echoes()
    async with serve(socks5.server(connect=there), listen="127.0.0.1:0") as server:
        for scheme in ("socks5", "socks5h"):
            stream = await via(f"{scheme}://{server.address}")(Target("localhost", 80))
            await stream.aclose()
    assert there.targets[0].host in ("127.0.0.1", "::1")
    assert there.targets[1].host == "localhost"


async def test_three_hops_reach_a_target(tmp_path: Path) -> None:
    """SOCKS5, then HTTP CONNECT over TLS, then SOCKS5."""
    authority = tls.CertificateAuthority.create()
    authority.write_pem(tmp_path / "ca.pem")
    authority.issue("localhost").write(tmp_path)
    secure = stack(tls.server(tmp_path / "cert.pem", tmp_path / "key.pem"), connect_proxy("am9objpzZWNyZXQ="))
    async with (
        serve(echo, listen="127.0.0.1:0") as there,
        serve(socks5.server(auth={"john": "secret"}), listen="127.0.0.1:0") as third,
        serve(secure, listen="localhost:0") as second,
        serve(socks5.server(), listen="127.0.0.1:0") as first,
    ):
        connect = via(
            f"socks5h://{first.address}",
            f"https://john:secret@localhost:{second.port}",
            f"socks5://john:secret@{third.address}",
            ca=tmp_path / "ca.pem",
        )
        stream = await connect(Target("127.0.0.1", there.port))
        await converse(stream, ">> through all three", "<< through all three", ">>", "<<")
        await stream.aclose()
        with pytest.raises(UnreachableError, match="connection refused") as raised:
            await connect(Target("127.0.0.1", 1))
        assert isinstance(raised.value.__cause__, ConnectionRefusedError)


class Named:
    """A connector that says its name."""

    def __init__(self) -> None:
        self.targets: list[str] = []

    async def __call__(self, target: Target, /) -> Stream:
        self.targets.append(str(target))
        raise UnreachableError("far enough")


async def first_hops(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], *targets: str) -> list[str]:
    """What is connected to first for each target."""
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    named = Named()
    connect: Connector = via("env", connect=named)
    assert isinstance(connect, EnvironmentConnect)
    for target in targets:
        with pytest.raises(UnreachableError):
            await connect(Target.parse(target))
    return named.targets


async def test_the_environment_selects_a_proxy_by_port(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"http_proxy": "http://web.example:3128", "HTTPS_PROXY": "socks5h://tls.example"}
    hops = await first_hops(monkeypatch, variables, "a.example:80", "a.example:443", "a.example:22")
    assert hops == ["web.example:3128", "tls.example:1080", "tls.example:1080"]


async def test_all_proxy_is_the_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"http_proxy": "web.example:3128", "ALL_PROXY": "socks5h://all.example"}
    hops = await first_hops(monkeypatch, variables, "a.example:80", "a.example:443")
    assert hops == ["web.example:3128", "all.example:1080"]


async def test_without_variables_targets_are_reached_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await first_hops(monkeypatch, {}, "a.example:80", "a.example:443") == [
        "a.example:80",
        "a.example:443",
    ]


async def test_a_lower_case_name_wins_even_when_it_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"HTTPS_PROXY": "http://upper.example", "https_proxy": ""}
    assert await first_hops(monkeypatch, variables, "a.example:443") == ["a.example:443"]


async def test_http_proxy_is_ignored_in_a_cgi_program(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"HTTP_PROXY": "http://evil.example", "REQUEST_METHOD": "GET"}
    assert await first_hops(monkeypatch, variables, "a.example:80") == ["a.example:80"]


@pytest.mark.parametrize(
    ("no_proxy", "direct", "proxied"),
    [
        (
            "a.example",
            ["a.example:443", "b.a.example:443", "A.EXAMPLE:443"],
            ["xa.example:443", "example:443"],
        ),
        (".a.example", ["a.example:443", "b.a.example:443"], ["b.example:443"]),
        ("*.a.example", ["b.a.example:443"], ["b.example:443"]),
        ("a.example:8443", ["a.example:8443"], ["a.example:443"]),
        ("localhost, 127.0.0.1 ::1", ["localhost:443", "127.0.0.1:443", "[::1]:443"], ["127.0.0.2:443"]),
        ("10.0.0.0/8,fd00::/8", ["10.1.2.3:443", "[fd12::1]:443"], ["11.1.2.3:443"]),
        ("192.0.2.1:8443", ["192.0.2.1:8443"], ["192.0.2.1:443"]),
        ("[::1]:8443", ["[::1]:8443"], ["[::1]:443"]),
        ("*", ["a.example:443", "192.0.2.1:22"], []),
        ("", [], ["a.example:443"]),
    ],
)
async def test_no_proxy_targets_are_reached_directly(
    monkeypatch: pytest.MonkeyPatch, no_proxy: str, direct: list[str], proxied: list[str]
) -> None:
    variables = {"all_proxy": "http://proxy.example:3128", "no_proxy": no_proxy}
    expected = [each.lower() for each in direct] + ["proxy.example:3128"] * len(proxied)
    hops = await first_hops(monkeypatch, variables, *direct, *proxied)
    assert [each.lower() for each in hops] == expected


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "no_proxy"])
async def test_the_error_names_the_invalid_variable(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    value = "ftp://a.example" if name == "HTTPS_PROXY" else "10.0.0.0/99"
    with pytest.raises(ConfigError, match=f"^{name}: "):
        await first_hops(monkeypatch, {name: value})
