"""The client that trusted proxies name: how far they are believed, and what is not an address, a scheme or a host."""

import asyncio

import pytest

from llama import PeerAddress, http
from llama.http import Request, Response
from llama.http._proxy.forwarded_fields import ForwardedFor

TRUST = ["10.0.0.0/8"]


def seen(
    *fields: tuple[str, str],
    peer: str | None = "10.0.0.1",
    header: str = "x-forwarded-for",
    host: bool = False,
) -> Request:
    """The request that a handler behind `http.forwarded` gets."""
    request = Request("GET", "http://a.example/", fields)
    request.client = None if peer is None else PeerAddress(peer, 1)
    found: list[Request] = []

    async def handler(request: Request) -> Response:
        found.append(request)
        return Response(204)

    layer = http.forwarded(TRUST, header=header, host=host)  # type: ignore[arg-type]

    async def main() -> None:
        await (await layer(handler)(request)).aclose()

    asyncio.run(main())
    return found[0]


def client(request: Request) -> tuple[str, int] | None:
    return None if request.client is None else (request.client.host, request.client.port)


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded"])
def test_at_most_32_hops_are_believed(header: str) -> None:
    hops = [f"10.0.1.{number}" for number in range(40)]
    value = ", ".join(hops if header == "x-forwarded-for" else [f"for={hop}" for hop in hops])
    request = seen((header, value), header=header)
    assert client(request) == ("10.0.1.8", 0)
    assert request.extensions[ForwardedFor] == ForwardedFor(tuple(hops[8:]))


@pytest.mark.parametrize("peer", ["203.0.113.1", None])
def test_a_peer_that_is_not_trusted_or_has_no_address_is_not_believed(peer: str | None) -> None:
    request = seen(("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-Proto", "https"), peer=peer)
    assert client(request) == (None if peer is None else (peer, 1))
    assert request.scheme == "http" and not request.headers.get_all("x-forwarded-for")


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("203.0.113.9", ("203.0.113.9", 0)),
        ("203.0.113.9:80", ("203.0.113.9", 80)),
        ("203.0.113.9:65536", ("203.0.113.9", 0)),
        ("[2001:db8::1]:80", ("2001:db8::1", 80)),
        ("2001:db8::1", ("2001:db8::1", 0)),
        ("unknown", ("10.0.0.1", 1)),
        ("_hidden", ("10.0.0.1", 1)),
        ("", ("10.0.0.1", 1)),
    ],
)
def test_a_node_is_an_address_or_the_proxy_itself_counts(node: str, expected: tuple[str, int]) -> None:
    assert client(seen(("X-Forwarded-For", node))) == expected


@pytest.mark.parametrize("value", ["for=203.0.113.9;;x", "for=203.0.113.9, for=", 'for="203.0.113.9', "x y"])
def test_a_malformed_forwarded_is_not_believed(value: str) -> None:
    assert client(seen(("Forwarded", value), header="forwarded")) == ("10.0.0.1", 1)


def test_only_one_of_the_headers_is_believed_and_the_other_is_dropped() -> None:
    fields = (("X-Forwarded-For", "203.0.113.9"), ("Forwarded", "for=203.0.113.8"))
    request = seen(*fields)
    assert client(request) == ("203.0.113.9", 0) and "forwarded" not in request.headers.names
    request = seen(*fields, header="forwarded")
    assert client(request) == ("203.0.113.8", 0) and "x-forwarded-for" not in request.headers.names


@pytest.mark.parametrize(
    ("proto", "scheme"), [("https", "https"), ("HTTPS", "https"), ("file", "http"), ("", "http")]
)
def test_the_scheme_is_http_or_https(proto: str, scheme: str) -> None:
    assert seen(("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-Proto", proto)).scheme == scheme


@pytest.mark.parametrize(
    ("value", "host", "authority"),
    [
        ("shop.example", True, "shop.example"),
        ("shop.example", False, "a.example"),
        ("shop example", True, "a.example"),
        ("user@shop.example", True, "a.example"),
        ("shop.example/x", True, "a.example"),
    ],
)
def test_the_host_is_believed_on_request_where_it_is_one(value: str, host: bool, authority: str) -> None:
    request = seen(("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-Host", value), host=host)
    assert request.authority == authority
