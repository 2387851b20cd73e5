"""Tests of what talks to a web service: recorded once, replayed since then without the network.

The first run records into `cassettes/cassette_test/`, and what the rules name is never written there; from then on
nothing leaves this machine. `pytest --cassette=all` records anew.
"""

import json
from urllib.request import Request, urlopen

import pytest

from llama import layer
from llama.http import Request as HTTPRequest
from llama.http import RequestHandler, Response
from llama.testing import Cassette, RecordingProxy, Redaction


def rates(key: str, base: str) -> dict[str, float]:
    """What one unit of a currency is worth: the code under test, which knows nothing of tests."""
    asked = json.dumps({"key": key}).encode()
    with urlopen(
        Request("https://rates.example/token", asked, {"Content-Type": "application/json"})
    ) as response:
        token = json.load(response)["token"]
    fields = {"Authorization": f"Bearer {token}"}
    with urlopen(Request(f"https://rates.example/latest?base={base}", headers=fields)) as response:
        found: dict[str, float] = json.load(response)["rates"]
    return found


@pytest.mark.cassette(redact=Redaction(fields=["key", "token"]))
def test_rates_are_replayed(cassette: Cassette) -> None:
    assert rates("no key is needed", "EUR") == {"CHF": 0.93, "USD": 1.16}
    assert not cassette.unused


@layer
async def unavailable(request: HTTPRequest, inner: RequestHandler) -> Response:
    return Response(503, {"Retry-After": "1"})


@pytest.mark.llama_proxy(layers=[unavailable])
def test_a_service_that_is_down(llama_proxy: RecordingProxy) -> None:
    with pytest.raises(OSError, match="503"):
        rates("any", "EUR")
    (exchange,) = llama_proxy.exchanges
    assert (exchange.method, exchange.url) == ("POST", "https://rates.example/token")
