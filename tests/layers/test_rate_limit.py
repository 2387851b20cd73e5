import pytest

from llama import (
    ConfigError,
    Extensions,
    OverloadedError,
    PeerAddress,
    Service,
    describe,
    rate_limit,
    testing,
)
from llama._core.service import RequestT
from llama.layers._peer_key import network_of


class Call:
    """Something that came from a peer."""

    def __init__(self, host: str | None) -> None:
        self.extensions = Extensions() if host is None else Extensions(PeerAddress(host, 1))


async def serve(call: object) -> str:
    return "served"


async def refusal(service: Service[RequestT, str], call: RequestT) -> OverloadedError:
    with pytest.raises(OverloadedError) as caught:
        await service(call)
    return caught.value


async def test_a_burst_passes_and_the_next_call_gets_retry_after() -> None:
    service = rate_limit(2, burst=3)(serve)
    async with testing.clock() as clock:
        for _ in range(3):
            assert await service(Call("192.0.2.1")) == "served"
        error = await refusal(service, Call("192.0.2.1"))
        assert error.status == 429 and error.retry_after == pytest.approx(0.5)
        assert str(error) == "192.0.2.1: more than 2 calls a second"
        await clock.advance(0.5)
        await service(Call("192.0.2.1"))
        await refusal(service, Call("192.0.2.1"))


async def test_refused_calls_cost_nothing_later() -> None:
    service = rate_limit(1)(serve)
    async with testing.clock() as clock:
        await service(Call("192.0.2.1"))
        for _ in range(100):
            await refusal(service, Call("192.0.2.1"))
        await clock.advance(1)
        await service(Call("192.0.2.1"))


async def test_an_idle_key_saves_no_more_than_its_burst() -> None:
    service = rate_limit(1, burst=2)(serve)
    async with testing.clock() as clock:
        await service(Call("192.0.2.1"))
        await clock.advance(1000)
        await service(Call("192.0.2.1"))
        await service(Call("192.0.2.1"))
        await refusal(service, Call("192.0.2.1"))


async def test_peers_count_apart_and_an_ipv6_customer_counts_as_one() -> None:
    service = rate_limit(1)(serve)
    async with testing.clock():
        for host in ("192.0.2.1", "192.0.2.2", "2001:db8:1:1::1", "2001:db8:1:2::1", None):
            await service(Call(host))
        for host in ("192.0.2.1", "::ffff:192.0.2.2", "2001:db8:1:1::2", None):
            await refusal(service, Call(host))


async def test_a_custom_key_function() -> None:
    async def lower(text: str) -> str:
        return text.lower()

    service = rate_limit(1, key=str.upper)(lower)
    async with testing.clock():
        assert await service("John") == "john"
        assert str(await refusal(service, "JOHN")) == "JOHN: more than 1 calls a second"
        assert await service("Paul") == "paul"


async def test_the_table_of_keys_is_bounded_and_drops_the_least_recently_used() -> None:
    service = rate_limit(0.001, key=str, keys=2)(serve)
    async with testing.clock():
        await service("a")
        await service("b")
        await refusal(service, "a")
        await service("c")
        await refusal(service, "a")
        await service("b")


def test_none_returns_the_service_unchanged() -> None:
    assert rate_limit(None)(serve) is serve


def test_its_repr_shows_its_settings() -> None:
    assert describe(rate_limit(10)(serve)) == "rate_limit(10, burst=10) > serve"


@pytest.mark.parametrize("arguments", [(0, None), (1, 0.5)])
def test_invalid_numbers_are_rejected(arguments: tuple[float, float | None]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        rate_limit(*arguments)


@pytest.mark.parametrize(
    ("host", "prefix", "network"),
    [
        ("192.0.2.1", 64, "192.0.2.1"),
        ("::ffff:192.0.2.1", 64, "192.0.2.1"),
        ("2001:db8::1", 128, "2001:db8::1"),
        ("2001:db8:0:7:8::1", 64, "2001:db8:0:7::/64"),
        ("2001:db8:ffff::1", 33, "2001:db8:8000::/33"),
        ("fe80::1%lo", 64, "fe80::/64"),
        ("unix", 64, "unix"),
    ],
)
def test_what_a_peer_counts_as(host: str, prefix: int, network: str) -> None:
    assert network_of(host, prefix) == network
