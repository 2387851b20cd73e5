"""Which targets may be reached."""

import socket

import pytest

from llama import (
    Extensions,
    LocalAddress,
    PeerAddress,
    RefusedError,
    Stream,
    Target,
    UnreachableError,
    stack,
    tcp,
)
from llama.tcp._policy.address_filter import (
    AddressFilter,
    arrived_on_loopback,
    is_public,
    proxy_hop,
    require_public,
    restrict,
    restrict_for_client,
)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fd00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "2002:7f00:1::",
        "64:ff9b::10.0.0.1",
        "a.example",
        "",
    ],
)
def test_addresses_that_are_not_public(host: str) -> None:
    assert not is_public(host)


@pytest.mark.parametrize("host", ["8.8.8.8", "2a00:1450:4001::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"])
def test_public_addresses(host: str) -> None:
    assert is_public(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "LOCALHOST.", "x.localhost", "unix:/x"])
def test_a_target_on_this_machine_is_refused_immediately(host: str) -> None:
    with pytest.raises(RefusedError, match="only public addresses"):
        require_public(Target(host, 80))


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.1", "0177.0.0.1", "rebinds.example"])
async def test_a_name_is_checked_by_its_resolved_addresses(host: str) -> None:
    async def resolver(name: str, port: int) -> list[str]:
        return ["127.0.0.1", "::1"]

    connect = stack(tcp.public_only(), tcp.connect(resolver=resolver))
    with pytest.raises(RefusedError, match=f"{host}:80 is not allowed: only public addresses"):
        await connect(Target(host, 80))


async def test_only_the_allowed_addresses_of_a_name_are_tried() -> None:
    async def resolver(name: str, port: int) -> list[str]:
        return ["127.0.0.1", "127.0.0.2"]

    tried: list[str] = []

    def second(address: str) -> bool:
        tried.append(address)
        return address == "127.0.0.2"

    with socket.create_server(("127.0.0.2", 0)) as listener:
        target = restrict(Target("a.example", listener.getsockname()[1]), second, "only the second")
        stream = await tcp.connect(resolver=resolver)(target)
        await stream.aclose()
    assert tried == ["127.0.0.1", "127.0.0.2"]


def test_several_filters_all_apply() -> None:
    target = restrict(Target("a.example", 80), lambda address: address != "192.0.2.1", "not that one")
    narrow = restrict(target, lambda address: address != "192.0.2.2", "nor that one")
    both = narrow.extensions[AddressFilter]
    assert [both.allows(f"192.0.2.{last}") for last in (1, 2, 3)] == [False, False, True]


@pytest.mark.parametrize(
    ("local", "on_loopback"),
    [
        (LocalAddress("127.0.0.1", 1080), True),
        (LocalAddress("::1", 1080), True),
        (LocalAddress("::ffff:127.0.0.1", 1080), True),
        (LocalAddress("unix", 0), True),
        (LocalAddress("192.0.2.1", 1080), False),
        (None, False),
    ],
)
def test_a_client_of_a_loopback_address_is_local(local: LocalAddress | None, on_loopback: bool) -> None:
    extensions = Extensions(*([local] if local else []))
    assert arrived_on_loopback(extensions) is on_loopback
    target = Target("127.0.0.1", 22)
    if on_loopback:
        assert restrict_for_client(target, extensions, private=None) is target
    else:
        with pytest.raises(RefusedError):
            restrict_for_client(target, extensions, private=None)
    assert restrict_for_client(target, extensions, private=True) is target
    with pytest.raises(RefusedError):
        restrict_for_client(target, extensions, private=False)


def test_a_hop_gets_the_client_addresses_but_no_other_extensions() -> None:
    target = require_public(Target("a.example", 443))
    target.extensions.set(PeerAddress("192.0.2.1", 50000))
    proxy = proxy_hop(Target("127.0.0.1", 1080), target)
    assert list(proxy.extensions) == [PeerAddress("192.0.2.1", 50000)]


async def test_a_malformed_name_is_unreachable() -> None:
    for name in ("a..example", "x" * 64 + ".example"):
        with pytest.raises(UnreachableError, match="not a host name"):
            await tcp.connect()(Target(name, 80))


def test_the_repr_of_the_layer_is_its_name() -> None:
    async def nowhere(target: Target) -> Stream:
        raise OSError

    assert repr(stack(tcp.public_only(), nowhere)) == "tcp.public_only()"
